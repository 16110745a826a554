//! When recent entries went through the stages of the pipeline: kept so that a write that took long can be told where
//! its time went.
//!
//! The stages store a few numbers for each entry and nobody reads them unless something was slow. What a reader finds is
//! whole for whoever waited for the entry, since the answer came after all that is stored for it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Entries that are remembered. Of one that was overtaken by so many nothing is known.
const KEPT: usize = 4096;

#[derive(Debug)]
pub(crate) struct Passages {
    start: Instant,
    ring: Box<[Stamps]>,
}

/// Microseconds since the start, which wrap; 0 where something has not happened.
#[derive(Debug, Default)]
struct Stamps {
    index: AtomicU64,
    taken: AtomicU32,
    log_from: AtomicU32,
    log_to: AtomicU32,
    apply_from: AtomicU32,
    apply_to: AtomicU32,
}

/// Where a write spent its time on this server, in order. What is not known is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// From the raft thread's hands to the end of the whole.
    pub since_taken: Duration,
    /// Behind earlier batches of the log.
    pub log_wait: Duration,
    /// Written and synced.
    pub log: Duration,
    /// For other servers, and for the apply stage.
    pub commit: Duration,
    /// Applied and published, with the entries beside it.
    pub apply: Duration,
}

impl Passages {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            ring: (0..KEPT).map(|_| Stamps::default()).collect(),
        }
    }

    /// The raft thread has made entries `first..=last`.
    pub(crate) fn taken(&self, first: u64, last: u64, at: Instant) {
        let at = self.micros(at);
        for index in first..=last {
            let stamps = self.stamps(index);
            for stamp in [
                &stamps.log_from,
                &stamps.log_to,
                &stamps.apply_from,
                &stamps.apply_to,
            ] {
                stamp.store(0, Ordering::Relaxed);
            }
            stamps.taken.store(at, Ordering::Relaxed);
            stamps.index.store(index, Ordering::Relaxed);
        }
    }

    /// They are in the log, and durable there.
    pub(crate) fn logged(&self, first: u64, last: u64, from: Instant, to: Instant) {
        let (from, to) = (self.micros(from), self.micros(to));
        for index in first..=last {
            let stamps = self.stamps(index);
            stamps.log_from.store(from, Ordering::Relaxed);
            stamps.log_to.store(to, Ordering::Relaxed);
        }
    }

    /// They were applied with what came with them, and published.
    pub(crate) fn applied(&self, first: u64, last: u64, from: Instant, to: Instant) {
        let (from, to) = (self.micros(from), self.micros(to));
        for index in first.max(last.saturating_sub(KEPT as u64))..=last {
            let stamps = self.stamps(index);
            stamps.apply_from.store(from, Ordering::Relaxed);
            stamps.apply_to.store(to, Ordering::Relaxed);
        }
    }

    /// What is known of an entry whose answer came at `end`.
    pub(crate) fn of(&self, index: u64, end: Instant) -> Option<Passage> {
        let stamps = self.stamps(index);
        if index == 0 || stamps.index.load(Ordering::Relaxed) != index {
            return None;
        }
        let taken = stamps.taken.load(Ordering::Relaxed);
        let (log_from, log_to) = loaded(&stamps.log_from, &stamps.log_to);
        let (apply_from, apply_to) = loaded(&stamps.apply_from, &stamps.apply_to);
        Some(Passage {
            since_taken: between(taken, self.micros(end)),
            log_wait: between(taken, log_from),
            log: between(log_from, log_to),
            commit: between(log_to, apply_from),
            apply: between(apply_from, apply_to),
        })
    }

    fn stamps(&self, index: u64) -> &Stamps {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
        &self.ring[(index % KEPT as u64) as usize]
    }

    fn micros(&self, at: Instant) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "wraps")]
        let micros = at.saturating_duration_since(self.start).as_micros() as u32;
        micros.max(1)
    }
}

fn loaded(from: &AtomicU32, to: &AtomicU32) -> (u32, u32) {
    (from.load(Ordering::Relaxed), to.load(Ordering::Relaxed))
}

/// Nothing between something that has not happened and anything else, or if the order is another.
fn between(from: u32, to: u32) -> Duration {
    let micros = to.wrapping_sub(from);
    if from == 0 || to == 0 || micros > u32::MAX / 2 {
        return Duration::ZERO;
    }
    Duration::from_micros(micros.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_known_stage_by_stage_until_it_is_overtaken() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let passages = Passages::new(start);
        passages.taken(7, 8, at(10));
        passages.logged(7, 8, at(12), at(20));

        let known = passages.of(8, at(50)).unwrap();
        assert_eq!(
            (known.log_wait, known.log),
            (Duration::from_millis(2), Duration::from_millis(8))
        );
        assert_eq!((known.commit, known.apply), (Duration::ZERO, Duration::ZERO));

        passages.applied(7, 8, at(40), at(41));
        let known = passages.of(7, at(50)).unwrap();
        assert_eq!(known.since_taken, Duration::from_millis(40));
        assert_eq!(
            (known.commit, known.apply),
            (Duration::from_millis(20), Duration::from_millis(1))
        );

        passages.taken(7 + KEPT as u64, 7 + KEPT as u64, at(60));
        assert_eq!(passages.of(7, at(61)), None);
        assert_eq!(passages.of(0, at(61)), None);
    }

    #[test]
    fn times_that_wrap_are_still_apart() {
        assert_eq!(between(u32::MAX - 1, 8), Duration::from_micros(10));
        assert_eq!(between(9, 8), Duration::ZERO);
    }
}
