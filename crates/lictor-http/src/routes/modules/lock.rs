//! `/mod/v2/lock/NAME`: fair locks.

use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use lictor_node::{Consistency, Entered, Place, ProposeError, QueueAsk, QueueAttempt};
use lictor_proto::Command;
use lictor_proto::v1::{QueueRelease, QueueRenew};
use lictor_state::QueueAnswer;
use lictor_telemetry::journey;
use tokio::time::Sleep;

use super::{Code, Failed, Params, Refused, answer, form, plain};
use crate::acl::{Access, Resource};
use crate::ctx::{Ctx, Verb};
use crate::reply::Reply;
use crate::route::Answer;

/// Longer patience is endless: no timer has to be kept for it.
const PATIENCE_MAX_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;
/// The value that is shown of an entry without one.
const NO_VALUE: &[u8] = b"-";

/// Every method of the family.
pub(crate) fn serve(ctx: Ctx) -> Answer {
    match ctx.verb {
        Verb::Post => Box::pin(async move { answer(acquire(ctx).await) }),
        Verb::Put => Box::pin(async move { answer(renew(ctx).await) }),
        Verb::Delete => Box::pin(async move { answer(release(&ctx).await) }),
        Verb::Get => Box::pin(async move { answer(show(&ctx).await) }),
    }
}

async fn acquire(mut ctx: Ctx) -> Result<Reply, Refused> {
    let name = name(&ctx, "Acquire", Access::Write)?;
    let form = form(&mut ctx).await?;
    let params = Params {
        query: ctx.query(),
        form,
    };
    let value = params.bytes("value");
    enter(&ctx, name, value, &params).await
}

async fn renew(mut ctx: Ctx) -> Result<Reply, Refused> {
    const CAUSE: &str = "Renew";
    let name = name(&ctx, CAUSE, Access::Write)?;
    let form = form(&mut ctx).await?;
    let params = Params {
        query: ctx.query(),
        form,
    };
    let ttl_ms = params.ttl_ms(CAUSE)?;
    let (index, value) = (index(&params), params.bytes("value"));
    if index.is_none() && value.is_none() {
        return Err(Failed::new(Code::IndexOrValueIsRequired, CAUSE).into());
    }
    let command = Command::QueueRenew(QueueRenew {
        name: name.clone(),
        index,
        value,
        ttl_ms,
    });
    done(&ctx, command, CAUSE, &name, index.is_some()).await
}

async fn release(ctx: &Ctx) -> Result<Reply, Refused> {
    const CAUSE: &str = "Release";
    let name = name(ctx, CAUSE, Access::Write)?;
    let params = Params::of_query(ctx);
    match (index(&params), params.bytes("value")) {
        (None, None) => Err(Failed::new(Code::IndexOrValueIsRequired, CAUSE).into()),
        (Some(_), Some(_)) => Err(Failed::new(Code::IndexAndValue, CAUSE).into()),
        (index, value) => take_out(ctx, name, index, value).await,
    }
}

async fn show(ctx: &Ctx) -> Result<Reply, Refused> {
    let name = name(ctx, "Get", Access::Read)?;
    let params = Params::of_query(ctx);
    let field = params.get("field").unwrap_or(Cow::Borrowed(b"value"));
    holder(ctx, &name, &field).await
}

/// The name of the lock, if the client may do this to it.
pub(super) fn name(ctx: &Ctx, cause: &'static str, access: Access) -> Result<Bytes, Refused> {
    if ctx.param().is_empty() {
        return Err(Failed::new(Code::NameIsRequired, cause).into());
    }
    ctx.authorize(Resource::Key(ctx.param()), access)?;
    Ok(Bytes::copy_from_slice(ctx.param()))
}

/// An index that is no number names no entry.
fn index(params: &Params<'_>) -> Option<u64> {
    let number = params.number("index")?;
    Some(
        number
            .ok()
            .and_then(|index| u64::try_from(index).ok())
            .unwrap_or(0),
    )
}

/// Stands in line and waits as long as the client wants to.
pub(super) async fn enter(
    ctx: &Ctx,
    name: Bytes,
    value: Option<Bytes>,
    params: &Params<'_>,
) -> Result<Reply, Refused> {
    const CAUSE: &str = "Acquire";
    let timeout = match params.number("timeout") {
        None => None,
        Some(Ok(seconds)) => u64::try_from(seconds).ok(),
        Some(Err(_)) => return Err(Failed::new(Code::TimeoutIsNoNumber, CAUSE).into()),
    };
    let ask = QueueAsk {
        name,
        value,
        ttl_ms: params.ttl_ms(CAUSE)?,
        at_once: timeout == Some(0),
    };
    let mut patience = Patience::new(timeout);
    let entered = tokio::select! {
        biased;
        entered = ctx.shared.node.enter_queue(ask) => entered?,
        () = patience.over() => return Ok(watch_closed()),
    };
    match entered {
        Entered::Held { index } => Ok(acquired(index)),
        Entered::Busy => Ok(failed("failed to acquire lock\n")),
        Entered::Stands(attempt) => wait(ctx, attempt, patience).await,
    }
}

async fn wait(ctx: &Ctx, mut attempt: QueueAttempt, mut patience: Patience) -> Result<Reply, Refused> {
    let mut is_over = false;
    loop {
        match attempt.place() {
            Place::Holds => {
                let index = attempt.index();
                attempt.answered();
                return Ok(acquired(index));
            }
            Place::Gone => {
                attempt.answered();
                return Ok(watch_closed());
            }
            Place::Waits if is_over => {
                attempt.leave().await;
                return Ok(watch_closed());
            }
            Place::Waits => {}
        }
        if ctx.shared.is_stopping() {
            attempt.stay();
            return Err(ProposeError::Stopping.into());
        }
        let _asked_to = journey::waiting(journey::Stage::Change);
        tokio::select! {
            biased;
            heard = attempt.changed() => heard.map_err(crate::error::ApiError::from)?,
            () = patience.over() => is_over = true,
        }
    }
}

/// Takes an entry out, by its index or its value.
pub(super) async fn take_out(
    ctx: &Ctx,
    name: Bytes,
    index: Option<u64>,
    value: Option<Bytes>,
) -> Result<Reply, Refused> {
    let command = Command::QueueRelease(QueueRelease {
        name: name.clone(),
        index,
        value,
    });
    done(ctx, command, "Release", &name, index.is_some()).await
}

/// Who has the lock.
pub(super) async fn holder(ctx: &Ctx, name: &[u8], field: &[u8]) -> Result<Reply, Refused> {
    let node = &ctx.shared.node;
    if node.try_read(Consistency::Default).is_none() {
        let read = node.read(Consistency::Default).await;
        read.map_err(|_| Failed::new(Code::DuringElection, ""))?;
    }
    let state = node.view();
    match state.queue_holder(name) {
        Some(entry) => match field {
            b"value" => Ok(plain(entry.value.clone().unwrap_or(Bytes::from_static(NO_VALUE)))),
            b"index" => Ok(plain(entry.index.to_string())),
            _ => Err(Failed::new(Code::InvalidField, "Get").into()),
        },
        None if state.is_queue_known(name) => Ok(plain("")),
        None => Err(unknown(ctx, name).into()),
    }
}

/// Proposes a command on one entry. Who names an entry by its index asks the store, and is told the lock's path when it
/// is not there.
async fn done(
    ctx: &Ctx,
    command: Command,
    cause: &'static str,
    name: &[u8],
    is_by_index: bool,
) -> Result<Reply, Refused> {
    match ctx.shared.node.propose_queue(command).await? {
        QueueAnswer::NoEntry if !is_by_index => Err(Failed::new(Code::KeyNotFound, cause).into()),
        QueueAnswer::NoEntry | QueueAnswer::NoName => Err(unknown(ctx, name).into()),
        QueueAnswer::ValueTaken => Err(Failed::new(Code::KeyExists, cause).into()),
        _ => Ok(plain("")),
    }
}

fn unknown(ctx: &Ctx, name: &[u8]) -> Failed {
    let state = ctx.shared.node.view();
    let path = format!("/mod/v2/lock/{}", String::from_utf8_lossy(name));
    Failed {
        index: state.visible(state.applied().0).0,
        ..Failed::new(Code::KeyNotFound, path)
    }
}

fn acquired(index: u64) -> Reply {
    plain(index.to_string())
}

fn watch_closed() -> Reply {
    failed("lock watch closed\n")
}

/// Not to have the lock is an error of the server in etcd's contract.
fn failed(text: &'static str) -> Reply {
    Reply::text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// How long a client waits.
struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// `None` waits for ever. 0 is a matter of the command: whoever wants the lock now or never waits for an answer.
    fn new(seconds: Option<u64>) -> Self {
        let bounded = seconds.filter(|seconds| (1..PATIENCE_MAX_SECONDS).contains(seconds));
        Self(bounded.map(|seconds| Box::pin(tokio::time::sleep(Duration::from_secs(seconds)))))
    }

    /// Resolves when it is over. Cancel safe.
    async fn over(&mut self) {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().await,
            None => std::future::pending().await,
        }
    }
}
