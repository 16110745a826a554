//! Whether it pays to poll for a moment before a thread sleeps.
//!
//! Waking a sleeping thread takes longer than a small request, several times over on virtual machines. A client that
//! sends its next request as soon as it has the answer makes the server's threads fall asleep and wake again for each
//! one. Polling in between saves that, and is waste when nothing comes. So a [`Linger`] counts how it went: where
//! polling was in vain it is given up, and tried again now and then.

use std::time::{Duration, Instant};

/// The longest that a thread polls: what a write takes on a usual disk, and the way to a client on the same machine
/// and back.
const LONGEST: Duration = Duration::from_micros(500);
/// Above zero polling is worth it; a success counts [`GAIN`], a failure one.
const SCORE_MAX: u8 = 8;
const GAIN: u8 = 2;
/// With a score of zero, one occasion in so many is tried.
const TRY_EVERY: u8 = 32;

/// How polling has gone for one kind of wait of a thread.
#[derive(Debug, Default)]
pub struct Linger {
    score: u8,
    skipped: u8,
}

impl Linger {
    /// Until when to poll on this occasion; `None` where it is not worth it. Followed by [`Self::paid`] or
    /// [`Self::was_in_vain`].
    pub fn until(&mut self, now: Instant) -> Option<Instant> {
        if self.score == 0 {
            self.skipped += 1;
            if self.skipped < TRY_EVERY {
                return None;
            }
            self.skipped = 0;
        }
        Some(now + LONGEST)
    }

    /// What was polled for came.
    pub fn paid(&mut self) {
        self.score = (self.score + GAIN).min(SCORE_MAX);
    }

    /// It did not come in time.
    pub fn was_in_vain(&mut self) {
        self.score = self.score.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(linger: &mut Linger, occasions: u32, pays: bool) -> u32 {
        let now = Instant::now();
        let mut tried = 0;
        for _ in 0..occasions {
            if linger.until(now).is_some() {
                tried += 1;
                if pays {
                    linger.paid();
                } else {
                    linger.was_in_vain();
                }
            }
        }
        tried
    }

    #[test]
    fn polling_in_vain_is_given_up_and_tried_again_now_and_then() {
        let mut linger = Linger::default();
        tried(&mut linger, 100, true);

        let first = tried(&mut linger, 64, false);
        let later = tried(&mut linger, 3200, false);

        assert!(first <= u32::from(SCORE_MAX) + 2, "{first}");
        assert_eq!(later, 100);
    }

    #[test]
    fn polling_that_pays_goes_on() {
        let mut linger = Linger::default();
        tried(&mut linger, u32::from(TRY_EVERY), true);

        assert_eq!(tried(&mut linger, 1000, true), 1000);
    }
}
