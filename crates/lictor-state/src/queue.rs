//! The tables of fair queues, and what is read from them.

use std::sync::Arc;

use lictor_proto::ConsulIndex;
use lictor_proto::v1::QueueEntryRow;

use crate::State;
use crate::key::Key;
use crate::row::{Entry, Mark};
use crate::tree::{Row, Tree};

/// The entries of all queues.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueTables {
    /// By (name, index).
    pub(crate) entries: Tree<Entry<QueueEntryRow>>,
    /// (name, value) -> index, of the entries that have a value.
    pub(crate) by_value: Tree<Mark>,
    /// (name, request) -> index.
    pub(crate) by_request: Tree<Mark>,
    /// Names that were used and where nobody stands in line -> the index since when.
    pub(crate) free: Tree<Mark>,
}

impl QueueTables {
    pub(crate) fn get(&self, name: &[u8], index: u64) -> Option<&Arc<QueueEntryRow>> {
        self.entries.get(&entry_key(name, index)).map(|entry| &entry.row)
    }

    pub(crate) fn by_value(&self, name: &[u8], value: &[u8]) -> Option<&Arc<QueueEntryRow>> {
        let found = self.by_value.get(&Key::exact(name).and_bytes(value))?;
        self.get(name, found.index())
    }

    pub(crate) fn by_request(&self, name: &[u8], request: &[u8]) -> Option<&Arc<QueueEntryRow>> {
        let found = self.by_request.get(&Key::exact(name).and_bytes(request))?;
        self.get(name, found.index())
    }

    /// The first entry of a queue.
    pub(crate) fn holder(&self, name: &[u8]) -> Option<&Arc<QueueEntryRow>> {
        let mut from = self.entries.range(&Key::exact(name));
        from.next()
            .map(|entry| &entry.row)
            .filter(|row| row.name == *name)
    }

    pub(crate) fn is_known(&self, name: &[u8]) -> bool {
        self.holder(name).is_some() || self.free.get(name).is_some()
    }

    /// Puts an entry in; answers the one that it replaced.
    pub(crate) fn add(&mut self, row: &Arc<QueueEntryRow>) -> Option<Arc<QueueEntryRow>> {
        let key = entry_key(&row.name, row.index);
        let old = self.entries.insert(Entry::new(&key, Arc::clone(row)));
        let old = old.map(|entry| entry.row);
        if let Some(old) = old.as_ref().filter(|old| old.value != row.value) {
            self.remove_value(old);
        }
        if let Some(value) = &row.value {
            let key = Key::exact(&row.name).and_bytes(value);
            self.by_value.insert(Mark::new(&key, row.index));
        }
        let key = Key::exact(&row.name).and_bytes(&row.request);
        self.by_request.insert(Mark::new(&key, row.index));
        old
    }

    pub(crate) fn remove(&mut self, row: &QueueEntryRow) {
        self.entries.remove(&entry_key(&row.name, row.index));
        self.remove_value(row);
        self.by_request
            .remove(&Key::exact(&row.name).and_bytes(&row.request));
    }

    fn remove_value(&mut self, row: &QueueEntryRow) {
        if let Some(value) = &row.value {
            self.by_value.remove(&Key::exact(&row.name).and_bytes(value));
        }
    }

    /// Answers whether the name was not there.
    pub(crate) fn add_free(&mut self, name: &[u8], index: u64) -> bool {
        self.free.insert(Mark::new(name, index)).is_none()
    }
}

/// The key of an entry: its name, then its index.
pub(crate) fn entry_key(name: &[u8], index: u64) -> Key {
    Key::exact(name).and_bytes(&index.to_be_bytes())
}

/// What a command did to a fair queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueAnswer {
    /// The lock is had, by this request.
    Granted {
        /// The entry.
        index: u64,
    },
    /// The lock was had already, by an entry of the same value; its lease began anew.
    Held {
        /// The entry.
        index: u64,
    },
    /// Others come before.
    Waits {
        /// The entry.
        index: u64,
    },
    /// The lock is not to be had at once, and nothing was entered.
    Busy,
    /// Done.
    Done,
    /// The name was used, but there is no such entry.
    NoEntry,
    /// The name was never used, or not for long.
    NoName,
    /// Another entry of the queue has this value.
    ValueTaken,
}

/// An entry whose lease begins with a command: entered, joined, renewed or granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLease {
    /// The queue.
    pub name: bytes::Bytes,
    /// The entry.
    pub index: u64,
    /// The number of the lease.
    pub lease: u64,
    /// How many requests have come to the entry, to wait or to renew the lock.
    pub callers: u64,
    /// The length of the lease in milliseconds; 0 never lapses once the lock is held.
    pub ttl_ms: u64,
    /// Whether the entry holds the lock.
    pub holds: bool,
}

impl QueueLease {
    /// As a row says.
    pub fn new(row: &QueueEntryRow) -> Self {
        Self {
            name: row.name.clone(),
            index: row.index,
            lease: row.lease,
            callers: row.callers,
            ttl_ms: row.ttl_ms,
            holds: row.granted_index > 0,
        }
    }
}

impl State {
    /// The entry that holds a fair lock.
    pub fn queue_holder(&self, name: &[u8]) -> Option<&Arc<QueueEntryRow>> {
        self.queues.holder(name)
    }

    /// One entry of a fair queue.
    pub fn queue_entry(&self, name: &[u8], index: u64) -> Option<&Arc<QueueEntryRow>> {
        self.queues.get(name, index)
    }

    /// Whether a fair lock has a holder, or had one lately.
    pub fn is_queue_known(&self, name: &[u8]) -> bool {
        self.queues.is_known(name)
    }

    /// The entries of all fair queues, by name and index: the first of each name holds its lock.
    pub fn queue_entries(&self) -> impl Iterator<Item = &Arc<QueueEntryRow>> {
        self.queues.entries.iter().map(|entry| &entry.row)
    }

    /// The highest index since which a name that was used is free.
    pub fn newest_free_queue(&self) -> Option<ConsulIndex> {
        self.queues.free.iter().map(Row::index).max().map(ConsulIndex)
    }

    /// The index of the last change of any fair queue, at least 1.
    pub fn queues_index(&self) -> ConsulIndex {
        ConsulIndex(self.indexes.queues.max(1))
    }
}
