//! When tombstones may be reaped: in bins, since each reaping is a log entry.

use std::collections::BTreeMap;

use lictor_proto::limits::{TOMBSTONE_BIN, TOMBSTONE_TTL};
use lictor_proto::{ConsulIndex, MonoTime};

/// The highest tombstone of each bin, by the time at which the bin is due. At most 31 bins.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    bins: BTreeMap<MonoTime, ConsulIndex>,
}

impl Tombstones {
    pub(crate) fn add(&mut self, index: ConsulIndex, now: MonoTime) {
        let bin_ms = u64::try_from(TOMBSTONE_BIN.as_millis()).unwrap_or(u64::MAX);
        let ttl_ms = u64::try_from(TOMBSTONE_TTL.as_millis()).unwrap_or(u64::MAX);
        let due = now
            .plus_ms(ttl_ms)
            .0
            .checked_next_multiple_of(bin_ms)
            .unwrap_or(u64::MAX);
        let highest = self.bins.entry(MonoTime(due)).or_default();
        *highest = index.max(*highest);
    }

    pub(crate) fn due(&mut self, now: MonoTime) -> Option<ConsulIndex> {
        let later = self.bins.split_off(&now.plus_ms(1));
        std::mem::replace(&mut self.bins, later).into_values().max()
    }

    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        self.bins.keys().next().copied()
    }
}
