//! ReadIndex rounds.
//!
//! raft-rs drops a round silently when there is no leader, or one that has committed nothing in its term yet,
//! and a message may be lost: a round is asked for again until it is answered or too old. It keeps its context,
//! so asking twice is harmless: the leader answers with an index taken after the first time it heard of it.
//!
//! A round that is marked so may be answered by a leader that has a lease, from what it knows: two messages instead of
//! six. Its lease is asked about at a time that was read after the round had come, so whatever was acknowledged before
//! is committed in its log. `a_leased_round_costs_two_messages_and_is_a_full_one_without_the_lease`

use std::collections::BTreeMap;

use lictor_proto::LogIndex;
use raft::eraftpb::{Message, MessageType};

use super::Core;
use crate::{Config, LogReader, MonoTime, Output, PeerMessage, ReadId};

/// In a round's context: a leader may answer under its lease.
const LEASED: u8 = b'd';
const LEASED_AT: usize = 16;
const LEASED_BYTES: usize = LEASED_AT + 1 + 8;

/// Rounds that wait for an answer.
pub(super) struct Reads {
    raft_id: u64,
    incarnation: u64,
    waiting: BTreeMap<ReadId, Round>,
}

struct Round {
    /// See [`crate::Input::ReadIndex`].
    leased: bool,
    since: MonoTime,
    asked: MonoTime,
}

impl Reads {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            raft_id: config.id.0,
            incarnation: config.incarnation,
            waiting: BTreeMap::new(),
        }
    }

    /// raft-rs knows a round by this alone, on the leader and for all members: bare counters of two followers,
    /// or of two lives of one, would collide (R2).
    fn context(&self, id: ReadId, leased: bool) -> Vec<u8> {
        let words = [self.raft_id, self.incarnation]
            .into_iter()
            .flat_map(u64::to_be_bytes);
        let mark = leased.then_some(LEASED);
        words.chain(mark).chain(id.0.to_be_bytes()).collect()
    }

    pub(super) fn answer(&mut self, context: &[u8], index: LogIndex, out: &mut Vec<Output>) {
        let Some(counter) = context.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            return;
        };
        let id = ReadId(counter);
        let Some(leased) = self.waiting.get(&id).map(|round| round.leased) else {
            return;
        };
        if context == self.context(id, leased) {
            self.waiting.remove(&id);
            out.push(Output::ReadReady { id, index });
        }
    }
}

impl<R: LogReader> Core<R> {
    pub(super) fn read_index(&mut self, id: ReadId, leased: bool, out: &mut Vec<Output>) {
        if self.reads.waiting.len() >= self.config.max_pending_reads {
            out.push(Output::ReadFailed(id));
            return;
        }
        self.reads.waiting.insert(
            id,
            Round {
                leased,
                since: self.now,
                asked: self.now,
            },
        );
        self.raw.read_index(self.reads.context(id, leased));
    }

    /// Whether this leader may answer another member's round without asking the others: its lease says that nobody else
    /// leads, as for a read of its own.
    pub(super) fn may_answer_alone(&self, message: &Message) -> bool {
        let entry = message.entries.first();
        entry.is_some_and(|entry| entry.data.len() == LEASED_BYTES && entry.data[LEASED_AT] == LEASED)
            && self.has_lease()
    }

    /// Answers with the commit index, which covers all that was acknowledged before the round was asked for (rule R1).
    pub(super) fn answer_alone(&mut self, asked: Message, out: &mut Vec<Output>) {
        let raft = &self.raw.raft;
        let mut answer = Message {
            from: raft.id,
            to: asked.from,
            term: raft.term,
            index: raft.raft_log.committed,
            entries: asked.entries,
            ..Message::default()
        };
        answer.set_msg_type(MessageType::MsgReadIndexResp);
        // With it goes the word of the commit.
        self.commits.note_told(asked.from, LogIndex(answer.index));
        out.push(Output::Send(PeerMessage::from_raft(&answer)));
    }

    pub(super) fn retry_reads(&mut self, out: &mut Vec<Output>) {
        let (now, timeout) = (self.now.0, self.config.read_timeout_ms);
        self.reads.waiting.retain(|&id, round| {
            let failed = now - round.since.0 >= timeout;
            if failed {
                out.push(Output::ReadFailed(id));
            }
            !failed
        });
        let retry = self.config.read_retry_ms;
        self.ask(|round| now - round.asked.0 >= retry);
    }

    /// After a change of leader, and after a leader's first commit: who asked before was not heard.
    pub(super) fn ask_reads_again(&mut self) {
        self.ask(|_| true);
    }

    fn ask(&mut self, due: impl Fn(&Round) -> bool) {
        let mut contexts = Vec::new();
        for (&id, round) in &mut self.reads.waiting {
            if due(round) {
                round.asked = self.now;
                contexts.push((id, round.leased));
            }
        }
        for (id, leased) in contexts {
            self.raw.read_index(self.reads.context(id, leased));
        }
    }
}

#[cfg(test)]
mod tests;
