//! ReadIndex rounds.
//!
//! raft-rs drops a round silently when there is no leader, or one that has committed nothing in its term yet,
//! and a message may be lost: a round is asked for again until it is answered or too old. It keeps its context,
//! so asking twice is harmless: the leader answers with an index taken after the first time it heard of it.

use std::collections::BTreeMap;

use lictor_proto::LogIndex;

use super::Core;
use crate::{Config, LogReader, MonoTime, Output, ReadId};

/// Rounds that wait for an answer.
pub(super) struct Reads {
    raft_id: u64,
    incarnation: u64,
    waiting: BTreeMap<ReadId, Round>,
}

struct Round {
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
    fn context(&self, id: ReadId) -> Vec<u8> {
        [self.raft_id, self.incarnation, id.0]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect()
    }

    pub(super) fn answer(&mut self, context: &[u8], index: LogIndex, out: &mut Vec<Output>) {
        let Some(counter) = context.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            return;
        };
        let id = ReadId(counter);
        if context == self.context(id) && self.waiting.remove(&id).is_some() {
            out.push(Output::ReadReady { id, index });
        }
    }
}

impl<R: LogReader> Core<R> {
    pub(super) fn read_index(&mut self, id: ReadId, out: &mut Vec<Output>) {
        if self.reads.waiting.len() >= self.config.max_pending_reads {
            out.push(Output::ReadFailed(id));
            return;
        }
        self.reads.waiting.insert(
            id,
            Round {
                since: self.now,
                asked: self.now,
            },
        );
        self.raw.read_index(self.reads.context(id));
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
                contexts.push(id);
            }
        }
        for id in contexts {
            self.raw.read_index(self.reads.context(id));
        }
    }
}
