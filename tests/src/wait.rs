//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until `condition` answers something, at most for `limit`.
///
/// # Errors
/// When the limit is over, with what the condition last complained of.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        let seen = condition();
        if let Ok(Some(value)) = seen {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return match seen {
                Err(error) => Err(error).with_context(|| format!("waited {limit:?} for {what}")),
                Ok(_) => bail!("waited {limit:?} for {what}"),
            };
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
