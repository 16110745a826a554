//! Writes and deletes of keys, and the reaping of what deletes leave behind.

use bytes::Bytes;
use lictor_proto::SessionId;

use super::Apply;
use crate::key::{Key, Kind, reap_key, split_reap_key};
use crate::row::{KvParts, KvRow, Mark};
use crate::tree::{Row, Tree};
use crate::{Dirty, Effect, Write};

impl Apply<'_> {
    /// Writes a key (Consul: KV set and cas). The holder stays, LockIndex becomes 0. `cas` is the ModifyIndex
    /// that the key must have, 0 if it must not exist. Answers whether the key now is as asked for.
    pub(super) fn kv_set(&mut self, key: &Bytes, value: &[u8], flags: u64, cas: Option<u64>) -> bool {
        let old = self.state.kv.rows.get(key).cloned();
        let found = old.as_ref().map_or(0, KvRow::modify_index);
        if cas.is_some_and(|wanted| wanted != found) {
            return false;
        }
        self.end_ttl(key);
        let session = old.as_ref().and_then(KvRow::session);
        self.kv_write(
            key,
            old.as_ref(),
            &KvParts {
                value,
                flags,
                session,
                ..KvParts::default()
            },
        );
        true
    }

    /// Replaces `old`, the present row of `key`, by value, flags, session and LockIndex of `new`; writing what
    /// is there already changes nothing.
    pub(super) fn kv_write(&mut self, key: &Bytes, old: Option<&KvRow>, new: &KvParts<'_>) {
        let same = |old: KvParts<'_>| {
            (old.flags, old.lock_index, old.session, old.value)
                == (new.flags, new.lock_index, new.session, new.value)
        };
        if old.is_some_and(|old| same(old.parts())) {
            return;
        }
        let create_index = old.map_or(self.index, KvRow::create_index);
        let row = KvRow::new(&KvParts {
            key,
            create_index,
            modify_index: self.index,
            ..*new
        });
        self.move_lock(key, old.and_then(KvRow::session), new.session);
        if old.is_none() && !self.state.kv.tombstones.is_empty() {
            self.drop_tombstone(key);
        }
        self.state.kv.rows.insert(row.clone());
        self.state.indexes.kv = self.index;
        self.out.dirty.push(Dirty::Key(key.clone()));
        self.write(Write::Kv(row));
    }

    /// Deletes a key (Consul: KV delete and delete-cas). Answers false only if `cas` names another ModifyIndex
    /// than that of an existing key.
    pub(super) fn kv_delete(&mut self, key: &Bytes, cas: Option<u64>) -> bool {
        let Some(row) = self.state.kv.rows.get(key) else {
            return true;
        };
        if cas.is_some_and(|wanted| wanted != row.modify_index()) {
            return false;
        }
        let row = row.clone();
        self.end_ttl(key);
        self.move_lock(key, row.session(), None);
        self.state.kv.rows.remove(key);
        self.write(Write::KvGone(key.clone()));
        self.add_tombstone(key);
        self.out.dirty.push(Dirty::Key(key.clone()));
        true
    }

    /// Deletes all keys below a prefix (Consul: KV delete-tree). One mark at the prefix takes the place of all
    /// older tombstones and marks below it; "" needs none, since its index is that of the table, and the horizon of
    /// tombstones says that nothing before it is known.
    pub(super) fn kv_delete_tree(&mut self, prefix: &Bytes) {
        let before = self.state.kv.rows.clone();
        // No row is looked at: of a million most would have to be fetched from memory.
        let removed = self.state.kv.rows.remove_prefix(prefix, |_| {});
        if removed == 0 {
            return;
        }
        self.release_below(prefix, &before, removed);
        self.freed_below(prefix);
        self.end_ttls_below(prefix);
        self.write(Write::KvTreeGone(prefix.clone()));
        self.drop_marks_below(prefix);
        if prefix.is_empty() {
            // What was before is forgotten at once.
            self.state.indexes.tombstone_horizon = self.index;
        } else {
            self.state.kv.tree_marks.insert(Mark::new(prefix, self.index));
            let key = reap_key(self.index, Kind::TreeMark, prefix);
            self.state.kv.reap.insert(Mark::new(&key, self.index));
            self.write(Write::TreeMark {
                prefix: prefix.clone(),
                index: self.index,
            });
            self.tombstone_event();
        }
        self.state.indexes.kv = self.index;
        self.state.indexes.tombstones = self.index;
        self.out.dirty.push(Dirty::Tree(prefix.clone()));
    }

    /// Takes the keys below a prefix, which had `count` rows in `before`, out of the table of held keys. Looks through
    /// whichever is the smaller.
    fn release_below(&mut self, prefix: &[u8], before: &Tree<KvRow>, count: usize) {
        const SESSION_BYTES: usize = 16;
        let held = &self.state.kv.held;
        let gone: Vec<Bytes> = if held.len() <= count {
            let is_below = |mark: &&Mark| mark.key()[SESSION_BYTES..].starts_with(prefix);
            let below = held.iter().filter(is_below);
            below.map(|mark| Bytes::copy_from_slice(mark.key())).collect()
        } else {
            let holder = |row: &KvRow| row.session().and_then(SessionId::parse);
            let rows = before.prefix(prefix);
            rows.filter_map(|row| {
                Some(
                    Key::session(holder(row)?)
                        .and_bytes(row.key())
                        .into_bytes()
                        .into(),
                )
            })
            .collect()
        };
        for key in gone {
            self.state.kv.held.remove(&key);
        }
    }

    fn drop_marks_below(&mut self, prefix: &Bytes) {
        let kv = &mut self.state.kv;
        let mut reaped = Vec::new();
        let tombstones = kv.tombstones.remove_prefix(prefix, |row| {
            reaped.push(reap_key(row.index(), Kind::Tombstone, row.key()));
        });
        let marks = kv.tree_marks.remove_prefix(prefix, |row| {
            reaped.push(reap_key(row.index(), Kind::TreeMark, row.key()));
        });
        for key in reaped {
            kv.reap.remove(&key);
        }
        if tombstones > 0 {
            self.write(Write::TombstoneTreeGone(prefix.clone()));
        }
        if marks > 0 {
            self.write(Write::TreeMarkTreeGone(prefix.clone()));
        }
    }

    fn add_tombstone(&mut self, key: &Bytes) {
        self.state.kv.tombstones.insert(Mark::new(key, self.index));
        let reap = reap_key(self.index, Kind::Tombstone, key);
        self.state.kv.reap.insert(Mark::new(&reap, self.index));
        self.state.indexes.kv = self.index;
        self.state.indexes.tombstones = self.index;
        self.write(Write::Tombstone {
            key: key.clone(),
            index: self.index,
        });
        self.tombstone_event();
    }

    /// A key that exists again needs no tombstone: its ModifyIndex is higher.
    fn drop_tombstone(&mut self, key: &Bytes) {
        if let Some(old) = self.state.kv.tombstones.remove(key) {
            self.state
                .kv
                .reap
                .remove(&reap_key(old.index(), Kind::Tombstone, key));
            self.write(Write::TombstoneGone(key.clone()));
        }
    }

    /// Tells the leader once per command that something will have to be reaped.
    fn tombstone_event(&mut self) {
        let effect = Effect::Tombstone { index: self.index };
        if self.out.events.last() != Some(&effect) {
            self.event(effect);
        }
    }

    /// Drops tombstones and tree marks up to and with an index and raises the horizon to the highest of them.
    pub(super) fn reap_tombstones(&mut self, up_to: u64) {
        let due = self.state.kv.reap.iter().take_while(|row| row.index() <= up_to);
        let due: Vec<Mark> = due.cloned().collect();
        for row in &due {
            self.state.kv.reap.remove(row.key());
            let (kind, key) = split_reap_key(row.key());
            let gone = Bytes::copy_from_slice(key);
            match kind {
                Kind::Tombstone => {
                    self.state.kv.tombstones.remove(key);
                    self.write(Write::TombstoneGone(gone));
                }
                Kind::TreeMark => {
                    self.state.kv.tree_marks.remove(key);
                    self.write(Write::TreeMarkGone(gone));
                }
            }
        }
        let horizon = due.last().map_or(0, Row::index);
        self.state.indexes.tombstone_horizon = self.state.indexes.tombstone_horizon.max(horizon);
    }

    /// Keeps the table of held keys in step. Sessions are compared as they were written (rule R13).
    fn move_lock(&mut self, key: &[u8], from: Option<&str>, to: Option<&str>) {
        if from == to {
            return;
        }
        if to.is_none() {
            self.freed(key);
        }
        if let Some(id) = from.and_then(SessionId::parse) {
            self.state.kv.held.remove(&Key::session(id).and_bytes(key));
        }
        if let Some(id) = to.and_then(SessionId::parse) {
            self.state
                .kv
                .held
                .insert(Mark::new(&Key::session(id).and_bytes(key), 0));
        }
    }
}
