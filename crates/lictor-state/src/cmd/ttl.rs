//! Keys that are deleted after a while. The leader's clock decides when, and says so by a command that names the write it
//! means: a later write of the key, whatever it is, has ended that TTL.

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::v1::{self, KvTtlRow};

use super::Apply;
use crate::row::Entry;
use crate::{Effect, Write};

impl Apply<'_> {
    /// Writes a key as [`Self::kv_set`] does, and sets its TTL; also where the key is as asked for already, so that
    /// writing it again and again keeps it without a change that anybody wakes for.
    pub(super) fn kv_set_ttl(&mut self, command: &v1::KvSetTtl) -> bool {
        let Some(set) = &command.set else { return false };
        if !self.kv_set(&set.key, &set.value, set.flags, set.cas) {
            return false;
        }
        let row = KvTtlRow {
            key: Bytes::copy_from_slice(&set.key),
            set_index: self.index,
            ttl_ms: command.ttl_ms,
        };
        let entry = Entry::new(&row.key, Arc::new(row.clone()));
        self.state.kv.ttls.insert(entry);
        self.event(Effect::KvTtl {
            key: row.key.clone(),
            set_index: row.set_index,
            ttl_ms: row.ttl_ms,
        });
        self.write(Write::KvTtl(row));
        true
    }

    /// Deletes the keys whose TTLs ran out, but none that was written since.
    pub(super) fn kv_ttl_over(&mut self, over: &v1::KvTtlOver) {
        for ended in &over.ttls {
            let ttl = self.state.kv.ttls.get(&ended.key);
            if ttl.is_some_and(|ttl| ttl.row.set_index == ended.set_index) {
                self.kv_delete(&ended.key, None);
            }
        }
    }

    /// Ends the TTL of a key that is written or deleted.
    pub(super) fn end_ttl(&mut self, key: &Bytes) {
        if self.state.kv.ttls.is_empty() {
            return;
        }
        if let Some(gone) = self.state.kv.ttls.remove(key) {
            self.event(Effect::KvTtlGone {
                key: key.clone(),
                set_index: gone.row.set_index,
            });
            self.write(Write::KvTtlGone(key.clone()));
        }
    }

    /// Ends the TTLs of all keys below a prefix.
    pub(super) fn end_ttls_below(&mut self, prefix: &Bytes) {
        let mut gone = Vec::new();
        self.state.kv.ttls.remove_prefix(prefix, |entry| {
            gone.push(Effect::KvTtlGone {
                key: entry.row.key.clone(),
                set_index: entry.row.set_index,
            });
        });
        if !gone.is_empty() {
            self.out.events.append(&mut gone);
            self.write(Write::KvTtlTreeGone(prefix.clone()));
        }
    }
}
