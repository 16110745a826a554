//! TTLs of keys.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use lictor_proto::v1::{KvTtlRef, KvTtlRow};
use lictor_proto::{ConsulIndex, MonoTime};

use crate::{NAMES_MAX_BYTES, PROPOSE_AGAIN_MS, slot};

/// The keys that are to be deleted, by when.
#[derive(Debug, Default)]
pub(crate) struct Ttls {
    by_key: HashMap<Bytes, Ttl>,
    due: BTreeSet<(MonoTime, Bytes)>,
}

#[derive(Debug)]
struct Ttl {
    /// Names the write: only its TTL is ended.
    set_index: ConsulIndex,
    /// Where it stands in `due`.
    armed: MonoTime,
}

impl Ttls {
    /// Arms all with their full length, since when they began is not known here.
    pub(crate) fn armed(now: MonoTime, rows: impl IntoIterator<Item = KvTtlRow>) -> Self {
        let mut ttls = Self::default();
        for row in rows {
            ttls.set(row.key, ConsulIndex(row.set_index), row.ttl_ms, now);
        }
        ttls
    }

    /// The later write counts, whichever ends first.
    pub(crate) fn set(&mut self, key: Bytes, set_index: ConsulIndex, ttl_ms: u64, now: MonoTime) {
        let armed = slot(now.plus_ms(ttl_ms));
        if let Some(old) = self.by_key.insert(key.clone(), Ttl { set_index, armed }) {
            self.due.remove(&(old.armed, key.clone()));
        }
        self.due.insert((armed, key));
    }

    pub(crate) fn gone(&mut self, key: &Bytes, set_index: ConsulIndex) {
        if self.by_key.get(key).is_some_and(|ttl| ttl.set_index <= set_index)
            && let Some(ttl) = self.by_key.remove(key)
        {
            self.due.remove(&(ttl.armed, key.clone()));
        }
    }

    /// At most `max` whose time is over.
    pub(crate) fn over(&mut self, now: MonoTime, max: usize) -> Vec<KvTtlRef> {
        let (mut over, mut names_bytes) = (Vec::new(), 0);
        while over.len() < max
            && let Some((_, key)) = self.due.first().filter(|(at, _)| *at <= now).cloned()
            && (over.is_empty() || names_bytes + key.len() <= NAMES_MAX_BYTES)
        {
            names_bytes += key.len();
            self.due.pop_first();
            let Some(ttl) = self.by_key.get_mut(&key) else {
                continue;
            };
            over.push(KvTtlRef {
                key: key.clone(),
                set_index: ttl.set_index.0,
            });
            ttl.armed = slot(now.plus_ms(PROPOSE_AGAIN_MS));
            self.due.insert((ttl.armed, key));
        }
        over
    }

    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _)| *at)
    }
}
