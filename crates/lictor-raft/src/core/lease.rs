//! The leader's lease: a time until which nobody else can lead, so that reads need no round.
//!
//! ```text
//! tick ── every heartbeat interval: ReadIndex round n, sent at time t ──> voters
//!                                       answered by a quorum ──> lease until t + lease_ms
//! ```
//! A round is raft-rs' own ReadIndex with a context of this member's: its heartbeats are the only ones sent, so
//! a lease costs no message, and raft-rs matches context, term and quorum (a joint one too).
//!
//! # Why it is correct
//! 1. Whoever answers round n has handled a heartbeat of this term at or after t. It then withholds its vote, and
//!    does not campaign, for `election_ticks.start` ticks (`check_quorum`), at least that less one tick after t
//!    on its clock. [`crate::Config::lease_ms`] is shorter by a tenth: clocks may differ by that.
//!    `drifting_clocks_within_bounds_never_break_a_lease`; and late answers of a later term, for which raft-rs would
//!    forget the leader it has promised that, are not handed to it: `a_late_refusal_of_a_higher_term_frees_no_voter`
//! 2. A voter that restarts forgets the heartbeat, but holds its vote as long (tikv #15035).
//!    `a_restarted_voter_cannot_break_a_lease`
//! 3. `MsgTimeoutNow` makes a voter campaign at once, and all vote: from the moment one is *sent* there is no
//!    lease for the rest of the term (tikv #1593, #4680; raft-rs sends it late, on an append response, so the
//!    outgoing message is watched). `a_lease_ends_before_timeout_now_is_sent`
//! 4. Consecutive configurations have overlapping quorums, and a leader is at most one change behind. The lease
//!    ends at each applied change all the same, and rounds sent before it do not count.
//!    `a_lease_ends_at_each_applied_conf_change`
//! 5. Commit is published before any message that carries it (R1, see [`crate::Output::Send`]), and a new
//!    leader has a lease only when its no-op is applied: all acknowledged before is then in its state.
//!    `a_new_leader_has_no_lease_before_its_no_op_is_applied`
//! 6. The lease is a time, not a flag: a leader that was paused finds it over.
//!    `a_paused_leader_wakes_up_without_a_lease`

use std::collections::VecDeque;

use lictor_proto::Term;

use super::Core;
use crate::{Config, LogReader, MonoTime, Output};

/// Rounds under way; more are not told apart from the oldest, which then renews nothing.
const MAX_ROUNDS: usize = 64;

/// The lease of one member.
pub(super) struct Lease {
    length_ms: u64,
    /// Begins each round's context: member and incarnation.
    prefix: Vec<u8>,
    /// Rounds sent and not answered: number and when.
    rounds: VecDeque<(u64, MonoTime)>,
    last_round: u64,
    /// Ticks since the last heartbeat.
    ticks: usize,
    /// Until when a quorum withholds its votes from others.
    until: Option<MonoTime>,
    /// A term in which `MsgTimeoutNow` was sent.
    handed_over: Option<Term>,
    published: Option<MonoTime>,
}

impl Lease {
    pub(super) fn new(config: &Config) -> Self {
        // The last byte tells a round of the lease from a caller's.
        let words = [config.id.0, config.incarnation];
        let mut prefix: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        prefix.push(b'l');
        Self {
            length_ms: config.lease_ms(),
            prefix,
            rounds: VecDeque::new(),
            last_round: 0,
            ticks: 0,
            until: None,
            handed_over: None,
            published: None,
        }
    }

    /// Ends the lease; rounds that are under way do not renew it.
    pub(super) fn end(&mut self) {
        self.until = None;
        self.rounds.clear();
    }

    fn begin_round(&mut self, now: MonoTime) -> Vec<u8> {
        self.last_round += 1;
        if self.rounds.len() == MAX_ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back((self.last_round, now));
        let mut context = self.prefix.clone();
        context.extend_from_slice(&self.last_round.to_be_bytes());
        context
    }

    /// A quorum has answered a round of this context.
    fn renew(&mut self, context: &[u8]) {
        let Some(number) = context.strip_prefix(self.prefix.as_slice()) else {
            return;
        };
        let Ok(number) = number.try_into().map(u64::from_be_bytes) else {
            return;
        };
        while let Some(&(round, sent)) = self.rounds.front() {
            if round > number {
                break;
            }
            self.rounds.pop_front();
            if round == number {
                self.until = Some(sent.plus_ms(self.length_ms));
            }
        }
    }
}

impl<R: LogReader> Core<R> {
    /// One more tick of a leader.
    pub(super) fn beat_when_due(&mut self) {
        self.lease.ticks += 1;
        if self.is_leader() && self.lease.ticks >= self.config.heartbeat_ticks {
            self.beat();
        }
    }

    /// Sends heartbeats, as a round of the lease where raft-rs would answer one.
    pub(super) fn beat(&mut self) {
        self.lease.ticks = 0;
        if self.raw.raft.prs().is_singleton() || !self.has_committed {
            // raft-rs sends no heartbeats for a sole voter's round, but learners want them.
            self.raw.ping();
        } else {
            let context = self.lease.begin_round(self.now);
            self.raw.read_index(context);
        }
    }

    /// Whether nobody else can lead now.
    pub(super) fn has_lease(&self) -> bool {
        self.is_leader() && self.lease.published.is_some_and(|until| self.now < until)
    }

    pub(super) fn renew_lease(&mut self, context: &[u8]) {
        self.lease.renew(context);
    }

    /// `MsgTimeoutNow` is about to be sent.
    pub(super) fn hand_over_lease(&mut self, out: &mut Vec<Output>) {
        self.lease.end();
        self.lease.handed_over = Some(Term(self.raw.raft.term));
        self.publish_lease(out);
    }

    /// Tells of the lease if it has changed.
    pub(super) fn publish_lease(&mut self, out: &mut Vec<Output>) {
        let raft = &self.raw.raft;
        let may_have = self.is_leader()
            && self.role.is_leader
            && self.lease.handed_over != Some(Term(raft.term))
            && raft.raft_log.applied >= self.role.no_op.0;
        let until = if !may_have {
            None
        } else if self.votes_alone() {
            Some(MonoTime(u64::MAX))
        } else {
            self.lease.until
        };
        if until != self.lease.published {
            self.lease.published = until;
            out.push(Output::Lease { until });
        }
    }
}

#[cfg(test)]
mod tests;
