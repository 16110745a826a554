//! When a peer was last heard of, and how far away it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What is known of a peer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerHealth {
    /// Whether calls and raft messages have a connection.
    pub connected: bool,
    /// How long ago anything came from it; none if nothing ever did.
    pub last_heard: Option<Duration>,
    /// How long the last sign of life took there and back; none before the first.
    pub round_trip: Option<Duration>,
}

/// Times are microseconds since `base`; 0 means never.
#[derive(Debug)]
pub(crate) struct Contact {
    base: Instant,
    heard: AtomicU64,
    round_trip: AtomicU64,
    connected: AtomicBool,
}

impl Contact {
    pub(crate) fn new() -> Self {
        Self {
            base: Instant::now(),
            heard: AtomicU64::new(0),
            round_trip: AtomicU64::new(0),
            connected: AtomicBool::new(false),
        }
    }

    /// Now, as a number that can travel. Not 0.
    pub(crate) fn stamp(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Something came from the peer.
    pub(crate) fn heard(&self) {
        self.heard.store(self.stamp(), Relaxed);
    }

    /// A ping came back.
    pub(crate) fn pong(&self, stamp: u64) {
        let round_trip = self.stamp().saturating_sub(stamp).max(1);
        self.round_trip.store(round_trip, Relaxed);
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Relaxed);
    }

    fn last_heard(&self) -> Option<Duration> {
        let heard = self.heard.load(Relaxed);
        (heard > 0).then(|| Duration::from_micros(self.stamp().saturating_sub(heard)))
    }

    pub(crate) fn health(&self) -> PeerHealth {
        let round_trip = self.round_trip.load(Relaxed);
        PeerHealth {
            connected: self.connected.load(Relaxed),
            last_heard: self.last_heard(),
            round_trip: (round_trip > 0).then(|| Duration::from_micros(round_trip)),
        }
    }
}
