//! What operators see of a server: counters and histograms, the pages that show them, and where a slow request spent its
//! time. Does no I/O.
//!
//! Taking a value is one or two relaxed atomic additions to memory that is there already: no lock, no allocation, no
//! text. All formatting is left to whoever reads, who builds a [`Page`] out of [`Family`]s:
//!
//! ```
//! use lictor_telemetry::{Counter, Page};
//!
//! let proposals = Counter::default();
//! proposals.add(3);
//!
//! let mut page = Page::default();
//! page.counter("consul.raft.apply", "Commands that were proposed.", proposals.get());
//! assert!(page.prometheus().ends_with("consul_raft_apply 3\n"));
//! ```

mod histogram;
pub mod journey;
mod limiter;
mod page;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use histogram::{Distribution, Durations, Sizes};
pub use journey::Journey;
pub use limiter::Limiter;
pub use page::{Family, Kind, Page};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Begins at 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// What was counted since the start.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The share of this thread among `shards` copies of a counter, so that threads which count the same seldom do so in the
/// same cache line.
pub fn shard(shards: usize) -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let mut number = NUMBER.get();
    if number == usize::MAX {
        number = THREADS.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(number);
    }
    number % shards
}
