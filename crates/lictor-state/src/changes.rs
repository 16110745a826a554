//! What changed among the keys since an index: for feeds of changes, and for queries that wait (rule R14).
//!
//! Deletes are known from their tombstones and marks. Those are reaped after a while, and a restore puts other rows in
//! the place of all; whoever asks about an index before that is told so instead, and begins anew with all rows.

use bytes::Bytes;
use lictor_proto::ConsulIndex;

use crate::row::Mark;
use crate::tree::Row;
use crate::{KvRow, State, prefix_end};

/// Keys that somebody watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span<'a> {
    /// One key.
    Key(&'a [u8]),
    /// All keys that begin with this.
    Prefix(&'a [u8]),
}

/// Something that happened to keys.
#[derive(Debug, Clone)]
pub enum Change {
    /// A key was written.
    Written(KvRow),
    /// A key was deleted, if there was such a key.
    Deleted {
        /// The key.
        key: Bytes,
        /// The index of the delete.
        index: u64,
    },
    /// All keys below a prefix were deleted.
    TreeDeleted {
        /// The prefix.
        prefix: Bytes,
        /// The index of the delete.
        index: u64,
    },
}

impl Change {
    /// Changes in this order lead from the old keys to the new ones: by index, and within one index, which is one
    /// transaction, deletes first.
    fn order(&self) -> (u64, u8, &[u8]) {
        match self {
            Self::TreeDeleted { prefix, index } => (*index, 0, prefix),
            Self::Deleted { key, index } => (*index, 1, key),
            Self::Written(row) => (row.modify_index(), 2, row.key()),
        }
    }
}

impl State {
    /// The index of the last change of one key, deletes included. Where none is known the index up to which the past is
    /// forgotten, which may be 0.
    pub fn kv_key_changed(&self, key: &[u8]) -> ConsulIndex {
        let found = match self.kv.rows.get(key) {
            Some(row) => row.modify_index(),
            None => self.delete_of(key),
        };
        ConsulIndex(found.max(self.indexes.tombstone_horizon))
    }

    /// The same for all keys below a prefix.
    pub fn kv_prefix_changed(&self, prefix: &[u8]) -> ConsulIndex {
        if prefix.is_empty() {
            return self.kv_table_index();
        }
        ConsulIndex(self.below(prefix).max(self.indexes.tombstone_horizon))
    }

    /// The same for whatever is watched.
    pub fn kv_changed(&self, span: Span<'_>) -> ConsulIndex {
        match span {
            Span::Key(key) => self.kv_key_changed(key),
            Span::Prefix(prefix) => self.kv_prefix_changed(prefix),
        }
    }

    /// What happened to the keys of these spans, none of which overlap, after the index `since`; in an order in which it
    /// can be done again. `None` if that is not known any more.
    pub fn kv_changes(&self, spans: &[Span<'_>], since: ConsulIndex) -> Option<Vec<Change>> {
        let known = self.indexes.tombstone_horizon.max(self.restored_at).max(1);
        if since.0 < known || since > self.visible(self.applied().0) {
            return None;
        }
        let mut changes = Vec::new();
        for span in spans {
            match span {
                Span::Key(key) => self.changes_of_key(key, since.0, &mut changes),
                Span::Prefix(prefix) => self.changes_below(prefix, since.0, &mut changes),
            }
        }
        changes.sort_by(|a, b| a.order().cmp(&b.order()));
        Some(changes)
    }

    fn changes_of_key(&self, key: &[u8], since: u64, changes: &mut Vec<Change>) {
        match self.kv.rows.get(key) {
            Some(row) if row.modify_index() > since => changes.push(Change::Written(row.clone())),
            Some(_) => {}
            None => {
                let index = self.delete_of(key);
                if index > since {
                    let key = Bytes::copy_from_slice(key);
                    changes.push(Change::Deleted { key, index });
                }
            }
        }
    }

    fn changes_below(&self, prefix: &[u8], since: u64, changes: &mut Vec<Change>) {
        let end = prefix_end(prefix);
        let end = end.as_deref();
        let rows = self.kv.rows.newer(prefix, end, since).into_iter();
        changes.extend(rows.cloned().map(Change::Written));
        let deleted = |mark: &Mark| Change::Deleted {
            key: Bytes::copy_from_slice(mark.key()),
            index: mark.index(),
        };
        let tombstones = self.kv.tombstones.newer(prefix, end, since).into_iter();
        changes.extend(tombstones.map(deleted));
        let marks = self.kv.tree_marks.newer(prefix, end, since).into_iter();
        changes.extend(marks.map(|mark| Change::TreeDeleted {
            prefix: Bytes::copy_from_slice(mark.key()),
            index: mark.index(),
        }));
        // One at the prefix itself is among those below it, too.
        let above = self.proper_ancestor_mark(prefix);
        if above > since {
            changes.push(Change::TreeDeleted {
                prefix: Bytes::copy_from_slice(prefix),
                index: above,
            });
        }
    }

    /// The index of the last delete of a key that does not exist; 0 if none is known.
    fn delete_of(&self, key: &[u8]) -> u64 {
        let tombstone = self.kv.tombstones.get(key).map_or(0, Row::index);
        tombstone.max(self.ancestor_mark(key))
    }

    fn proper_ancestor_mark(&self, prefix: &[u8]) -> u64 {
        prefix
            .split_last()
            .map_or(0, |(_, shorter)| self.ancestor_mark(shorter))
    }
}
