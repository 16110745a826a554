//! ReadIndex rounds, one for all reads that wait when the raft thread comes to it.
//!
//! There are two kinds: those that the voters confirm, and those for which the leader's lease will do.
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

/// What a round must establish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The leader's lease will do.
    Lease,
    /// A quorum of the voters confirms that it leads.
    Quorum,
}

const PROOFS: [Proof; 2] = [Proof::Lease, Proof::Quorum];

/// Reads that wait for a round.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Rounds>);

#[derive(Debug, Default)]
struct Rounds {
    kinds: [Kind; PROOFS.len()],
    last: u64,
    /// There will be no round any more.
    is_closed: bool,
}

/// The rounds of one kind.
#[derive(Debug, Default)]
struct Kind {
    /// They join the next round.
    gathering: Vec<oneshot::Sender<Answer>>,
    under_way: HashMap<u64, Vec<oneshot::Sender<Answer>>>,
}

impl Gate {
    /// Joins the next round. Says whether the raft thread must be told that there is one to begin.
    pub(crate) fn join(&self, proof: Proof) -> (oneshot::Receiver<Answer>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut rounds = self.0.lock();
        if rounds.is_closed {
            return (receiver, false);
        }
        let kind = &mut rounds.kinds[proof as usize];
        kind.gathering.push(sender);
        let is_first = kind.gathering.len() == 1;
        (receiver, is_first && kind.may_begin())
    }

    /// How many have joined the next round.
    pub(crate) fn gathering(&self) -> usize {
        self.0.lock().kinds.iter().map(|kind| kind.gathering.len()).sum()
    }

    /// Ends the wait of all that have joined, and of all that will.
    pub(crate) fn close(&self) {
        *self.0.lock() = Rounds {
            is_closed: true,
            ..Rounds::default()
        };
    }

    /// The raft thread begins a round for all that have joined, if it may.
    pub(crate) fn begin(&self) -> Option<(ReadId, Proof)> {
        let mut rounds = self.0.lock();
        let proof = PROOFS
            .into_iter()
            .find(|proof| rounds.kinds[*proof as usize].may_begin())?;
        rounds.last += 1;
        let id = rounds.last;
        let kind = &mut rounds.kinds[proof as usize];
        let waiting = std::mem::take(&mut kind.gathering);
        kind.under_way.insert(id, waiting);
        Some((ReadId(id), proof))
    }

    /// A round is over. Says whether there is another to begin.
    pub(crate) fn end(&self, id: ReadId, answer: &Answer) -> bool {
        let mut rounds = self.0.lock();
        let waiting = rounds
            .kinds
            .iter_mut()
            .find_map(|kind| kind.under_way.remove(&id.0));
        let begins = rounds.kinds.iter().any(Kind::may_begin);
        drop(rounds);
        for reader in waiting.into_iter().flatten() {
            // A reader that has gone needs no answer.
            let _ = reader.send(answer.clone());
        }
        begins
    }
}

impl Kind {
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
        let (first, begins) = gate.join(Proof::Quorum);
        let (second, joins) = gate.join(Proof::Quorum);
        assert!(begins && !joins);

        let (round, proof) = gate.begin().unwrap();
        assert_eq!(proof, Proof::Quorum);
        let (third, begins) = gate.join(Proof::Quorum);
        assert!(begins);
        gate.end(round, &Ok(LogIndex(7)));

        assert!(matches!(first.await, Ok(Ok(LogIndex(7)))));
        assert!(matches!(second.await, Ok(Ok(LogIndex(7)))));
        let (round, _) = gate.begin().unwrap();
        gate.end(round, &Err(ReadError::NoLeader));
        assert!(matches!(third.await, Ok(Err(ReadError::NoLeader))));

        let (waits, _) = gate.join(Proof::Lease);
        gate.close();
        let (late, begins) = gate.join(Proof::Lease);
        assert!(waits.await.is_err() && late.await.is_err() && !begins);
    }

    #[tokio::test]
    async fn reads_gather_while_enough_rounds_are_under_way() {
        let gate = Gate::default();
        let begun: Vec<_> = (0..UNDER_WAY_MAX)
            .map(|_| {
                let (answer, begins) = gate.join(Proof::Quorum);
                assert!(begins);
                (answer, gate.begin().unwrap().0)
            })
            .collect();
        let (first, begins) = gate.join(Proof::Quorum);
        let (second, joins) = gate.join(Proof::Quorum);
        assert!(!begins && !joins);
        assert_eq!(gate.begin(), None);

        assert!(gate.end(begun[0].1, &Ok(LogIndex(1))));

        let (round, _) = gate.begin().unwrap();
        assert!(!gate.end(round, &Ok(LogIndex(2))));
        assert!(matches!(first.await, Ok(Ok(LogIndex(2)))));
        assert!(matches!(second.await, Ok(Ok(LogIndex(2)))));
    }

    #[tokio::test]
    async fn a_read_for_which_a_lease_will_do_neither_joins_nor_waits_for_rounds_of_the_voters() {
        let gate = Gate::default();
        let (confirmed, begins) = gate.join(Proof::Quorum);
        assert!(begins);
        let (round, _) = gate.begin().unwrap();

        let (leased, begins) = gate.join(Proof::Lease);
        assert!(begins);
        let (own, proof) = gate.begin().unwrap();
        assert_eq!(proof, Proof::Lease);

        gate.end(own, &Ok(LogIndex(3)));
        assert!(matches!(leased.await, Ok(Ok(LogIndex(3)))));
        gate.end(round, &Ok(LogIndex(4)));
        assert!(matches!(confirmed.await, Ok(Ok(LogIndex(4)))));
    }
}
