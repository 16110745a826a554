//! Proposals that wait for others, so that they go to the members together.
//!
//! Each batch costs every member a message, a sync of its log and several wake-ups, whatever is in it. Where many writers
//! keep the servers busy, batches that leave as soon as something is there are small ones, many under way at a time.
//! Fewer and larger ones cost less and so are sooner done. With few writers there is nothing to gain: they never wait.

use std::time::{Duration, Instant};

use lictor_proto::Term;
use lictor_raft::Proposal;

/// From so many proposals under way on, the next wait.
const CROWD: usize = 16;
/// How long, unless all before have been committed. Where that takes longer, by the distance of the members, more batches
/// are under way at a time.
const WAIT: Duration = Duration::from_millis(1);

/// A proposal, and the one term in which it is to be made if not in any.
pub(crate) type Bound = (Option<Term>, Proposal);

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Convoy {
    waiting: Vec<Bound>,
    leaves_at: Option<Instant>,
}

/// What a leader has proposed before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    /// How many proposals have no outcome yet.
    pub(crate) under_way: usize,
    /// Whether all of the log is committed.
    pub(crate) is_committed: bool,
}

impl Convoy {
    /// Joins those that wait.
    pub(crate) fn join(&mut self, proposal: Bound, now: Instant) {
        self.leaves_at.get_or_insert(now + WAIT);
        self.waiting.push(proposal);
    }

    /// What goes now: all or nothing.
    pub(crate) fn leave(&mut self, ahead: Ahead, now: Instant) -> Vec<Bound> {
        let is_crowd = ahead.under_way >= CROWD && !ahead.is_committed;
        if is_crowd && self.leaves_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.disband()
    }

    /// Takes out all that wait.
    pub(crate) fn disband(&mut self) -> Vec<Bound> {
        self.leaves_at = None;
        std::mem::take(&mut self.waiting)
    }

    /// When it goes at the latest, if somebody waits.
    pub(crate) fn leaves_at(&self) -> Option<Instant> {
        self.leaves_at
    }
}

#[cfg(test)]
mod tests {
    use lictor_raft::ProposalId;

    use super::*;

    fn proposal(id: u64) -> Bound {
        let proposal = Proposal {
            id: ProposalId(id),
            data: vec![1],
        };
        (None, proposal)
    }

    const CROWDED: Ahead = Ahead {
        under_way: CROWD,
        is_committed: false,
    };

    #[test]
    fn few_never_wait() {
        let (mut convoy, now) = (Convoy::default(), Instant::now());
        for ahead in [
            Ahead {
                under_way: CROWD - 1,
                is_committed: false,
            },
            Ahead {
                under_way: CROWD,
                is_committed: true,
            },
        ] {
            convoy.join(proposal(1), now);

            assert_eq!(convoy.leave(ahead, now), [proposal(1)]);
            assert_eq!(convoy.leaves_at(), None);
        }
    }

    #[test]
    fn a_crowd_waits_for_the_commit_of_those_before_and_goes_together_in_order() {
        let (mut convoy, now) = (Convoy::default(), Instant::now());
        convoy.join(proposal(1), now);
        assert_eq!(convoy.leave(CROWDED, now), []);
        convoy.join(proposal(2), now);
        convoy.join(proposal(3), now);
        assert_eq!(convoy.leave(CROWDED, now), []);

        let committed = Ahead {
            is_committed: true,
            ..CROWDED
        };
        assert_eq!(
            convoy.leave(committed, now),
            [proposal(1), proposal(2), proposal(3)]
        );
        assert_eq!(convoy.leave(committed, now), []);
    }

    #[test]
    fn the_first_to_wait_says_how_long_all_wait() {
        let (mut convoy, now) = (Convoy::default(), Instant::now());
        convoy.join(proposal(1), now);
        convoy.join(proposal(2), now + WAIT / 2);

        assert_eq!(convoy.leaves_at(), Some(now + WAIT));
        assert_eq!(convoy.leave(CROWDED, now + WAIT / 2), []);
        assert_eq!(convoy.leave(CROWDED, now + WAIT).len(), 2);
        assert_eq!(convoy.leaves_at(), None);
    }
}
