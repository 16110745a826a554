//! What raft-rs reads: the cache, and the store's reader below it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lictor_proto::{LogIndex, Term};
use raft::eraftpb::{ConfState, Entry, EntryType, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::cache::EntryCache;
use super::{EntryKind, HardState, LogEntry, LogPosition, LogReader};

/// What raft-rs counts for an entry beside its data, roughly.
const ENTRY_BYTES: u64 = 16;

/// The log as of now, written or on its way. Owned by the core.
pub(crate) struct LogView<R> {
    reader: R,
    cache: EntryCache,
    truncated: LogPosition,
    last: LogPosition,
    hard_state: HardState,
    members: ConfState,
    /// While set, no entries are given out to apply. raft-rs cannot be told to hold them back; it only asks
    /// for them inside `RawNode::ready`, and takes no entries for an answer.
    pub(crate) hold_apply: Cell<bool>,
    /// Snapshots that raft-rs may take when it asks, by receiver. At most one for each member.
    offered: RefCell<BTreeMap<u64, Snapshot>>,
    /// For whom raft-rs asked for one in vain.
    wanted: RefCell<BTreeSet<u64>>,
}

impl<R: LogReader> LogView<R> {
    pub(crate) fn new(
        reader: R,
        truncated: LogPosition,
        last: LogPosition,
        hard_state: HardState,
        members: ConfState,
    ) -> Self {
        let (cache, hold_apply) = (EntryCache::default(), Cell::new(false));
        let (offered, wanted) = (RefCell::default(), RefCell::default());
        Self {
            reader,
            cache,
            truncated,
            last,
            hard_state,
            members,
            hold_apply,
            offered,
            wanted,
        }
    }

    pub(crate) fn truncated(&self) -> LogPosition {
        self.truncated
    }

    /// The entries can be read from now on, although no disk has them.
    pub(crate) fn append(&mut self, entries: &[LogEntry]) {
        self.cache.append(entries);
        if let Some(last) = entries.last() {
            self.last = LogPosition {
                index: last.index,
                term: last.term,
            };
        }
    }

    pub(crate) fn evict(&mut self, durable: LogIndex, keep_bytes: usize) {
        self.cache.evict(durable, keep_bytes);
    }

    /// Forgets the entries up to and with `to`.
    pub(crate) fn compact(&mut self, to: LogPosition) {
        self.truncated = to;
        self.cache.evict(to.index, 0);
    }

    /// Forgets all entries; the next one follows `to`.
    pub(crate) fn reset(&mut self, to: LogPosition) {
        self.cache = EntryCache::default();
        (self.truncated, self.last) = (to, to);
    }

    pub(crate) fn offer_snapshot(&mut self, to: u64, snapshot: Snapshot) {
        self.offered.get_mut().insert(to, snapshot);
    }

    pub(crate) fn withdraw_snapshot(&mut self, to: u64) {
        self.offered.get_mut().remove(&to);
    }

    pub(crate) fn withdraw_snapshots(&mut self) {
        self.offered.get_mut().clear();
    }

    /// For whom raft-rs wants a snapshot.
    pub(crate) fn take_wanted(&self) -> BTreeSet<u64> {
        self.wanted.take()
    }

    /// The position of an entry of the log, or of the one before the first.
    pub(crate) fn position(&self, index: LogIndex) -> raft::Result<LogPosition> {
        self.term(index.0).map(|term| LogPosition {
            index,
            term: Term(term),
        })
    }

    fn read(&self, low: u64, high: u64, max_bytes: u64) -> raft::Result<Vec<Entry>> {
        let mut left = max_bytes;
        let mut found = Vec::new();
        let cached_from = self.cache.first().map_or(self.last.index.0 + 1, |first| first.0);
        if low < cached_from {
            let stored_to = high.min(cached_from);
            let stored = self
                .reader
                .entries(LogIndex(low), LogIndex(stored_to), max_bytes)
                .map_err(failed)?;
            found.reserve(stored.len());
            for entry in &stored {
                left = left.saturating_sub(size_of_entry(entry));
                found.push(to_raft(entry));
            }
        }
        for index in low + found.len() as u64..high {
            // A store may stop short of what it has; nothing may be skipped.
            let Some(entry) = self.cache.get(LogIndex(index)) else {
                break;
            };
            let size = size_of_entry(entry);
            if !found.is_empty() && size > left {
                break;
            }
            left = left.saturating_sub(size);
            found.push(to_raft(entry));
        }
        Ok(found)
    }
}

impl<R: LogReader> Storage for LogView<R> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard_state = raft::eraftpb::HardState {
            term: self.hard_state.term.0,
            vote: self.hard_state.vote.0,
            commit: self.hard_state.commit.0,
        };
        Ok(RaftState::new(hard_state, self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last.index.0 + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        if self.hold_apply.get() && !context.can_async() {
            return Ok(Vec::new());
        }
        self.read(low, high, max_size.into().unwrap_or(u64::MAX))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index.0 {
            return Ok(self.truncated.term.0);
        }
        if index == self.last.index.0 {
            return Ok(self.last.term.0);
        }
        if index < self.truncated.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last.index.0 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        if let Some(entry) = self.cache.get(LogIndex(index)) {
            return Ok(entry.term.0);
        }
        self.reader
            .term(LogIndex(index))
            .map(|term| term.0)
            .map_err(failed)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.index.0)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let needed = request_index.max(self.truncated.index.0);
        let offered = self.offered.borrow_mut().remove(&to);
        if let Some(snapshot) = offered.filter(|snapshot| snapshot.get_metadata().index >= needed) {
            return Ok(snapshot);
        }
        self.wanted.borrow_mut().insert(to);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

fn failed(error: super::LogError) -> Error {
    Error::Store(StorageError::Other(Box::new(error)))
}

fn size_of_entry(entry: &LogEntry) -> u64 {
    entry.data.len() as u64 + ENTRY_BYTES
}

fn to_raft(entry: &LogEntry) -> Entry {
    let kind = match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::Conf => EntryType::EntryConfChange,
        EntryKind::ConfV2 => EntryType::EntryConfChangeV2,
    };
    let mut made = Entry {
        index: entry.index.0,
        term: entry.term.0,
        data: entry.data.to_vec(),
        ..Entry::default()
    };
    made.set_entry_type(kind);
    made
}

/// The entry's `context` is not kept: Lictor puts nothing there, and a conf change carries one of its own.
pub(crate) fn from_raft(entry: Entry) -> LogEntry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Normal,
        EntryType::EntryConfChange => EntryKind::Conf,
        EntryType::EntryConfChangeV2 => EntryKind::ConfV2,
    };
    let (index, term) = (LogIndex(entry.index), Term(entry.term));
    LogEntry {
        index,
        term,
        kind,
        data: Bytes::from(entry.data),
    }
}
