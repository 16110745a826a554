//! ReadIndex rounds, one for all reads that wait when the raft thread comes to it.
//!
//! A round costs the servers as much as several reads, so only a few are under way at a time: under load reads gather for the
//! next one. Every round ends, since the core asks again and gives up in time.

use std::collections::HashMap;

use lictor_proto::LogIndex;
use lictor_raft::ReadId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::ReadError;

/// Two, so that a read on an otherwise idle server that just misses a round need not wait for its end.
const UNDER_WAY_MAX: usize = 2;

/// The index to wait for, or that no round could be had.
type Answer = Result<LogIndex, ReadError>;

/// Reads that wait for a round.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Rounds>);

#[derive(Debug, Default)]
struct Rounds {
    /// They join the next round.
    gathering: Vec<oneshot::Sender<Answer>>,
    under_way: HashMap<u64, Vec<oneshot::Sender<Answer>>>,
    last: u64,
    /// There will be no round any more.
    is_closed: bool,
}

impl Gate {
    /// Joins the next round. Says whether the raft thread must be told that there is one to begin.
    pub(crate) fn join(&self) -> (oneshot::Receiver<Answer>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut rounds = self.0.lock();
        if rounds.is_closed {
            return (receiver, false);
        }
        rounds.gathering.push(sender);
        let is_first = rounds.gathering.len() == 1;
        (receiver, is_first && rounds.may_begin())
    }

    /// How many have joined the next round.
    pub(crate) fn gathering(&self) -> usize {
        self.0.lock().gathering.len()
    }

    /// Ends the wait of all that have joined, and of all that will.
    pub(crate) fn close(&self) {
        *self.0.lock() = Rounds {
            is_closed: true,
            ..Rounds::default()
        };
    }

    /// The raft thread begins a round for all that have joined, if it may.
    pub(crate) fn begin(&self) -> Option<ReadId> {
        let mut rounds = self.0.lock();
        if !rounds.may_begin() {
            return None;
        }
        rounds.last += 1;
        let id = rounds.last;
        let waiting = std::mem::take(&mut rounds.gathering);
        rounds.under_way.insert(id, waiting);
        Some(ReadId(id))
    }

    /// A round is over. Says whether there is another to begin.
    pub(crate) fn end(&self, id: ReadId, answer: &Answer) -> bool {
        let mut rounds = self.0.lock();
        let waiting = rounds.under_way.remove(&id.0);
        let begins = rounds.may_begin();
        drop(rounds);
        for reader in waiting.into_iter().flatten() {
            // A reader that has gone needs no answer.
            let _ = reader.send(answer.clone());
        }
        begins
    }
}

impl Rounds {
    fn may_begin(&self) -> bool {
        !self.gathering.is_empty() && self.under_way.len() < UNDER_WAY_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_joined_share_a_round_and_whoever_comes_later_gets_another() {
        let gate = Gate::default();
        let (first, begins) = gate.join();
        let (second, joins) = gate.join();
        assert!(begins && !joins);

        let round = gate.begin().unwrap();
        let (third, begins) = gate.join();
        assert!(begins);
        gate.end(round, &Ok(LogIndex(7)));

        assert!(matches!(first.await, Ok(Ok(LogIndex(7)))));
        assert!(matches!(second.await, Ok(Ok(LogIndex(7)))));
        let round = gate.begin().unwrap();
        gate.end(round, &Err(ReadError::NoLeader));
        assert!(matches!(third.await, Ok(Err(ReadError::NoLeader))));

        let (waits, _) = gate.join();
        gate.close();
        let (late, begins) = gate.join();
        assert!(waits.await.is_err() && late.await.is_err() && !begins);
    }

    #[tokio::test]
    async fn reads_gather_while_enough_rounds_are_under_way() {
        let gate = Gate::default();
        let begun: Vec<_> = (0..UNDER_WAY_MAX)
            .map(|_| {
                let (answer, begins) = gate.join();
                assert!(begins);
                (answer, gate.begin().unwrap())
            })
            .collect();
        let (first, begins) = gate.join();
        let (second, joins) = gate.join();
        assert!(!begins && !joins);
        assert_eq!(gate.begin(), None);

        assert!(gate.end(begun[0].1, &Ok(LogIndex(1))));

        let round = gate.begin().unwrap();
        assert!(!gate.end(round, &Ok(LogIndex(2))));
        assert!(matches!(first.await, Ok(Ok(LogIndex(2)))));
        assert!(matches!(second.await, Ok(Ok(LogIndex(2)))));
    }
}
