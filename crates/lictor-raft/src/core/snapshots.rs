//! Snapshots: a leader's word that the state itself must be fetched, and what becomes of it.
//!
//! ```text
//! leader                                         follower
//! raft-rs wants one: WantSnapshot                MsgSnapshot: Install, held back from raft-rs
//! SnapshotReady: raft-rs sends MsgSnapshot  ──>    rows are fetched, checked, put in place of the state
//!   (again each `snapshot_retry_ms`)             Installed: raft-rs takes MsgSnapshot
//! SnapshotSent: raft-rs probes behind it             ResetLog, Append ──> log thread
//!                                                Persisted: answers the leader, goes on
//! ```
//! raft-rs expects a snapshot that it has accepted to be there: it forgets its log at once. So a follower steps
//! the message only when the state *is* the snapshot. A fetch that fails then needs no way back, a crash before
//! leaves the old state and the old log, and one between state and log is mended when they are opened (R6).
//!
//! # Why what happens meanwhile does no harm
//! The member's log does not hold the snapshot's last entry, else raft-rs gets the message at once and ignores
//! it. Nor does the log grow, since appends are dropped. That entry is committed, so without it the member wins
//! no election, and its commit index stays below. Whatever the term is at the end, then, the state is ahead of a
//! log that only has to follow: the snapshot is restored without regard to the message's term.
//! `a_snapshot_is_installed_although_the_leader_changed_meanwhile`

use std::collections::BTreeMap;

use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};
use raft::eraftpb::{Message, MessageType, Snapshot};
use raft::{ProgressState, SnapshotStatus};

use super::Core;
use crate::{LogPosition, LogReader, Membership, MonoTime, Output, PeerMessage};

/// Snapshots to and from others.
#[derive(Default)]
pub(super) struct Snapshots {
    outgoing: BTreeMap<u64, Outgoing>,
    incoming: Option<Incoming>,
}

/// What a leader knows of a follower's snapshot.
enum Outgoing {
    /// [`Output::WantSnapshot`] is out.
    Asked,
    /// There is one; raft-rs has not sent it yet.
    Ready(LogIndex),
    /// The follower is told.
    Told { message: Box<Message>, at: MonoTime },
}

/// A snapshot on its way into this member.
enum Incoming {
    /// [`Output::Install`] is out.
    Installing(Box<Message>),
    /// The state is it; the log thread is told to follow.
    Following { position: LogPosition, task: ReadyNo },
}

impl Snapshots {
    /// While a snapshot is on its way in, nothing is applied or appended.
    pub(super) fn is_installing(&self) -> bool {
        self.incoming.is_some()
    }

    /// While raft-rs has the snapshot and does not know it applied yet, its log begins behind what it believes
    /// applied: it would panic over an election.
    pub(super) fn is_following(&self) -> bool {
        matches!(self.incoming, Some(Incoming::Following { .. }))
    }

    /// The first entry that followers will need behind a snapshot under way.
    pub(super) fn first_under_way(&self) -> Option<LogIndex> {
        let under_way = self.outgoing.values().filter_map(|outgoing| match outgoing {
            Outgoing::Asked => None,
            Outgoing::Ready(index) => Some(*index),
            Outgoing::Told { message, .. } => Some(position_of(message.get_snapshot()).index),
        });
        under_way.min()
    }

    /// The leadership is over.
    pub(super) fn forget_outgoing(&mut self) {
        self.outgoing.clear();
    }
}

impl<R: LogReader> Core<R> {
    /// Asks the runtime for what raft-rs asked for.
    pub(super) fn want_snapshots(&mut self, out: &mut Vec<Output>) {
        let wanted = self.raw.store().take_wanted();
        let outgoing = &mut self.snapshots.outgoing;
        if !outgoing.is_empty() {
            let tracker = self.raw.raft.prs();
            outgoing.retain(|&to, outgoing| {
                let progress = tracker.get(to);
                let told = matches!(outgoing, Outgoing::Told { .. });
                progress.is_some_and(|progress| !told || progress.state == ProgressState::Snapshot)
            });
        }
        for to in wanted {
            // One that was ready and is asked for all the same was too old.
            if !matches!(outgoing.insert(to, Outgoing::Asked), Some(Outgoing::Asked)) {
                out.push(Output::WantSnapshot { to: RaftId(to) });
            }
        }
    }

    /// The runtime has pinned a view.
    pub(super) fn snapshot_ready(
        &mut self,
        to: RaftId,
        position: LogPosition,
        members: &Membership,
        descriptor: Vec<u8>,
    ) {
        let outgoing = &mut self.snapshots.outgoing;
        if !matches!(outgoing.get(&to.0), Some(Outgoing::Asked)) {
            return;
        }
        // The log may have been cut meanwhile, or the view be older than the member: raft-rs asks again.
        let begin = self.raw.store().truncated().index;
        if position.index < begin || !members.names(to) {
            tracing::warn!(%to, %position, "a snapshot came too late");
            outgoing.remove(&to.0);
            return;
        }
        outgoing.insert(to.0, Outgoing::Ready(position.index));
        let mut snapshot = Snapshot {
            data: descriptor,
            ..Snapshot::default()
        };
        let metadata = snapshot.mut_metadata();
        metadata.set_conf_state(members.to_raft());
        (metadata.index, metadata.term) = (position.index.0, position.term.0);
        self.raw.mut_store().offer_snapshot(to.0, snapshot);
        self.raw.raft.send_append(to.0);
    }

    /// The runtime is done with a snapshot.
    pub(super) fn snapshot_sent(&mut self, to: RaftId, ok: bool) {
        self.raw.mut_store().withdraw_snapshot(to.0);
        if let Some(Outgoing::Told { .. }) = self.snapshots.outgoing.remove(&to.0) {
            let status = if ok {
                SnapshotStatus::Finish
            } else {
                SnapshotStatus::Failure
            };
            self.raw.report_snapshot(to.0, status);
        }
    }

    /// A `MsgSnapshot` goes out.
    pub(super) fn note_told(&mut self, message: &Message) {
        let told = Outgoing::Told {
            message: Box::new(message.clone()),
            at: self.now,
        };
        self.snapshots.outgoing.insert(message.to, told);
    }

    /// raft-rs sends it once, and then waits for the report of a transfer that may never have begun.
    pub(super) fn tell_again(&mut self, out: &mut Vec<Output>) {
        let now = self.now;
        for outgoing in self.snapshots.outgoing.values_mut() {
            if let Outgoing::Told { message, at } = outgoing
                && now.0 - at.0 >= self.config.snapshot_retry_ms
            {
                *at = now;
                out.push(Output::Send(PeerMessage::from_raft(message)));
            }
        }
    }

    /// A leader tells of a snapshot.
    pub(super) fn told_of_snapshot(&mut self, message: Message, out: &mut Vec<Output>) {
        let raft = &self.raw.raft;
        let position = position_of(message.get_snapshot());
        let LogPosition { index, term } = position;
        let log = &raft.raft_log;
        let useless = message.term < raft.term || index.0 <= log.committed || log.match_term(index.0, term.0);
        let members = Membership::from_raft(message.get_snapshot().get_metadata().get_conf_state().clone());
        if useless {
            self.step(message);
            return;
        }
        // The sign of life in it does not wait.
        let mut heartbeat = Message {
            from: message.from,
            to: message.to,
            term: message.term,
            ..Message::default()
        };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        self.step(heartbeat);
        // Apply that stands at a conf change gets its members first; the leader tells again.
        let busy = self.snapshots.is_installing() || self.applying.is_at_barrier();
        if busy || self.is_leader() || !members.names(self.config.id) {
            return;
        }
        out.push(Output::Install {
            from: RaftId(message.from),
            position,
            members,
            descriptor: message.get_snapshot().data.clone(),
        });
        self.snapshots.incoming = Some(Incoming::Installing(Box::new(message)));
    }

    /// The state is the snapshot, or could not become it.
    pub(super) fn installed(&mut self, position: LogPosition, ok: bool, out: &mut Vec<Output>) {
        let due = |incoming: &mut Incoming| match incoming {
            Incoming::Installing(message) => position_of(message.get_snapshot()) == position,
            Incoming::Following { .. } => false,
        };
        let Some(Incoming::Installing(mut message)) = self.snapshots.incoming.take_if(due) else {
            tracing::warn!(%position, "an installation was reported that is not under way");
            return;
        };
        if !ok {
            // The leader tells again, or asks what this member has.
            return;
        }
        if message.term == self.raw.raft.term {
            self.step(*message);
        } else {
            if self.raw.raft.state != raft::StateRole::Follower {
                let term = self.raw.raft.term;
                self.raw.raft.become_follower(term, raft::INVALID_ID);
            }
            self.raw.raft.restore(message.take_snapshot());
        }
        assert!(
            self.raw.snap().is_some(),
            "raft refused a snapshot at {position}, which the state already is"
        );
        self.applying.restart(position.index);
        self.pending.skip(position.index, out);
        // The task's number is not known before the Ready is taken.
        let task = ReadyNo(u64::MAX);
        self.snapshots.incoming = Some(Incoming::Following { position, task });
    }

    /// raft-rs gives the snapshot out, in the Ready of this number.
    pub(super) fn reset_log(&mut self, snapshot: &Snapshot, number: u64, out: &mut Vec<Output>) {
        let position = position_of(snapshot);
        self.raw.mut_store().reset(position);
        self.log_bytes = super::compact::LogBytes::default();
        out.push(Output::ResetLog(position));
        let task = ReadyNo(number);
        self.snapshots.incoming = Some(Incoming::Following { position, task });
    }

    /// The log is durable up to and with the task of this number.
    pub(super) fn log_follows(&mut self, upto: u64) {
        let done = |incoming: &mut Incoming| match incoming {
            Incoming::Following { task, .. } => task.0 <= upto,
            Incoming::Installing(_) => false,
        };
        if let Some(Incoming::Following { position, .. }) = self.snapshots.incoming.take_if(done) {
            self.raw.advance_apply_to(position.index.0);
        }
    }
}

fn position_of(snapshot: &Snapshot) -> LogPosition {
    let metadata = snapshot.get_metadata();
    LogPosition {
        index: LogIndex(metadata.index),
        term: Term(metadata.term),
    }
}

#[cfg(test)]
mod tests;
