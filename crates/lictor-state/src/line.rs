//! The tables of sessions that stand in line for the locks of keys, and what is read from them.

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::SessionId;
use lictor_proto::v1::LockWaitRow;

use crate::State;
use crate::key::Key;
use crate::queue::entry_key;
use crate::row::{Entry, Mark};
use crate::tree::{Row, Tree};

/// All lines, in the order in which they are served.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineTables {
    /// By (key, index).
    pub(crate) rows: Tree<Entry<LockWaitRow>>,
    /// (session, key, index), so that all places of a session at a key are found in their order.
    pub(crate) by_session: Tree<Mark>,
    /// (key, request) -> index.
    pub(crate) by_request: Tree<Mark>,
}

impl LineTables {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn get(&self, key: &[u8], index: u64) -> Option<&Arc<LockWaitRow>> {
        self.rows.get(&entry_key(key, index)).map(|entry| &entry.row)
    }

    pub(crate) fn by_request(&self, key: &[u8], request: &[u8]) -> Option<&Arc<LockWaitRow>> {
        let found = self.by_request.get(&Key::exact(key).and_bytes(request))?;
        self.get(key, found.index())
    }

    /// Whoever is next.
    pub(crate) fn first(&self, key: &[u8]) -> Option<&Arc<LockWaitRow>> {
        let next = self.rows.range(&Key::exact(key)).next()?;
        Some(&next.row).filter(|row| row.key == *key)
    }

    fn of_key<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Arc<LockWaitRow>> {
        let from = self.rows.range(&Key::exact(key));
        from.map(|entry| &entry.row)
            .take_while(move |row| row.key == *key)
    }

    /// The places of a session, in the line of one key or in all lines.
    pub(crate) fn of_session(&self, session: SessionId, key: Option<&[u8]>) -> Vec<Arc<LockWaitRow>> {
        if self.is_empty() {
            return Vec::new();
        }
        let of_session = Key::session(session);
        let skipped = of_session.len();
        let prefix = match key {
            Some(key) => of_session.and_name_bytes(key),
            None => of_session,
        };
        let marks = self.by_session.prefix(&prefix);
        let rows = marks.filter_map(|mark| self.rows.get(&mark.key()[skipped..]));
        rows.map(|entry| Arc::clone(&entry.row)).collect()
    }

    /// The keys below a prefix that somebody waits for.
    pub(crate) fn keys_below(&self, prefix: &[u8]) -> Vec<Bytes> {
        let rows = self.rows.iter().map(|entry| &entry.row);
        rows.filter(|row| row.key.starts_with(prefix))
            .map(|row| row.key.clone())
            .collect()
    }

    /// Puts a row in; answers the one that it replaced.
    pub(crate) fn add(&mut self, row: &Arc<LockWaitRow>) -> Option<Arc<LockWaitRow>> {
        let key = entry_key(&row.key, row.index);
        if let Some(id) = SessionId::parse(&row.session) {
            self.by_session
                .insert(Mark::new(&Key::session(id).and_bytes(&key), 0));
        }
        let request = Key::exact(&row.key).and_bytes(&row.request);
        self.by_request.insert(Mark::new(&request, row.index));
        let old = self.rows.insert(Entry::new(&key, Arc::clone(row)));
        old.map(|entry| entry.row)
    }

    pub(crate) fn remove(&mut self, row: &LockWaitRow) {
        let key = entry_key(&row.key, row.index);
        self.rows.remove(&key);
        if let Some(id) = SessionId::parse(&row.session) {
            self.by_session.remove(&Key::session(id).and_bytes(&key));
        }
        self.by_request
            .remove(&Key::exact(&row.key).and_bytes(&row.request));
    }
}

impl State {
    /// One place in the line for the lock of a key.
    pub fn lock_wait(&self, key: &[u8], index: u64) -> Option<&Arc<LockWaitRow>> {
        self.kv.lines.get(key, index)
    }

    /// The places of all lines, by key and index: the first of each key is the next that gets its lock.
    pub fn lock_waits(&self) -> impl Iterator<Item = &Arc<LockWaitRow>> {
        self.kv.lines.rows.iter().map(|entry| &entry.row)
    }

    /// The line for the lock of one key.
    pub fn lock_waits_of<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Arc<LockWaitRow>> {
        self.kv.lines.of_key(key)
    }
}
