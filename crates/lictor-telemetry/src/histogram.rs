//! Histograms with fixed bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`Durations`], in nanoseconds: from 10 microseconds to 10 seconds.
const BOUNDS_NS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// The same in seconds, as they are shown.
const BOUNDS_S: [f64; 19] = [
    0.00001, 0.000_025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Upper bounds of the buckets of [`Sizes`].
const BOUNDS_SIZES: [u64; 14] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];
/// The same as they are shown.
const BOUNDS_SIZES_SHOWN: [f64; 14] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];

/// How long something took.
#[derive(Debug, Default)]
pub struct Durations(Buckets<20>);

/// How much something was.
#[derive(Debug, Default)]
pub struct Sizes(Buckets<15>);

/// One bucket more than there are bounds, for what is above the last; and the sum of all values.
#[derive(Debug)]
struct Buckets<const N: usize> {
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; N],
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Buckets<N> {
    fn take(&self, bounds: &[u64], value: u64) {
        let bucket = bounds.partition_point(|bound| *bound < value).min(N - 1);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a sum beyond 2^53 may be shown rounded"
    )]
    fn read(&self, bounds: &'static [f64], unit: f64) -> Distribution {
        Distribution {
            bounds,
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / unit,
        }
    }
}

impl Durations {
    /// Takes one duration in.
    pub fn take(&self, took: Duration) {
        self.0
            .take(&BOUNDS_NS, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was taken in, in seconds.
    pub fn read(&self) -> Distribution {
        self.0.read(&BOUNDS_S, 1e9)
    }
}

impl Sizes {
    /// Takes one size in.
    pub fn take(&self, size: usize) {
        self.0.take(&BOUNDS_SIZES, size as u64);
    }

    /// What was taken in.
    pub fn read(&self) -> Distribution {
        self.0.read(&BOUNDS_SIZES_SHOWN, 1.0)
    }
}

/// A histogram as it was read at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Upper bounds of all buckets but the last.
    pub(crate) bounds: &'static [f64],
    /// How many values each bucket has.
    pub(crate) counts: Vec<u64>,
    /// The sum of all values.
    pub(crate) sum: f64,
}

impl Distribution {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another of the same kind has.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// For each bound how many values are not above it; the last one, of all values, has the bound infinity.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().scan(0, |below, count| {
            *below += count;
            Some(*below)
        }))
    }

    /// Between which values a bucket is; the last has no upper end and answers its lower one twice.
    fn range(&self, bucket: usize) -> (f64, f64) {
        let low = match bucket {
            0 => 0.0,
            _ => self.bounds[bucket - 1],
        };
        (low, self.bounds.get(bucket).copied().unwrap_or(low))
    }

    /// Bounds between which all values are: as near to the smallest and the largest as the buckets tell.
    pub(crate) fn extent(&self) -> (f64, f64) {
        let filled = |count: &u64| *count > 0;
        let first = self.counts.iter().position(filled);
        let last = self.counts.iter().rposition(filled);
        match (first, last) {
            (Some(first), Some(last)) => (self.range(first).0, self.range(last).1),
            _ => (0.0, 0.0),
        }
    }

    /// The standard deviation, as if all values were in the middle of their buckets.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn deviation(&self) -> f64 {
        let count = self.count();
        if count == 0 {
            return 0.0;
        }
        let mean = self.sum / count as f64;
        let squares = self.counts.iter().enumerate().map(|(bucket, count)| {
            let (low, high) = self.range(bucket);
            *count as f64 * (f64::midpoint(low, high) - mean).powi(2)
        });
        (squares.sum::<f64>() / count as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_below_it() {
        let durations = Durations::default();
        for took in [
            Duration::ZERO,
            Duration::from_micros(10),
            Duration::from_nanos(10_001),
            Duration::from_secs(10),
            Duration::from_secs(11),
        ] {
            durations.take(took);
        }

        let read = durations.read();

        assert_eq!((read.counts[0], read.counts[1]), (2, 1));
        assert_eq!((read.counts[18], read.counts[19]), (1, 1));
        assert_eq!(read.count(), 5);
        assert!((read.sum - 21.000_020_001).abs() < 1e-9);
        assert_eq!(read.cumulative().last(), Some((f64::INFINITY, 5)));
    }

    #[test]
    fn what_is_shown_is_what_is_compared() {
        for (ns, seconds) in BOUNDS_NS.iter().zip(BOUNDS_S) {
            assert_eq!(Duration::from_nanos(*ns), Duration::from_secs_f64(seconds));
        }
        for (size, shown) in BOUNDS_SIZES.iter().zip(BOUNDS_SIZES_SHOWN) {
            assert_eq!(size.to_string(), shown.to_string());
        }
    }

    #[test]
    fn two_distributions_add_up() {
        let (a, b) = (Sizes::default(), Sizes::default());
        a.take(1);
        b.take(9000);
        b.take(3);

        let mut both = a.read();
        both.merge(&b.read());

        assert_eq!(both.count(), 3);
        assert!((both.sum - 9004.0).abs() < f64::EPSILON);
        assert_eq!(both.extent(), (0.0, 8192.0));
        assert!(both.deviation() > 0.0);
    }
}
