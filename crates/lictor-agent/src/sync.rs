//! Brings the catalog to what the agent says: at once after a change, and all of it now and then.

use std::time::Duration;

use lictor_node::{ProposeError, Topic, Waiter};
use lictor_proto::Command;
use lictor_state::{Area, Outcome};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::Shared;
use crate::reconcile::{self, Wanted};

/// How often everything is compared (Consul: anti-entropy of small clusters).
const FULL_EVERY: Duration = Duration::from_secs(60);
/// How many commands are under way at once.
const COMMANDS_MAX: usize = 64;
/// The wait after the first failure; it doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Runs until the agent stops. After a failure everything is compared again, since a command whose outcome is unknown
/// may or may not have been applied.
pub(crate) async fn run(shared: &Shared) {
    let mut retry = RETRY_FIRST;
    let mut full_at = Instant::now();
    // No node has this name, so that only a restore wakes it: then nothing of this server may be in the catalog.
    let restored = shared.node.watches().register(&[Topic::Row(Area::Node, b"\0")]);
    let mut restored = restored.ok();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep_until(full_at) => {}
            () = shared.wake_sync.notified() => {}
            () = woken(&mut restored) => full_at = Instant::now(),
        }
        let is_full = Instant::now() >= full_at;
        match if is_full {
            everything(shared).await
        } else {
            what_changed(shared).await
        } {
            Ok(()) if is_full => {
                retry = RETRY_FIRST;
                full_at = Instant::now() + FULL_EVERY;
            }
            Ok(()) => {}
            Err(ProposeError::Stopping) => return,
            Err(error) => {
                tracing::debug!(%error, ?retry, "the catalog could not be brought up to date");
                full_at = Instant::now() + retry;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Without a waiter, which only a crowd of them can cause, the next full comparison has to do.
async fn woken(waiter: &mut Option<Waiter>) {
    match waiter {
        Some(waiter) => waiter.changed().await,
        None => std::future::pending().await,
    }
}

/// Registers the server itself, as soon as somebody leads.
///
/// # Errors
/// [`ProposeError::Stopping`].
pub(crate) async fn register_own(shared: &Shared) -> Result<(), ProposeError> {
    let mut retry = RETRY_FIRST;
    loop {
        match propose_own(shared).await {
            Err(error) if !matches!(error, ProposeError::Stopping) => {
                tracing::debug!(%error, ?retry, "this server could not be registered");
            }
            done => return done,
        }
        tokio::select! {
            () = shared.stop.cancelled() => return Err(ProposeError::Stopping),
            () = tokio::time::sleep(retry) => retry = (retry * 2).min(RETRY_MAX),
        }
    }
}

async fn propose_own(shared: &Shared) -> Result<(), ProposeError> {
    let commands = reconcile::own_registration(&shared.own, &shared.node.view());
    for command in commands {
        propose(&shared.node, command).await?;
    }
    Ok(())
}

async fn everything(shared: &Shared) -> Result<(), ProposeError> {
    propose_own(shared).await?;
    let view = shared.node.view();
    let wanted = {
        let mut local = shared.local.lock();
        // What changed until now is part of the whole.
        local.take_pending();
        Wanted::all(&local, &shared.own, &view)
    };
    propose_all(shared, wanted.commands(&shared.own, &view)).await
}

async fn what_changed(shared: &Shared) -> Result<(), ProposeError> {
    let wanted = {
        let mut local = shared.local.lock();
        let pending = local.take_pending();
        Wanted::of(&pending, &local)
    };
    // Taken after the local rows: a view from before them could hide that the catalog has an older row already.
    propose_all(shared, wanted.commands(&shared.own, &shared.node.view())).await
}

/// Proposes commands that do not depend on each other, and answers the first failure after all have ended.
async fn propose_all(shared: &Shared, commands: Vec<Command>) -> Result<(), ProposeError> {
    let mut under_way = JoinSet::new();
    let mut result = Ok(());
    for command in commands {
        if under_way.len() >= COMMANDS_MAX
            && let Some(Ok(done)) = under_way.join_next().await
        {
            result = result.and(done);
        }
        if result.is_err() {
            break;
        }
        let node = shared.node.clone();
        under_way.spawn(async move { propose(&node, command).await });
    }
    while let Some(done) = under_way.join_next().await {
        if let Ok(done) = done {
            result = result.and(done);
        }
    }
    result
}

/// Proposes one command. A refusal by the state machine is logged and tried again with the next full comparison.
async fn propose(node: &lictor_node::Node, command: Command) -> Result<(), ProposeError> {
    let what = described(&command);
    if let Outcome::Failed(error) = node.propose(command).await? {
        tracing::warn!(what, %error, "the catalog refused a registration of this agent");
    } else {
        tracing::debug!(what, "the catalog was brought up to date");
    }
    Ok(())
}

/// What a command is about, for the log.
fn described(command: &Command) -> String {
    match command {
        Command::Register(register) => match (&register.service, register.checks.first()) {
            (Some(service), _) => format!("service {}", service.id),
            (None, Some(check)) => format!("check {}", check.check_id),
            (None, None) => "node".to_owned(),
        },
        Command::Deregister(gone) if !gone.check_id.is_empty() => format!("no check {}", gone.check_id),
        Command::Deregister(gone) => format!("no service {}", gone.service_id),
        _ => String::new(),
    }
}
