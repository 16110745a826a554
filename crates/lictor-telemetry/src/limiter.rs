//! A bound on lines of the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets a few through in each span of time, and counts the rest.
#[derive(Debug)]
pub struct Limiter {
    most: u32,
    span: Duration,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Limiter {
    /// At most `most` in each `span`.
    pub const fn new(most: u32, span: Duration) -> Self {
        let window = Window {
            since: None,
            passed: 0,
            held_back: 0,
        };
        Self {
            most,
            span,
            window: Mutex::new(window),
        }
    }

    /// Whether one more may pass; if so, how many were held back since the last that did.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock();
        let is_over = |since: Instant| now.saturating_duration_since(since) >= self.span;
        if window.since.is_none_or(is_over) {
            window.since = Some(now);
            window.passed = 0;
        }
        if window.passed >= self.most {
            window.held_back += 1;
            return None;
        }
        window.passed += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_gets_a_few_through_and_the_next_one_tells_of_the_rest() {
        let (limiter, start) = (Limiter::new(2, Duration::from_secs(10)), Instant::now());
        let passed = |seconds| limiter.pass(start + Duration::from_secs(seconds));

        assert_eq!(
            [passed(0), passed(1), passed(2), passed(9)],
            [Some(0), Some(0), None, None]
        );
        assert_eq!([passed(10), passed(11), passed(12)], [Some(2), Some(0), None]);
    }
}
