//! The newest entries in memory: all that are not durable yet, and the last few MiB before them.

use std::collections::VecDeque;

use lictor_proto::LogIndex;

use super::LogEntry;

/// What an entry costs beside its data.
const ENTRY_OVERHEAD: usize = size_of::<LogEntry>() + 64;

/// Contiguous entries up to the end of the log.
#[derive(Debug, Default)]
pub(crate) struct EntryCache {
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

impl EntryCache {
    /// The first entry held.
    pub(crate) fn first(&self) -> Option<LogIndex> {
        self.entries.front().map(|entry| entry.index)
    }

    /// An entry, if it is held.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&LogEntry> {
        let at = index.0.checked_sub(self.first()?.0)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Puts entries at the end, replacing those at or after the first of them.
    pub(crate) fn append(&mut self, entries: &[LogEntry]) {
        let Some(first) = entries.first() else { return };
        while self
            .entries
            .back()
            .is_some_and(|entry| entry.index >= first.index)
        {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, cost);
        }
        debug_assert!(
            self.entries
                .back()
                .is_none_or(|entry| entry.index.0 + 1 == first.index.0)
        );
        self.bytes += entries.iter().map(cost).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops entries up to and with `durable` while more than `keep_bytes` are held.
    pub(crate) fn evict(&mut self, durable: LogIndex, keep_bytes: usize) {
        while self.bytes > keep_bytes && self.first().is_some_and(|first| first <= durable) {
            self.bytes -= self.entries.pop_front().as_ref().map_or(0, cost);
        }
        // A burst leaves a large ring behind: give it back.
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }
}

fn cost(entry: &LogEntry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lictor_proto::Term;

    use super::*;
    use crate::EntryKind;

    fn entries(range: std::ops::Range<u64>, term: u64) -> Vec<LogEntry> {
        let entry = |index| LogEntry {
            index: LogIndex(index),
            term: Term(term),
            kind: EntryKind::Normal,
            data: Bytes::from(vec![0; 100]),
        };
        range.map(entry).collect()
    }

    #[test]
    fn an_overlapping_append_replaces_the_tail() {
        let mut cache = EntryCache::default();
        cache.append(&entries(5..10, 1));

        cache.append(&entries(7..8, 2));

        assert_eq!(cache.get(LogIndex(6)).map(|entry| entry.term), Some(Term(1)));
        assert_eq!(cache.get(LogIndex(7)).map(|entry| entry.term), Some(Term(2)));
        assert_eq!(cache.get(LogIndex(8)), None);
        assert_eq!(cache.get(LogIndex(4)), None);
    }

    #[test]
    fn what_is_not_durable_is_never_evicted() {
        let mut cache = EntryCache::default();
        cache.append(&entries(1..100, 1));

        cache.evict(LogIndex(60), 0);

        assert_eq!(cache.first(), Some(LogIndex(61)));
        cache.evict(LogIndex(99), 0);
        assert_eq!((cache.first(), cache.bytes), (None, 0));
    }
}
