//! Lock-delays.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use lictor_proto::v1::LockDelayRef;
use lictor_proto::{ConsulIndex, MonoTime};

use crate::{NAMES_MAX_BYTES, PROPOSE_AGAIN_MS, slot};

/// The keys that may not be locked for a while, and those whose delay ended but still has its row.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    by_key: HashMap<Bytes, Delay>,
    due: BTreeSet<(MonoTime, Bytes)>,
}

#[derive(Debug)]
struct Delay {
    /// Names the row: only that one is ended.
    set_index: ConsulIndex,
    end: MonoTime,
    /// Where it stands in `due`.
    armed: MonoTime,
}

impl Delays {
    /// The later of two ends on one key counts (rule R15).
    pub(crate) fn set(&mut self, key: Bytes, set_index: ConsulIndex, delay_ms: u64, now: MonoTime) {
        let mut delay = Delay {
            set_index,
            end: now.plus_ms(delay_ms),
            armed: MonoTime::default(),
        };
        if let Some(old) = self.by_key.remove(&key) {
            self.due.remove(&(old.armed, key.clone()));
            delay.set_index = delay.set_index.max(old.set_index);
            delay.end = delay.end.max(old.end);
        }
        delay.armed = slot(delay.end);
        self.due.insert((delay.armed, key.clone()));
        self.by_key.insert(key, delay);
    }

    /// Nothing, if a later delay was set on the key.
    pub(crate) fn gone(&mut self, key: &Bytes, set_index: ConsulIndex) {
        if let Some(delay) = self.by_key.get(key).filter(|delay| delay.set_index <= set_index) {
            self.due.remove(&(delay.armed, key.clone()));
            self.by_key.remove(key);
        }
    }

    pub(crate) fn runs(&self, key: &[u8], now: MonoTime) -> bool {
        self.by_key.get(key).is_some_and(|delay| now < delay.end)
    }

    /// For how many milliseconds a delay on the key still runs; 0 if none does.
    pub(crate) fn left_ms(&self, key: &[u8], now: MonoTime) -> u64 {
        self.by_key.get(key).map_or(0, |delay| delay.end.ms_since(now))
    }

    pub(crate) fn over(&mut self, now: MonoTime, max: usize) -> Vec<LockDelayRef> {
        let (mut over, mut names_bytes) = (Vec::new(), 0);
        while over.len() < max
            && let Some((_, key)) = self.due.first().filter(|(at, _)| *at <= now).cloned()
            && (over.is_empty() || names_bytes + key.len() <= NAMES_MAX_BYTES)
        {
            names_bytes += key.len();
            self.due.pop_first();
            let Some(delay) = self.by_key.get_mut(&key) else {
                continue;
            };
            over.push(LockDelayRef {
                key: key.clone(),
                set_index: delay.set_index.0,
            });
            delay.armed = slot(now.plus_ms(PROPOSE_AGAIN_MS));
            self.due.insert((delay.armed, key));
        }
        over
    }

    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _)| *at)
    }
}
