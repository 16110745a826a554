//! `lock`: runs a command while a lock is held.
//!
//! ```text
//! session ─> acquire ─> child runs ──────────────────────────> release ─> session ends ─> lock's key removed
//!    └─ renewal, in the background; with a watch on the lock it tells of a loss, and then the child is ended
//! ```
//!
//! The keys are laid out as Consul's clients do it, so that holders of either kind exclude each other.

mod holder;
mod mutex;
mod semaphore;
mod session;

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;

use super::process::{self, GRACE, Stops};
use super::{Exit, Failure, Ui, query_failed};
use crate::args::lock::LockArgs;
use crate::client::{Call, Client, ClientError};
use holder::{Cleanup, Holder};
use session::Session;

/// The exit code with `-child-exit-code` when the command failed.
const CHILD_FAILED: u8 = 2;
/// Longest time for giving the lock back; a server that does not answer will end the session by itself.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error("failed to {doing}: {source}")]
    Client {
        doing: &'static str,
        source: ClientError,
    },
    #[error("Existing key does not match lock use")]
    OtherUse,
    #[error("semaphore limit conflict (lock: {theirs}, local: {ours})")]
    OtherLimit { theirs: u64, ours: u64 },
    #[error("failed to make contender entry")]
    NoContender,
    #[error("cannot read the lock: {0}")]
    Unreadable(String),
    #[error("no answer within {}s", RELEASE_TIMEOUT.as_secs())]
    TimedOut,
}

impl LockError {
    /// For `map_err`.
    fn when(doing: &'static str) -> impl FnOnce(ClientError) -> Self {
        move |source| Self::Client { doing, source }
    }
}

/// What is to be done, checked.
struct Plan {
    prefix: String,
    child: Vec<String>,
    limit: u64,
    retries: u32,
    timeout: Option<Duration>,
    args: LockArgs,
}

pub(crate) async fn run(args: LockArgs, ui: &mut Ui<'_>) -> Exit {
    let plan = Plan::new(args)?;
    let mut client = ui.client(&plan.args.client)?;
    client.send(Call::get("agent/self")).await.map_err(query_failed)?;
    let mut stops = Stops::new()?;
    let place = if plan.limit == 1 {
        format!("lock at path: {}", plan.key())
    } else {
        format!("semaphore (limit {}) at prefix: {}", plan.limit, plan.prefix)
    };
    plan.tell(ui, format_args!("Setting up {place}"))?;
    plan.tell(ui, "Attempting lock acquisition")?;
    let session = Session::create(&mut client, &plan.session_name(), plan.limit > 1)
        .await
        .map_err(acquisition_failed)?;
    let mut holder = Holder::new(&plan, client.another(), session.id());

    let acquired = tokio::select! {
        acquired = holder.acquire() => acquired.map(|()| true),
        () = session.lost() => Ok(false),
        _ = stops.next() => Ok(false),
        () = pause(plan.timeout) => Ok(false),
    };
    match acquired {
        Ok(true) => {}
        Ok(false) => {
            // The request that was under way may have got the lock.
            give_back(&plan, &mut holder, &session, &mut client, ui).await?;
            return Err(Failure(
                "Shutdown triggered or timeout during lock acquisition".to_owned(),
            ));
        }
        Err(error) => {
            // The session would end by itself; whoever waits need not wait for that.
            session.destroy(&mut client).await;
            return Err(acquisition_failed(error));
        }
    }

    let ended = hold(&plan, &holder, &session, &mut stops, &client, ui).await?;
    give_back(&plan, &mut holder, &session, &mut client, ui).await?;
    let told = ended == Ended::Badly && plan.args.child_exit_code == Some(true);
    Ok(if told { CHILD_FAILED } else { 0 })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn acquisition_failed(error: LockError) -> Failure {
    Failure(format!("Lock acquisition failed: {error}"))
}

async fn pause(length: Option<Duration>) {
    match length {
        Some(length) => tokio::time::sleep(length).await,
        None => std::future::pending().await,
    }
}

impl Plan {
    fn new(mut args: LockArgs) -> Result<Self, Failure> {
        let refuse = |text: &str| Failure(text.to_owned());
        let mut words = std::mem::take(&mut args.prefix_and_child).into_iter();
        let (prefix, child): (_, Vec<_>) = (words.next(), words.collect());
        let prefix = prefix.filter(|_| !child.is_empty());
        let prefix = prefix.ok_or_else(|| refuse("Key prefix and child command must be specified"))?;
        let limit = u64::try_from(args.n).ok().filter(|limit| *limit > 0);
        let retries = u32::try_from(args.monitor_retry).ok();
        let timeout = match args.timeout.or(args.r#try) {
            None => None,
            Some(given) => Some(
                given
                    .positive()
                    .ok_or_else(|| refuse("Timeout must be positive"))?,
            ),
        };
        Ok(Self {
            // Keys cannot begin with a slash, but people write paths.
            prefix: prefix.strip_prefix('/').unwrap_or(&prefix).to_owned(),
            child,
            limit: limit.ok_or_else(|| refuse("Lock holder limit must be positive"))?,
            retries: retries.ok_or_else(|| refuse("Number for 'monitor-retry' must be >= 0"))?,
            timeout: timeout.filter(|length| !length.is_zero()),
            args,
        })
    }

    /// The prefix with one slash behind it.
    fn folder(&self) -> String {
        format!("{}/", self.prefix.trim_end_matches('/'))
    }

    /// The key that stands for the lock.
    fn key(&self) -> String {
        format!("{}.lock", self.folder())
    }

    fn session_name(&self) -> String {
        if self.args.name.is_empty() {
            format!("Consul lock for '{}' at '{}'", self.child.join(" "), self.prefix)
        } else {
            self.args.name.clone()
        }
    }

    fn tell(&self, ui: &mut Ui<'_>, text: impl fmt::Display) -> std::io::Result<()> {
        if self.args.verbose == Some(true) {
            ui.tell(text)
        } else {
            Ok(())
        }
    }
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    Badly,
    /// By us; how it took that says nothing of its work.
    Ordered,
}

/// Runs the command until it ends, the lock is lost, or this process is to end.
async fn hold(
    plan: &Plan,
    holder: &Holder,
    session: &Session,
    stops: &mut Stops,
    client: &Client,
    ui: &mut Ui<'_>,
) -> Result<Ended, Failure> {
    let watcher = holder.watch(client.another(), plan.retries);
    plan.tell(ui, "Starting handler")?;
    let mut command = process::command(&plan.child, plan.args.shell.unwrap_or(true), ui);
    command.env("CONSUL_LOCK_HELD", "true");
    if plan.args.pass_stdin != Some(true) {
        command.stdin(Stdio::null());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let program = command.as_std().get_program().to_string_lossy().into_owned();
            let why = process::start_error(&program, &error);
            ui.warn(format_args!("Error starting handler: {why}"))?;
            return Ok(Ended::Badly);
        }
    };
    let (status, badly) = tokio::select! {
        status = child.wait() => {
            plan.tell(ui, "Child terminated, releasing lock")?;
            (status, Ended::Badly)
        }
        () = lost(watcher, session) => {
            plan.tell(ui, "Lock lost, killing child")?;
            (end(plan, &mut child, Signal::TERM, ui).await?, Ended::Ordered)
        }
        signal = stops.next() => {
            plan.tell(ui, "Shutdown triggered, killing child")?;
            (end(plan, &mut child, signal, ui).await?, Ended::Ordered)
        }
    };
    match process::failure(status?) {
        None => Ok(Ended::Well),
        Some(why) => {
            ui.warn(format_args!("Error running handler: {why}"))?;
            Ok(badly)
        }
    }
}

/// Returns when the lock is no longer ours.
async fn lost(mut watcher: Watcher, session: &Session) {
    tokio::select! {
        // The sender goes when its task ends, for whatever reason.
        _ = watcher.alive.changed() => {}
        () = session.lost() => {}
    }
}

/// A task that looks after something until it is lost, and ends with this.
#[derive(Debug)]
struct Watcher {
    alive: watch::Receiver<()>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Watcher {
    /// Runs until `lost` returns.
    fn new(lost: impl Future<Output = ()> + Send + 'static) -> Self {
        let (holds, alive) = watch::channel(());
        let task = tokio::spawn(async move {
            lost.await;
            drop(holds);
        });
        Self {
            alive,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }
}

/// Asks the command to end, and ends it after a while.
async fn end(
    plan: &Plan,
    child: &mut Child,
    signal: Signal,
    ui: &mut Ui<'_>,
) -> std::io::Result<std::io::Result<std::process::ExitStatus>> {
    let pid = child.id().unwrap_or_default();
    plan.tell(ui, format_args!("Terminating child pid {pid}"))?;
    process::send(child, signal);
    if let Ok(status) = tokio::time::timeout(GRACE, child.wait()).await {
        plan.tell(ui, "Child terminated")?;
        return Ok(status);
    }
    let grace = GRACE.as_secs();
    plan.tell(
        ui,
        format_args!("Child did not exit after grace period of {grace}s"),
    )?;
    plan.tell(ui, format_args!("Killing child pid {pid}"))?;
    process::send(child, Signal::KILL);
    Ok(child.wait().await)
}

/// Releases the lock, ends the session, and removes the lock's key unless somebody else uses it.
async fn give_back(
    plan: &Plan,
    holder: &mut Holder,
    session: &Session,
    client: &mut Client,
    ui: &mut Ui<'_>,
) -> Result<(), Failure> {
    let given_back = async {
        let released = holder.release().await;
        session.destroy(client).await;
        released?;
        holder.clean_up().await
    };
    let cleaned = tokio::time::timeout(RELEASE_TIMEOUT, given_back)
        .await
        .unwrap_or(Err(LockError::TimedOut));
    match cleaned {
        Ok(Cleanup::Done) => plan.tell(ui, "Cleanup succeeded")?,
        Ok(Cleanup::InUse) => plan.tell(ui, "Cleanup aborted, lock in use")?,
        Err(error) => return Err(Failure(format!("Lock release failed: {error}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
