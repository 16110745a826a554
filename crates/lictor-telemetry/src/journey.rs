//! Where the request at work on this thread spends its time.
//!
//! Whoever polls a request enters its [`Journey`] for as long as the poll lasts ([`enter`]); whoever waits for something
//! on behalf of a request notes it ([`add`]), without knowing whose it is. Only what waits does so: a request that waits
//! for nothing notes nothing.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What a request may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The rest of the request's body.
    Body,
    /// A leader that takes a write.
    Leader,
    /// Room among the proposals.
    Room,
    /// The leader's answer to a write that was passed on to it.
    Forward,
    /// The proof that a read is fresh.
    Gate,
    /// A change that the client waits for; no time of the server's.
    Change,
}

const STAGES: usize = 6;

/// What was noted of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Journey {
    /// The entry of the last write that was made here for it; 0 without one.
    pub index: u64,
    micros: [u32; STAGES],
}

impl Journey {
    /// How long the request waited for something.
    pub fn waited(&self, stage: Stage) -> Duration {
        Duration::from_micros(self.micros[stage as usize].into())
    }
}

thread_local! {
    static CURRENT: Cell<Journey> = const {
        Cell::new(Journey { index: 0, micros: [0; STAGES] })
    };
}

/// Runs one poll of a request.
pub fn enter<T>(journey: &mut Journey, poll: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(*journey);
    let done = poll();
    *journey = CURRENT.replace(outer);
    done
}

/// The request at work on this thread waited for something.
pub fn add(stage: Stage, waited: Duration) {
    let mut journey = CURRENT.get();
    let micros = &mut journey.micros[stage as usize];
    *micros = micros.saturating_add(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
    CURRENT.set(journey);
}

/// Begins to wait for something, until this is dropped, on behalf of the request at work on this thread.
pub fn waiting(stage: Stage) -> Waiting {
    Waiting {
        stage,
        since: Instant::now(),
    }
}

/// See [`waiting`]. Dropped by a request that is given up it notes nothing that counts.
#[derive(Debug)]
#[must_use = "it notes the time until it is dropped"]
pub struct Waiting {
    stage: Stage,
    since: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        add(self.stage, self.since.elapsed());
    }
}

/// The request at work on this thread has made a write.
pub fn wrote(index: u64) {
    let mut journey = CURRENT.get();
    journey.index = index;
    CURRENT.set(journey);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_notes_its_own() {
        let (mut outer, mut inner) = (Journey::default(), Journey::default());

        enter(&mut outer, || {
            add(Stage::Gate, Duration::from_micros(5));
            enter(&mut inner, || wrote(7));
            add(Stage::Gate, Duration::from_micros(2));
        });
        add(Stage::Body, Duration::from_secs(1));

        assert_eq!(outer.waited(Stage::Gate), Duration::from_micros(7));
        assert_eq!((outer.index, inner.index), (0, 7));
        assert_eq!(outer.waited(Stage::Body), Duration::ZERO);
    }
}
