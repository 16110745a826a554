//! When things of an index and before have lasted their time: in bins, since each end is a log entry.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_proto::{ConsulIndex, MonoTime};

/// The highest index of each bin, by the time at which the bin is due.
#[derive(Debug)]
pub(crate) struct Bins {
    ttl_ms: u64,
    bin_ms: u64,
    by_time: BTreeMap<MonoTime, ConsulIndex>,
}

impl Bins {
    /// For what lasts `ttl`, and ends together with all else of the same `bin`.
    pub(crate) fn new(ttl: Duration, bin: Duration) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            ttl_ms: ms(ttl),
            bin_ms: ms(bin),
            by_time: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, index: ConsulIndex, now: MonoTime) {
        let due = now
            .plus_ms(self.ttl_ms)
            .0
            .checked_next_multiple_of(self.bin_ms)
            .unwrap_or(u64::MAX);
        let highest = self.by_time.entry(MonoTime(due)).or_default();
        *highest = index.max(*highest);
    }

    pub(crate) fn due(&mut self, now: MonoTime) -> Option<ConsulIndex> {
        let later = self.by_time.split_off(&now.plus_ms(1));
        std::mem::replace(&mut self.by_time, later).into_values().max()
    }

    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        self.by_time.keys().next().copied()
    }
}
