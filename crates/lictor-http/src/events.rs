//! Streams of server-sent events: any read that can wait for a change, told anew at each change.
//!
//! ```text
//! the read, at once ──> first event ──> the read again, waiting ── changed? ──yes──> event
//!                                             ^                       │ no
//!                                             └─────── heartbeat ─────┘
//! ```
//! The id of an event is the index of its answer; a client that comes back names the last one it saw and hears of what
//! came after it. A stream is a loop over the read's own handler, so that it sees the latest state and never a backlog:
//! whoever reads slowly misses what was in between, and whoever takes nothing for a while is dropped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::answer::Flow;
use crate::ctx::{Ctx, Follow};
use crate::error::ApiError;
use crate::extras;
use crate::reply::{Reply, Text};
use crate::route::Answer;
use crate::routes::kv::changes;

/// Streams of this server at a time.
const STREAMS_MAX: usize = 10_000;
/// A stream says something at least as often, so that both sides notice when the other is gone.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Pieces of a body that wait for the connection.
const PIECES_MAX: usize = 2;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: &str = "text/event-stream";

/// The room for streams.
#[derive(Debug)]
pub(crate) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

impl Streams {
    /// How many there are, and how many there may be.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (STREAMS_MAX - self.0.available_permits(), STREAMS_MAX)
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let entered = Arc::clone(&self.0).try_acquire_owned();
        entered.map_err(|_| {
            let text = "too many event streams on this server\n";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, text)
        })
    }
}

/// Whether a request asks for a stream: it names that kind first. A client that prefers JSON gets JSON.
pub(crate) fn are_wanted(headers: &HeaderMap) -> bool {
    let Some(accepted) = headers.get(header::ACCEPT) else {
        return false;
    };
    let first = accepted
        .as_bytes()
        .split(|byte| matches!(byte, b',' | b';'))
        .next();
    first.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(EVENT_STREAM.as_bytes()))
}

/// `Last-Event-ID` as it was sent.
pub(crate) fn last_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(LAST_EVENT_ID).cloned()
}

/// Serves a read as a stream. What cannot wait for a change, or fails at once, is answered as if no stream had been
/// asked for.
pub(crate) async fn serve(
    ctx: Ctx,
    run: fn(Ctx) -> Answer,
    last_id: Option<HeaderValue>,
) -> Result<Reply, ApiError> {
    let slot = ctx
        .shared
        .streams
        .enter()
        .inspect_err(|_| ctx.shared.metrics.streams_refused.one())?;
    // A stream may also begin where a query that waits would.
    let known = match last_id.as_ref().map(HeaderValue::as_bytes) {
        Some(id) if !id.is_empty() => parse_id(id)?,
        _ => ctx.read_options()?.min_index,
    };
    let seen = applied(&ctx);
    let first = run(ctx.following(Follow::Now(known))).await?;
    let Some(meta) = first.meta().filter(|_| first.is_read()) else {
        return Ok(first);
    };
    let Some(index) = meta.index else {
        return Ok(first);
    };
    let is_full = first.has(&changes::X_FULL);
    let text = first
        .into_text()
        .ok_or_else(|| ApiError::bad_request("Invalid Accept: only JSON is sent as text/event-stream\n"))?;
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    let stream = Stream {
        ctx,
        run,
        pieces,
        seen: Seen::new(index, seen),
        _slot: slot,
    };
    tokio::spawn(stream.run((known == 0 || known != index).then_some((text, is_full))));
    let reply = Reply::flow(Flow::new(body)).with_meta(meta);
    Ok(reply
        .with_header(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM))
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

fn parse_id(id: &[u8]) -> Result<u64, ApiError> {
    lictor_proto::go::parse_uint(id).map_err(|_| extras::refused("Last-Event-ID", id, "not an index"))
}

/// A stream and its client.
struct Stream {
    ctx: Ctx,
    run: fn(Ctx) -> Answer,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    seen: Seen,
    _slot: OwnedSemaphorePermit,
}

/// What a stream has told.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The index of the last event.
    told: u64,
    /// All that happened up to this index was told. Where nothing happens to what a stream of changes is about, it grows
    /// nevertheless, so that what is forgotten elsewhere does not matter here.
    through: u64,
}

impl Seen {
    fn new(told: u64, applied: u64) -> Self {
        let through = told.max(applied);
        Self { told, through }
    }
}

/// The index of the state now: a read that begins after it shows all up to it.
fn applied(ctx: &Ctx) -> u64 {
    let state = ctx.shared.node.view();
    state.visible(state.applied().0).0
}

/// The client is gone, or takes nothing.
struct Gone;

impl Stream {
    async fn run(mut self, first: Option<(Text, bool)>) {
        // However it ends, there is nobody to tell.
        let _ = self.tell_all(first).await;
    }

    async fn tell_all(&mut self, first: Option<(Text, bool)>) -> Result<(), Gone> {
        match first {
            Some((text, is_full)) => self.tell(self.seen.told, text, is_full).await?,
            // So that the client sees at once that the stream stands.
            None => self.send(Bytes::from_static(b":\n\n")).await?,
        }
        while !self.ctx.shared.is_stopping() {
            let now = applied(&self.ctx);
            let since = if self.ctx.query().has("changed") {
                self.seen.through
            } else {
                self.seen.told
            };
            let read = (self.run)(self.ctx.following(Follow::Change(since)));
            let answer = tokio::select! {
                answer = read => answer,
                () = self.pieces.closed() => return Err(Gone),
            };
            self.seen.through = self.seen.through.max(now);
            let reply = answer.unwrap_or_else(ApiError::into_reply);
            if reply.is_unchanged() {
                self.send(Bytes::from_static(b":\n\n")).await?;
                continue;
            }
            let now = reply
                .meta()
                .filter(|_| reply.is_read())
                .and_then(|meta| meta.index);
            let is_full = reply.has(&changes::X_FULL);
            let (Some(now), Some(text)) = (now, reply.into_text()) else {
                // The client comes back, and hears then what is wrong.
                return self
                    .send(Bytes::from_static(b"event: error\ndata: null\n\n"))
                    .await;
            };
            if now == self.seen.told {
                self.send(Bytes::from_static(b":\n\n")).await?;
            } else {
                self.tell(now, text, is_full).await?;
                self.seen = Seen::new(now, self.seen.through);
            }
        }
        Ok(())
    }

    /// `is_full` says that a list of changes is a list of all there is: the client must forget what it knew.
    async fn tell(&self, index: u64, text: Text, is_full: bool) -> Result<(), Gone> {
        let event = if is_full { "event: full\n" } else { "" };
        let head = format!("id: {index}\n{event}");
        match text {
            Text::Missing => {
                self.send(format!("{head}event: missing\ndata: null\n\n").into())
                    .await
            }
            Text::Whole(json) => {
                let event = [head.as_bytes(), b"data: ", &json, b"\n\n"].concat();
                self.send(event.into()).await
            }
            Text::Pieces(mut pieces) => {
                self.send(format!("{head}data: ").into()).await?;
                while let Some(piece) = pieces.next() {
                    self.send(piece).await?;
                }
                self.send(Bytes::from_static(b"\n\n")).await
            }
        }
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        match timeout(self.ctx.shared.limits.write_timeout, self.pieces.send(Ok(bytes))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for_by_name() {
        let wanted = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            are_wanted(&headers)
        };

        for accept in ["text/event-stream", "Text/Event-Stream;q=0.9, application/json"] {
            assert!(wanted(accept), "{accept}");
        }
        for accept in [
            "*/*",
            "application/json, text/event-stream",
            "text/event-streams",
            "",
        ] {
            assert!(!wanted(accept), "{accept}");
        }
        assert!(!are_wanted(&HeaderMap::new()));
    }
}
