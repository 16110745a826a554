//! ReadIndex rounds, one for all reads that wait when the raft thread comes to it.

use std::collections::HashMap;

use lictor_proto::LogIndex;
use lictor_raft::ReadId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::ReadError;

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
        (receiver, rounds.gathering.len() == 1)
    }

    /// Ends the wait of all that have joined, and of all that will.
    pub(crate) fn close(&self) {
        *self.0.lock() = Rounds {
            is_closed: true,
            ..Rounds::default()
        };
    }

    /// The raft thread begins a round for all that have joined.
    pub(crate) fn begin(&self) -> ReadId {
        let mut rounds = self.0.lock();
        rounds.last += 1;
        let id = rounds.last;
        let waiting = std::mem::take(&mut rounds.gathering);
        rounds.under_way.insert(id, waiting);
        ReadId(id)
    }

    /// A round is over.
    pub(crate) fn end(&self, id: ReadId, answer: &Answer) {
        let waiting = self.0.lock().under_way.remove(&id.0);
        for reader in waiting.into_iter().flatten() {
            // A reader that has gone needs no answer.
            let _ = reader.send(answer.clone());
        }
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

        let round = gate.begin();
        let (third, begins) = gate.join();
        assert!(begins);
        gate.end(round, &Ok(LogIndex(7)));

        assert!(matches!(first.await, Ok(Ok(LogIndex(7)))));
        assert!(matches!(second.await, Ok(Ok(LogIndex(7)))));
        let round = gate.begin();
        gate.end(round, &Err(ReadError::NoLeader));
        assert!(matches!(third.await, Ok(Err(ReadError::NoLeader))));

        let (waits, _) = gate.join();
        gate.close();
        let (late, begins) = gate.join();
        assert!(waits.await.is_err() && late.await.is_err() && !begins);
    }
}
