//! How far the log may be cut: never past the durable state, and not past what others still need.
//!
//! | kept below the durable state | by whom |
//! |---|---|
//! | nothing | a sole voter without learners |
//! | `trailing_entries`, none from before a restore | all others: members restart, and any may lead next |
//! | back to the slowest live follower, and to a snapshot under way | the leader |
//! | never more than `keep_entries`, `keep_bytes` | all |

use std::collections::VecDeque;

use lictor_proto::LogIndex;

use super::Core;
use crate::{LogEntry, LogReader, Output};

/// A sample is taken each time this many bytes were appended.
const SAMPLE_BYTES: u64 = 1 << 20;

/// How many bytes the log holds, sampled. Counts from the start of the process.
#[derive(Default)]
pub(super) struct LogBytes {
    total: u64,
    /// Indexes, and the bytes appended up to and with them. At most one a MiB, so bounded by the log's bound.
    samples: VecDeque<(LogIndex, u64)>,
}

impl LogBytes {
    pub(super) fn append(&mut self, entries: &[LogEntry]) {
        let Some(first) = entries.first() else { return };
        // Replaced entries are counted as long as no sample lies behind them: a MiB at most.
        while self
            .samples
            .back()
            .is_some_and(|&(index, _)| index >= first.index)
        {
            self.samples.pop_back();
            self.total = self.samples.back().map_or(0, |&(_, total)| total);
        }
        for entry in entries {
            self.total += entry.data.len() as u64;
            let sampled = self.samples.back().map_or(0, |&(_, total)| total);
            if self.total - sampled >= SAMPLE_BYTES {
                self.samples.push_back((entry.index, self.total));
            }
        }
    }

    fn forget_to(&mut self, index: LogIndex) {
        // One sample at or below the begin of the log is kept: where the next begins to count.
        while self.samples.get(1).is_some_and(|&(next, _)| next <= index) {
            self.samples.pop_front();
        }
    }

    /// An index behind which `bytes` lie, to within a sample, as far as is known.
    fn keeping(&self, bytes: u64) -> LogIndex {
        let over = self.samples.iter().rev();
        let mut over = over.skip_while(|&&(_, total)| self.total - total <= bytes);
        over.next().map_or(LogIndex(0), |&(index, _)| index)
    }
}

impl<R: LogReader> Core<R> {
    /// What lies before a restore leads to a state that is no more, and whoever is so far behind may find the archive
    /// nowhere: it gets a snapshot (rule R9).
    pub(super) fn restored(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        self.restored = self.restored.max(index);
        self.flushed(index, out);
    }

    pub(super) fn flushed(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        let flushed = index.0.min(self.raw.raft.raft_log.applied);
        let to = self.needed_after(flushed);
        let Ok(position) = self.raw.store().position(LogIndex(to)) else {
            return;
        };
        if position.index > self.raw.store().truncated().index {
            self.raw.mut_store().compact(position);
            self.log_bytes.forget_to(position.index);
            out.push(Output::Compact(position));
        }
    }

    /// The last entry nobody needs, of those up to `flushed`.
    fn needed_after(&self, flushed: u64) -> u64 {
        let tracker = self.raw.raft.prs();
        if self.votes_alone() && tracker.conf().learners().is_empty() {
            return flushed;
        }
        let config = &self.config;
        let silent = |id| {
            let heard = self.contacts.last(id).unwrap_or(self.leads_since);
            self.now.0 - heard.0 > config.follower_silent_ms
        };
        let trailing = flushed.saturating_sub(config.trailing_entries);
        let mut to = trailing.max(self.restored.0.min(flushed));
        if self.is_leader() {
            let live = tracker
                .iter()
                .filter(|&(&id, _)| id != config.id.0 && !silent(id));
            let slowest = live.map(|(_, progress)| progress.matched).min();
            let snapshot = self.snapshots.first_under_way();
            to = to
                .min(slowest.unwrap_or(u64::MAX))
                .min(snapshot.map_or(u64::MAX, |index| index.0));
        }
        let most = flushed.saturating_sub(config.keep_entries);
        let most = most.max(self.log_bytes.keeping(config.keep_bytes).0);
        to.max(most.min(flushed))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lictor_proto::Term;

    use super::*;
    use crate::EntryKind;

    fn entries(range: std::ops::Range<u64>) -> Vec<LogEntry> {
        let entry = |index| LogEntry {
            index: LogIndex(index),
            term: Term(1),
            kind: EntryKind::Normal,
            data: Bytes::from(vec![0; 512 << 10]),
        };
        range.map(entry).collect()
    }

    #[test]
    fn bytes_are_counted_from_the_end_to_within_a_sample() {
        let mut log = LogBytes::default();

        log.append(&entries(1..101));

        assert_eq!(log.keeping(10 << 20), LogIndex(78));
        assert_eq!(log.keeping(100 << 20), LogIndex(0));
        log.forget_to(LogIndex(78));
        assert_eq!(log.keeping(10 << 20), LogIndex(78));
    }

    #[test]
    fn replaced_entries_do_not_count_twice() {
        let mut log = LogBytes::default();
        log.append(&entries(1..101));

        log.append(&entries(41..61));

        assert_eq!(log.total, 30 << 20);
        assert_eq!(log.keeping(10 << 20), LogIndex(38));
    }
}
