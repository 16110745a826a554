//! Sleeps until the next deadline of any check, then runs it, lets it lapse or removes its service. One task and one
//! timer for all checks; only runs under way have a task of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::agent::Shared;
use crate::definition::{CheckDefinition, CheckKind};
use crate::local::Action;
use crate::run::{self, Finding};

/// How many checks run at once.
const RUNS_MAX: usize = 128;
/// How long a check waits that was due while too many ran.
const BUSY_DELAY: Duration = Duration::from_millis(100);
/// How many deadlines are dealt with before others get the lock.
const DEADLINES_PER_TURN: usize = 256;

/// A run that ended: which check, of which registration, and what it found.
type Ran = (String, u64, Finding);

/// Runs until the agent stops; runs under way are dropped then.
pub(crate) async fn run(shared: &Shared) {
    let mut runs: JoinSet<Ran> = JoinSet::new();
    loop {
        let actions = shared.change(|local| local.due(Instant::now(), DEADLINES_PER_TURN));
        for action in actions {
            act(shared, &mut runs, action).await;
        }
        let next = shared.local.lock().arm();
        let sleep = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep => {}
            () = shared.wake_runner.notified() => {}
            Some(ran) = runs.join_next() => {
                if let Ok((id, generation, Finding { health, output })) = ran {
                    shared.change(|local| local.ran(&id, generation, health, &output, Instant::now()));
                }
            }
        }
    }
}

async fn act(shared: &Shared, runs: &mut JoinSet<Ran>, action: Action) {
    match action {
        Action::Run { id, generation, .. } if runs.len() >= RUNS_MAX => {
            shared.change(|local| local.run_later(id, generation, Instant::now() + BUSY_DELAY));
        }
        Action::Run {
            id,
            generation,
            definition,
        } => {
            if let CheckKind::Alias(alias) = &definition.kind {
                let Finding { health, output } = shared.follow(&id, alias);
                shared.change(|local| local.ran(&id, generation, health, &output, Instant::now()));
                return;
            }
            runs.spawn(one(id, generation, definition, shared.output_max_bytes));
        }
        Action::Removed { service, checks } => {
            tracing::info!(service, "a service was critical for too long and was removed");
            let _turn = shared.registrations.lock().await;
            shared.services_changed();
            // It may have been registered again meanwhile; then its files are those of the new registration.
            if shared.local.lock().services().contains_key(&service) {
                return;
            }
            if let Err(error) = shared.forget_service(service, checks).await {
                tracing::error!(%error, "the files of a removed service could not be removed");
            }
        }
    }
}

async fn one(id: String, generation: u64, definition: Arc<CheckDefinition>, output_max_bytes: usize) -> Ran {
    let finding = run::run(&definition, output_max_bytes).await;
    (id, generation, finding)
}
