//! The driver around `RawNode`.
//!
//! ```text
//! handle(input) ── step raft-rs ── notice a change of role ── pump: for each `Ready`
//!                                                              send, append, read answers, apply
//! ```
//! Every call drains raft-rs completely, except for entries to apply, which are held back while apply is busy.

mod apply;
mod proposals;
mod reads;
mod ready;

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};
use raft::eraftpb::MessageType;
use raft::{RawNode, StateRole};

use crate::log::storage::LogView;
use crate::{
    Config, HardState, Input, LogReader, Membership, MonoTime, Output, PeerMessage, Recovered, RoleChange,
    StateMark, Status, drain, message,
};
use apply::Applying;
use proposals::Pending;
use reads::Reads;

/// The consensus core of one member. Owned by the raft thread.
pub struct Core<R: LogReader> {
    raw: RawNode<LogView<R>>,
    config: Config,
    now: MonoTime,
    /// Ticks since the start, as far as the vote hold-off counts them.
    ticks: usize,
    /// Whether this member may have voted or answered reads in an earlier life.
    has_past: bool,
    role: RoleChange,
    /// Whether the leader that this member is has committed in its term.
    has_committed: bool,
    pending: Pending,
    reads: Reads,
    applying: Applying,
    /// Tasks given to the log thread and not reported persisted.
    writing: VecDeque<Writing>,
    /// The last `Ready` taken.
    last_ready: u64,
    /// As of the last task that carried it.
    written_hard_state: HardState,
}

/// A task on the log thread.
struct Writing {
    ready_no: ReadyNo,
    since: MonoTime,
    /// The first entry it writes.
    first: Option<LogIndex>,
    /// Whether it makes a term or a vote durable.
    votes: bool,
}

impl<R: LogReader> Core<R> {
    /// A core over a log that was checked against the state.
    pub(crate) fn new(config: Config, reader: R, log: &Recovered, state: &StateMark) -> raft::Result<Self> {
        let view = LogView::new(
            reader,
            log.truncated,
            log.last,
            log.hard_state,
            state.members.to_raft(),
        );
        let applied = state.applied.index;
        let raw = RawNode::new(&config.to_raft(applied.0), view, &drain::logger())?;
        let has_past = log.hard_state.vote != RaftId(0) || log.last.index > applied || !state.installed;
        let term = Term(raw.raft.term);
        Ok(Self {
            raw,
            now: MonoTime::default(),
            ticks: 0,
            has_past,
            role: RoleChange {
                leader: None,
                term,
                is_leader: false,
                no_op: LogIndex(0),
            },
            has_committed: false,
            pending: Pending::default(),
            reads: Reads::new(&config),
            applying: Applying::new(applied),
            writing: VecDeque::new(),
            last_ready: 0,
            written_hard_state: log.hard_state,
            config,
        })
    }

    /// Takes in what happened and adds to `out` what must be done, in order.
    ///
    /// # Panics
    /// When an invariant of raft is broken, or the log cannot be read: going on would risk divergence.
    pub fn handle(&mut self, input: Input, now: MonoTime, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        match input {
            Input::Start => self.campaign_alone(),
            Input::Tick => self.tick(out),
            Input::Peer(message) => self.peer(&message),
            Input::Unreachable(member) => self.raw.report_unreachable(member.0),
            Input::Propose(batch) => self.propose(batch, out),
            Input::ChangeMembers { id, changes, context } => self.change_members(id, &changes, context, out),
            Input::ReadIndex(id) => self.read_index(id, out),
            Input::Persisted(number) => self.persisted(number),
            Input::Applied { index, conf: None } => self.applied(index, out),
            Input::Applied {
                index,
                conf: Some(echo),
            } => self.conf_reached(index, &echo, out),
            Input::Flushed(index) => self.flushed(index, out),
            Input::Transfer(to) => self.raw.transfer_leader(to.0),
        }
        self.notice_role(out);
        self.pump(out);
        self.evict();
    }

    /// Where consensus stands.
    pub fn status(&self) -> Status {
        let log = &self.raw.raft.raft_log;
        Status {
            term: Term(self.raw.raft.term),
            leader: self.leader(),
            is_leader: self.is_leader(),
            commit: LogIndex(log.committed),
            applied: LogIndex(log.applied),
            first: LogIndex(log.first_index()),
            last: LogIndex(log.last_index()),
            persisted: LogIndex(log.persisted),
        }
    }

    /// Whether this member leads and is the only voter: then no other can lead, and a read needs no round.
    /// It must still wait until [`RoleChange::no_op`] is applied.
    pub fn is_sole_voter(&self) -> bool {
        self.is_leader() && self.votes_alone()
    }

    /// The members as of the last change that was applied.
    pub fn members(&self) -> Membership {
        Membership::from_raft(self.raw.raft.prs().conf().to_conf_state())
    }

    fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn leader(&self) -> Option<RaftId> {
        (self.raw.raft.leader_id != 0).then_some(RaftId(self.raw.raft.leader_id))
    }

    /// Whether this member is the only voter, leading or not.
    fn votes_alone(&self) -> bool {
        self.raw.raft.prs().is_singleton() && self.raw.raft.promotable()
    }

    /// A sole voter has nobody to wait for. raft-rs refuses while a conf change is not applied yet, so this is
    /// tried again at each applied one.
    fn campaign_alone(&mut self) {
        if self.votes_alone() && !self.is_leader() && self.writing.is_empty() {
            // Stepping a local message that needs no quorum has no error to report.
            let _ = self.raw.campaign();
        }
    }

    fn tick(&mut self, out: &mut Vec<Output>) {
        self.ticks = self.ticks.saturating_add(1);
        // A sole voter that was made a follower by a stranger's term would win its election on the spot, with
        // entries still on their way to the disk; raft-rs asserts that a new leader has none.
        if self.is_leader() || !self.votes_alone() || self.writing.is_empty() {
            self.raw.tick();
        }
        self.retry_reads(out);
        self.leave_slow_disk();
    }

    fn peer(&mut self, peer: &PeerMessage) {
        let last = self.raw.raft.raft_log.last_index();
        let message = match message::decode(peer, self.config.id, last) {
            Ok(message) => message,
            Err(why) => {
                tracing::warn!(from = %peer.from, why, "dropped a raft message");
                return;
            }
        };
        let kind = message.get_msg_type();
        let drop = match kind {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => self.holds_votes(),
            // Its request left with the report that all before it is durable; if that report was overtaken,
            // raft-rs would find a new leader whose entries are not persisted, and panic.
            MessageType::MsgRequestVoteResponse => self.writing.iter().any(|task| task.first.is_some()),
            MessageType::MsgTimeoutNow => self.votes_alone(),
            MessageType::MsgSnapshot => {
                tracing::error!(from = %peer.from, "the leader's log no longer reaches back to this member's");
                true
            }
            _ => false,
        };
        if drop {
            tracing::debug!(from = %peer.from, ?kind, "dropped a raft message that must not be handled now");
        } else if let Err(error) = self.raw.step(message) {
            tracing::debug!(from = %peer.from, ?kind, %error, "raft refused a message");
        }
    }

    /// A member that has just restarted may have helped a leader to a lease it does not remember: no vote
    /// until that has run out (tikv #15035).
    fn holds_votes(&self) -> bool {
        self.has_past && self.ticks < self.config.election_ticks.start
    }

    /// raft-rs leaders apply only what they have persisted: behind a stuck disk writes would hang while
    /// heartbeats go on (R8).
    fn leave_slow_disk(&mut self) {
        let stuck = self
            .writing
            .front()
            .is_some_and(|task| self.now.0 - task.since.0 > self.config.max_sync_ms);
        if !stuck || !self.is_leader() || self.raw.raft.lead_transferee.is_some() {
            return;
        }
        let me = self.config.id.0;
        let tracker = self.raw.raft.prs();
        let others = tracker.iter().filter(|&(id, progress)| {
            *id != me && progress.recent_active && tracker.conf().voters().contains(*id)
        });
        if let Some((&best, _)) = others.max_by_key(|(id, progress)| (progress.matched, **id)) {
            tracing::warn!(to = best, "the disk is stuck: handing over the leadership");
            self.raw.transfer_leader(best);
        }
    }

    fn notice_role(&mut self, out: &mut Vec<Output>) {
        let (term, leader, is_leader) = (Term(self.raw.raft.term), self.leader(), self.is_leader());
        let was = self.role;
        if (was.term, was.leader, was.is_leader) == (term, leader, is_leader) {
            return;
        }
        let reign_over = was.is_leader && (!is_leader || was.term != term);
        let reign_new = is_leader && (!was.is_leader || was.term != term);
        if reign_over {
            self.pending.lose(was.term, out);
        }
        if reign_new {
            self.has_committed = false;
            // Nothing can have been appended after it yet: a change of role is noticed in the call it happens.
            self.role.no_op = LogIndex(self.raw.raft.raft_log.last_index());
        } else if !is_leader {
            self.role.no_op = LogIndex(0);
        }
        self.role = RoleChange {
            leader,
            term,
            is_leader,
            no_op: self.role.no_op,
        };
        out.push(Output::Role(self.role));
        self.ask_reads_again();
    }

    fn flushed(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        let log = &self.raw.raft.raft_log;
        let mut to = index.0.min(log.applied);
        if !self.votes_alone() || !self.raw.raft.prs().conf().learners().is_empty() {
            to = to.saturating_sub(self.config.keep_entries);
        }
        let Ok(position) = self.raw.store().position(LogIndex(to)) else {
            return;
        };
        if position.index > self.raw.store().truncated().index {
            self.raw.mut_store().compact(position);
            out.push(Output::Compact(position));
        }
    }

    /// Entries may leave the cache once they are durable and no task that is under way rewrites them.
    fn evict(&mut self) {
        let log = &self.raw.raft.raft_log;
        let rewritten = self.writing.iter().filter_map(|task| task.first).min();
        let written = rewritten.map_or(u64::MAX, |first| first.0 - 1);
        let mut durable = log.persisted.min(written);
        let alone = self.votes_alone();
        if alone {
            durable = durable.min(log.applied);
        }
        let keep_bytes = if alone { 0 } else { self.config.cache_bytes };
        self.raw.mut_store().evict(LogIndex(durable), keep_bytes);
    }
}
