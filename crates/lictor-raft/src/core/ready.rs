//! From raft-rs' `Ready` to outputs, and back with what was persisted.

use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};
use raft::Ready;
use raft::eraftpb::{Message, MessageType};

use super::{Core, Writing};
use crate::log::storage::from_raft;
use crate::{HardState, LogEntry, LogReader, LogTask, Output, PeerMessage};

impl<R: LogReader> Core<R> {
    /// Drains raft-rs. Ends because each round takes what it found, and nothing but [`Self::handle`] puts
    /// anything in; entries that are held back from apply leave an empty `Ready`.
    pub(super) fn pump(&mut self, out: &mut Vec<Output>) {
        while self.raw.has_ready() {
            let hold = self.applying.is_held(&self.config) || self.snapshots.is_installing();
            self.raw.mut_store().hold_apply.set(hold);
            let ready = self.raw.ready();
            self.raw.mut_store().hold_apply.set(false);
            if !self.take(ready, out) {
                break;
            }
        }
    }

    /// Answers whether there was anything in it.
    fn take(&mut self, mut ready: Ready, out: &mut Vec<Output>) -> bool {
        self.last_ready = ready.number();
        let mut any = ready.ss().is_some() || ready.hs().is_some() || !ready.snapshot().is_empty();
        for message in ready.take_messages() {
            any = true;
            match message.get_msg_type() {
                MessageType::MsgTimeoutNow => self.hand_over_lease(out),
                MessageType::MsgSnapshot => self.note_told(&message),
                MessageType::MsgAppend | MessageType::MsgHeartbeat => {
                    self.commits.note_told(message.to, LogIndex(message.commit));
                }
                _ => {}
            }
            out.push(Output::Send(PeerMessage::from_raft(&message)));
        }
        if !ready.snapshot().is_empty() {
            self.reset_log(ready.snapshot(), ready.number(), out);
        }
        let entries: Vec<LogEntry> = ready.take_entries().into_iter().map(from_raft).collect();
        let messages = self.split_messages(ready.take_persisted_messages(), out, &mut any);
        let reads = ready.take_read_states();
        let committed = ready.take_committed_entries();
        any |= !entries.is_empty() || !messages.is_empty() || !reads.is_empty() || !committed.is_empty();

        // raft-rs reads them from the log the moment the Ready is given back.
        self.raw.mut_store().append(&entries);
        self.log_bytes.append(&entries);
        let must_sync = ready.must_sync();
        self.raw.advance_append_async(ready);
        self.write(entries, must_sync, messages, out);
        for read in reads {
            self.renew_lease(&read.request_ctx);
            self.reads.answer(&read.request_ctx, LogIndex(read.index), out);
        }
        self.give(committed, out);
        if self.is_leader() && !self.has_committed && self.raw.raft.raft_log.committed >= self.role.no_op.0 {
            // raft-rs dropped the rounds that were asked for before this.
            self.has_committed = true;
            self.ask_reads_again();
            self.beat();
        }
        any
    }

    /// A follower's messages wait for the disk. A heartbeat's answer says nothing about entries, only that
    /// the term is known here: it waits only while a term or vote is not durable, so that a slow disk does
    /// not look like a dead member.
    fn split_messages(
        &self,
        messages: Vec<Message>,
        out: &mut Vec<Output>,
        any: &mut bool,
    ) -> Vec<PeerMessage> {
        let voting = self.writing.iter().any(|task| task.votes)
            || self.hard_state().votes_differ(self.written_hard_state);
        let mut waiting = Vec::new();
        for message in messages {
            *any = true;
            let peer = PeerMessage::from_raft(&message);
            if message.get_msg_type() == MessageType::MsgHeartbeatResponse && !voting {
                out.push(Output::Send(peer));
            } else {
                waiting.push(peer);
            }
        }
        waiting
    }

    /// Makes the task for the log thread, if there is something for it.
    fn write(
        &mut self,
        entries: Vec<LogEntry>,
        must_sync: bool,
        messages: Vec<PeerMessage>,
        out: &mut Vec<Output>,
    ) {
        let hard_state = self.hard_state();
        let votes = hard_state.votes_differ(self.written_hard_state);
        // A new commit index alone is not worth a write: it travels with the next one (R5).
        if !must_sync && self.writing.is_empty() {
            out.extend(messages.into_iter().map(Output::Send));
            self.raw.on_persist_ready(self.last_ready);
            return;
        }
        if !must_sync && messages.is_empty() {
            return;
        }
        let carried = (must_sync && hard_state != self.written_hard_state).then_some(hard_state);
        if carried.is_some() {
            self.written_hard_state = hard_state;
        }
        let ready_no = ReadyNo(self.last_ready);
        let first = entries.first().map(|entry| entry.index);
        self.writing.push_back(Writing {
            ready_no,
            since: self.now,
            first,
            votes,
        });
        out.push(Output::Append(LogTask {
            ready_no,
            entries,
            hard_state: carried,
            must_sync,
            messages,
        }));
    }

    pub(super) fn persisted(&mut self, number: ReadyNo) {
        while self.writing.front().is_some_and(|task| task.ready_no <= number) {
            self.writing.pop_front();
        }
        // What followed without a task had nothing to persist.
        let upto = self
            .writing
            .front()
            .map_or(self.last_ready, |task| task.ready_no.0 - 1);
        self.raw.on_persist_ready(upto);
        self.log_follows(upto);
    }

    fn hard_state(&self) -> HardState {
        let raft = &self.raw.raft;
        HardState {
            term: Term(raft.term),
            vote: RaftId(raft.vote),
            commit: LogIndex(raft.raft_log.committed),
        }
    }
}

impl HardState {
    fn votes_differ(self, other: Self) -> bool {
        (self.term, self.vote) != (other.term, other.vote)
    }
}
