//! `PUT /v1/kv/KEY?acquire=SESSION&queue`: an acquisition that stands in line instead of being refused.

use std::time::Duration;

use lictor_node::{LockAttempt, LockEntered, LockPlace, ProposeError};
use lictor_proto::Command;
use lictor_proto::v1::KvLock;
use lictor_state::{ApplyError, Explained};
use lictor_telemetry::journey;

use super::explain;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

/// Answers `true` once the session has the lock, `false` when the wait is over before.
pub(super) async fn acquire(ctx: &Ctx, lock: KvLock, wait: Duration) -> Result<Reply, ApiError> {
    let deadline = tokio::time::Instant::now() + wait;
    match ctx.shared.node.enter_line(lock.clone()).await? {
        LockEntered::Granted(granted) => Ok(answer(ctx, &granted)),
        LockEntered::Failed(error) => Err(super::apply_failed(&error)),
        LockEntered::Stands(attempt) => stand(ctx, attempt, lock, deadline).await,
    }
}

async fn stand(
    ctx: &Ctx,
    mut attempt: LockAttempt,
    lock: KvLock,
    deadline: tokio::time::Instant,
) -> Result<Reply, ApiError> {
    let patience = tokio::time::sleep_until(deadline);
    tokio::pin!(patience);
    loop {
        let place = attempt.place();
        if place != LockPlace::Waits {
            return told(ctx, place, lock);
        }
        if ctx.shared.is_stopping() {
            attempt.stay();
            return Err(ProposeError::Stopping.into());
        }
        let _asked_to = journey::waiting(journey::Stage::Change);
        tokio::select! {
            biased;
            heard = attempt.changed() => heard.map_err(ApiError::from)?,
            () = patience.as_mut() => return told(ctx, attempt.leave().await, lock),
        }
    }
}

/// What a client is told whose wait ended so.
fn told(ctx: &Ctx, place: LockPlace, lock: KvLock) -> Result<Reply, ApiError> {
    match place {
        LockPlace::Granted(granted) => Ok(answer(ctx, &granted)),
        LockPlace::NoSession => Err(super::apply_failed(&ApplyError::InvalidSession(lock.session))),
        LockPlace::Unknown => Err(ProposeError::OutcomeUnknown.into()),
        LockPlace::Left | LockPlace::Waits => {
            // Delays are the leader's to know.
            let checked_at = u64::MAX;
            let state = ctx.shared.node.view();
            let why = state.why_refused(&Command::KvLock(KvLock { checked_at, ..lock }));
            Ok(answer(ctx, &Explained::refused(why)))
        }
    }
}

fn answer(ctx: &Ctx, explained: &Explained) -> Reply {
    if ctx.explains {
        explain::reply(explained)
    } else {
        Reply::bool(explained.done)
    }
}
