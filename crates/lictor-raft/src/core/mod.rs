//! The driver around `RawNode`.
//!
//! ```text
//! handle(input) ── step raft-rs ── notice a change of role ── pump: for each `Ready`
//!                                                              send, append, read answers, apply
//! ```
//! Every call drains raft-rs completely, except for entries to apply, which are held back while apply is busy.
//!
//! # What raft-rs 0.7 does not guard against
//!
//! Each with its guard, and the test that shows it.
//! * It forwards a follower's proposal silently: proposals are refused there.
//!   `a_follower_rejects_proposals_and_names_the_leader`
//! * It leads on behind a stuck disk, applying nothing: [`Core::leave_slow_disk`].
//!   `r8_a_leader_with_a_stuck_disk_hands_over`
//! * It serves stale reads with its own lease reads: rounds, and a lease of ours.
//!   [`lease`]
//! * It lets a member vote that forgot a lease in a restart: votes are withheld.
//!   `a_restarted_voter_cannot_break_a_lease`
//! * It sends `MsgTimeoutNow` late: the outgoing message ends the lease.
//!   `a_lease_ends_before_timeout_now_is_sent`
//! * It drops a round before the first commit of the term: asked again.
//!   `a_followers_read_before_the_first_commit_of_a_new_leader_is_answered_after_it`
//! * It takes equal contexts for one round: contexts name member and life.
//!   `r2_equal_read_ids_of_two_followers_and_two_lives_do_not_collide`
//! * It may go back below what a follower has (#555): none needed: it recovers.
//!   `a_stale_rejection_while_probing_does_not_stop_replication`
//! * It loads all unapplied entries to campaign (#530): no campaign while they are many.
//!   `a_follower_far_behind_in_applying_does_not_campaign_but_votes`
//! * It may never leave a joint step after a change of leader: [`Core::leave_joint`].
//!   `a_new_leader_leaves_a_joint_step_it_did_not_enter`
//! * It panics if a leader loses its vote: it resigns.
//!   `a_leader_that_is_removed_resigns_and_the_others_go_on`
//! * It draws election timeouts from no seed: [`Config::election_ticks_fixed`].
//!   Every test of this module.
//! * It sends one entry a message by default: [`Config::max_append_bytes`].
//!   `a_batch_of_proposals_is_one_append_message_per_follower_and_one_task`
//! * It panics over messages that no sound member sends: they are refused.
//!   `what_raft_rs_would_panic_over_is_refused`
//! * It forgets its log for a snapshot that may not come: it gets it when the rows are there.
//!   [`snapshots`]
//! * It waits for ever for a snapshot nobody heard of: told again.
//!   `word_of_a_snapshot_that_is_lost_is_sent_again`

mod apply;
mod commits;
mod compact;
mod lease;
mod peers;
mod proposals;
mod reads;
mod ready;
mod snapshots;

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};
use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_ID, RawNode, StateRole};

use crate::log::storage::LogView;
use crate::{
    Config, HardState, Input, LogPosition, LogReader, Membership, MonoTime, Output, PeerMessage, Recovered,
    RoleChange, StateMark, Status, drain, message,
};
use apply::Applying;
use commits::Commits;
use compact::LogBytes;
use lease::Lease;
use peers::Contacts;
use proposals::Pending;
use reads::Reads;
use snapshots::Snapshots;

/// A member that may not campaign takes its leader for lost after so many times the longest election timeout.
const LOST_AFTER: usize = 2;

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
    /// Since when this member has led, if it does.
    leads_since: MonoTime,
    /// Whether the leader that this member is has committed in its term.
    has_committed: bool,
    lease: Lease,
    contacts: Contacts,
    pending: Pending,
    reads: Reads,
    commits: Commits,
    applying: Applying,
    snapshots: Snapshots,
    log_bytes: LogBytes,
    /// Whether there is no room for entries of a leader.
    no_room: bool,
    /// The last restore that is durable here.
    restored: LogIndex,
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
        let has_past = log.hard_state.vote != RaftId(0)
            || log.hard_state.term > LogPosition::FOUNDING.term
            || log.last > LogPosition::FOUNDING;
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
            leads_since: MonoTime::default(),
            has_committed: false,
            lease: Lease::new(&config),
            contacts: Contacts::default(),
            pending: Pending::default(),
            reads: Reads::new(&config),
            commits: Commits::default(),
            applying: Applying::new(applied),
            snapshots: Snapshots::default(),
            log_bytes: LogBytes::default(),
            no_room: false,
            restored: LogIndex(0),
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
            Input::Peer(message) => self.peer(&message, out),
            Input::Unreachable(member) => self.raw.report_unreachable(member.0),
            Input::Propose(batch) => self.propose(batch, out),
            Input::ChangeMembers { id, changes, context } => self.change_members(id, &changes, context, out),
            Input::ReadIndex { id, leased } => self.read_index(id, leased, out),
            Input::Committed(entry) => self.hear_of_commit(entry),
            Input::Lull => self.tell_commit(),
            Input::Persisted(number) => self.persisted(number),
            Input::Applied { index, conf: None } => self.applied(index, out),
            Input::Applied {
                index,
                conf: Some(echo),
            } => self.conf_reached(index, &echo, out),
            Input::Flushed(index) => self.flushed(index, out),
            Input::Restored(index) => self.restored(index, out),
            Input::Transfer(to) => self.raw.transfer_leader(to.0),
            Input::SnapshotReady {
                to,
                position,
                members,
                descriptor,
            } => self.snapshot_ready(to, position, &members, descriptor),
            Input::SnapshotSent { to, ok } => self.snapshot_sent(to, ok),
            Input::Installed { position, ok } => self.installed(position, ok, out),
        }
        self.notice_role(out);
        self.pump(out);
        self.want_snapshots(out);
        self.publish_lease(out);
        self.evict();
    }

    /// Where consensus stands.
    pub fn status(&self) -> Status {
        let log = &self.raw.raft.raft_log;
        Status {
            term: Term(self.raw.raft.term),
            leader: self.leader(),
            is_leader: self.is_leader(),
            is_candidate: matches!(
                self.raw.raft.state,
                StateRole::Candidate | StateRole::PreCandidate
            ),
            commit: LogIndex(log.committed),
            applied: LogIndex(log.applied),
            first: LogIndex(log.first_index()),
            last: LogIndex(log.last_index()),
            persisted: LogIndex(log.persisted),
            last_contact: self.contacts.last(self.raw.raft.leader_id),
        }
    }

    /// Whether this member leads and is the only voter: then no other can lead, and a read needs no round.
    /// It must still wait until [`RoleChange::no_op`] is applied.
    pub fn is_sole_voter(&self) -> bool {
        self.is_leader() && self.votes_alone()
    }

    /// Whether this member leads and is the only one: it has nobody to hear from, so it need not tick.
    pub fn is_alone(&self) -> bool {
        self.is_sole_voter() && self.raw.raft.prs().iter().nth(1).is_none()
    }

    /// Whether this member leads and is handing over: proposals are refused until it has, or has given it up.
    pub fn is_handing_over(&self) -> bool {
        self.is_leader() && self.raw.raft.lead_transferee.is_some()
    }

    /// While set, entries of a leader are let go as if they were lost: the disk has no room for them. It sends them again.
    pub fn set_no_room(&mut self, no_room: bool) {
        self.no_room = no_room;
    }

    /// How many proposals made here wait for their outcome.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The members as of the last change that was applied.
    pub fn members(&self) -> Membership {
        Membership::from_raft(self.raw.raft.prs().conf().to_conf_state())
    }

    fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn leader(&self) -> Option<RaftId> {
        let raft = &self.raw.raft;
        // Whoever may not campaign never gives its leader up by itself: a learner, also one that was removed before it
        // heard that it had become a voter.
        let is_lost = !self.is_leader()
            && !raft.promotable()
            && raft.election_elapsed > LOST_AFTER * self.config.election_ticks.end;
        (raft.leader_id != 0 && !is_lost).then_some(RaftId(raft.leader_id))
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
        if self.may_tick() {
            self.raw.tick();
        }
        self.beat_when_due();
        self.retry_reads(out);
        self.tell_again(out);
        self.leave_joint();
        self.leave_slow_disk();
        // What is committed cannot be applied here before it is written: behind a stuck disk waiting is of no use.
        let patience = if self.is_disk_stuck() {
            0
        } else {
            self.config.orphan_ms
        };
        let before = MonoTime(self.now.0.saturating_sub(patience));
        self.pending.give_up(before, out);
    }

    fn may_tick(&mut self) -> bool {
        if self.is_leader() {
            return true;
        }
        // A sole voter that was made a follower by a stranger's term would win its election on the spot, with
        // entries still on their way to the disk; raft-rs asserts that a new leader has none.
        if self.votes_alone() && !self.writing.is_empty() {
            return false;
        }
        // Not elected while it cannot campaign, but old enough to vote for others.
        let raft = &mut self.raw.raft;
        let would_campaign = raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        let min = self.config.election_ticks.start;
        if would_campaign && !self.may_campaign() {
            let raft = &mut self.raw.raft;
            raft.election_elapsed = raft.election_elapsed.max(min);
            return false;
        }
        true
    }

    /// raft-rs looks through all entries that are committed and not applied before it campaigns, in memory
    /// (#530), and panics if a snapshot has taken their place.
    fn may_campaign(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        !self.snapshots.is_following() && log.committed - log.applied <= self.config.max_unapplied_entries
    }

    fn peer(&mut self, peer: &PeerMessage, out: &mut Vec<Output>) {
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
            MessageType::MsgTimeoutNow => self.votes_alone() || !self.may_campaign(),
            MessageType::MsgAppend => {
                self.snapshots.is_installing() || self.no_room && !message.entries.is_empty()
            }
            _ => false,
        } || self.is_late_answer(&message);
        if drop {
            tracing::debug!(from = %peer.from, ?kind, "dropped a raft message that must not be handled now");
            return;
        }
        let (from, term) = (message.from, message.term);
        match kind {
            MessageType::MsgSnapshot => self.told_of_snapshot(message, out),
            MessageType::MsgReadIndex if self.may_answer_alone(&message) => self.answer_alone(message, out),
            MessageType::MsgAppend => {
                self.step(message);
                self.use_heard_commit();
            }
            _ => self.step(message),
        }
        self.notice_role(out);
        if term == self.raw.raft.term {
            self.note_contact(from);
        }
    }

    fn step(&mut self, message: Message) {
        let (from, kind) = (message.from, message.get_msg_type());
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(from, ?kind, %error, "raft refused a message");
        }
    }

    /// A member that has just restarted may have helped a leader to a lease it does not remember: no vote
    /// until that has run out (tikv #15035).
    fn holds_votes(&self) -> bool {
        self.has_past && self.ticks < self.config.election_ticks.start
    }

    /// Whether this is the answer to a question that a follower does not have any more, in a later term than its own.
    /// raft-rs would forget the leader for it, and with it the promise to vote for nobody else while that has a lease.
    /// A follower needs no answers: of a later term it hears when its leader has been silent for long enough.
    fn is_late_answer(&self, message: &Message) -> bool {
        let raft = &self.raw.raft;
        let is_answer = matches!(
            message.get_msg_type(),
            MessageType::MsgRequestPreVoteResponse
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgAppendResponse
                | MessageType::MsgHeartbeatResponse
        );
        is_answer
            && message.term > raft.term
            && raft.state == StateRole::Follower
            && raft.leader_id != INVALID_ID
            && raft.election_elapsed < self.config.election_ticks.start
    }

    fn notice_role(&mut self, out: &mut Vec<Output>) {
        let (term, leader, is_leader) = (Term(self.raw.raft.term), self.leader(), self.is_leader());
        let was = self.role;
        if (was.term, was.leader, was.is_leader) == (term, leader, is_leader) {
            return;
        }
        let reign_over = was.is_leader && (!is_leader || was.term != term);
        let reign_new = is_leader && (!was.is_leader || was.term != term);
        if was.term != term || was.is_leader != is_leader {
            self.contacts.forget();
            self.commits.forget_told();
            self.lease.end();
        }
        if reign_over {
            self.publish_lease(out);
            self.pending.orphan(self.now);
            self.snapshots.forget_outgoing();
            self.raw.mut_store().withdraw_snapshots();
        }
        if reign_new {
            self.has_committed = false;
            self.leads_since = self.now;
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
