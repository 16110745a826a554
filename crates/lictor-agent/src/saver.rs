//! Writes the health of checks to disk as it changes, and a sign of life while TTLs are fed.

use std::time::Duration;

use crate::agent::Shared;
use crate::store::StoredCheck;

/// How often a sign of life is written, which is also how exactly a TTL goes on after a crash.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Runs until the agent stops, and writes what is left then.
pub(crate) async fn run(shared: &Shared) {
    let mut alive = tokio::time::interval(ALIVE_EVERY);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => break,
            _ = alive.tick() => save_alive(shared).await,
            () = shared.wake_saver.notified() => save(shared).await,
        }
    }
    save(shared).await;
    save_alive(shared).await;
}

async fn save(shared: &Shared) {
    // With the turn in hand nobody deregisters a check between its being taken and its being written.
    let _turn = shared.registrations.lock().await;
    let unsaved: Vec<StoredCheck> = shared
        .local
        .lock()
        .take_unsaved()
        .iter()
        .map(StoredCheck::from)
        .collect();
    if unsaved.is_empty() {
        return;
    }
    let saved = shared
        .on_disk(move |store| unsaved.iter().try_for_each(|check| store.save_check(check)))
        .await;
    if let Err(error) = saved {
        tracing::error!(%error, "the health of checks could not be written");
    }
}

async fn save_alive(shared: &Shared) {
    if !shared.local.lock().take_fed() {
        return;
    }
    let saved = shared.on_disk(crate::store::Store::save_alive).await;
    if let Err(error) = saved {
        tracing::error!(%error, "the sign of life could not be written");
    }
}
