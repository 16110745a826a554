//! The answering side. All calls of a connection are polled by the one task of the connection, so a call costs no task,
//! and all answers that are ready leave in one write.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::{AbortHandle, Abortable, BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{SWEEP_INTERVAL, WRITE_HIGH_BYTES};
use crate::config::{Limits, Remote};
use crate::handler::Handler;
use crate::stream::{Stream, split};
use crate::wire::{FRAME_HEAD_MAX_BYTES, Frame, LENGTH_BYTES, NotDone, WriteBuf, read_more, split_frame};

/// A call that is being handled. Becomes its id, and its answer unless it was stopped.
struct Running {
    id: u64,
    call: Abortable<BoxFuture<'static, Bytes>>,
}

impl Future for Running {
    type Output = (u64, Option<Bytes>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.call.poll_unpin(cx));
        Poll::Ready((self.id, answer.ok()))
    }
}

struct Calls<'a> {
    handler: &'a dyn Handler,
    remote: &'a Arc<Remote>,
    limits: &'a Limits,
    running: FuturesUnordered<Running>,
    stop: HashMap<u64, Stop>,
    out: WriteBuf,
    /// How many bytes of whole frames were read.
    taken: u64,
}

/// How and when to stop a call.
struct Stop {
    handle: AbortHandle,
    deadline: Instant,
}

/// Answers one connection until it ends, which is always an error. `heard` is told that something came. Once `closing`
/// is cancelled no call is taken any more, and the connection ends when those that were taken are answered.
pub(crate) async fn serve(
    stream: Stream,
    handler: &dyn Handler,
    remote: &Arc<Remote>,
    limits: &Limits,
    heard: impl Fn(),
    closing: &CancellationToken,
) -> io::Error {
    let mut calls = Calls {
        handler,
        remote,
        limits,
        running: FuturesUnordered::new(),
        stop: HashMap::new(),
        out: WriteBuf::default(),
        taken: 0,
    };
    match calls.run(stream, heard, closing).await {
        Ok(()) => io::Error::new(io::ErrorKind::ConnectionAborted, "this server stops"),
        Err(error) => error,
    }
}

impl Calls<'_> {
    async fn run(&mut self, stream: Stream, heard: impl Fn(), closing: &CancellationToken) -> io::Result<()> {
        let (mut reader, mut writer) = split(stream);
        let mut incoming = BytesMut::new();
        let mut next_sweep = Instant::now();
        let mut is_closing = false;
        while !(is_closing && self.running.is_empty()) {
            let room = self.out.remaining() < WRITE_HIGH_BYTES;
            tokio::select! {
                read = read_more(&mut reader, &mut incoming), if room && !is_closing => {
                    read?;
                    heard();
                    self.take_frames(&mut incoming)?;
                }
                Some(done) = self.running.next(), if room && !self.running.is_empty() => self.take_answers(done),
                written = writer.step(&mut self.out), if writer.has_work(&self.out) => {
                    written?;
                }
                () = sleep_until(next_sweep), if !self.stop.is_empty() => {
                    let now = Instant::now();
                    next_sweep = now + SWEEP_INTERVAL;
                    self.stop.values().filter(|stop| stop.deadline <= now).for_each(|stop| stop.handle.abort());
                }
                () = closing.cancelled(), if !is_closing => is_closing = true,
            }
        }
        Frame::Closing { taken: self.taken }.put(&mut self.out);
        while writer.has_work(&self.out) {
            writer.step(&mut self.out).await?;
        }
        // The other side closes when it has read that. To close first, with calls unread, could cost it the answers.
        loop {
            incoming.clear();
            read_more(&mut reader, &mut incoming).await?;
        }
    }

    fn take_frames(&mut self, incoming: &mut BytesMut) -> io::Result<()> {
        while let Some(bytes) = split_frame(incoming, self.limits.call_max_bytes + FRAME_HEAD_MAX_BYTES)? {
            self.taken += (LENGTH_BYTES + bytes.len()) as u64;
            match Frame::decode(bytes) {
                Some(Frame::Call {
                    id,
                    deadline_ms,
                    kind,
                    body,
                }) => self.begin(id, deadline_ms, kind, body)?,
                Some(Frame::Cancel { id }) => {
                    if let Some(stop) = self.stop.get(&id) {
                        stop.handle.abort();
                    }
                }
                Some(Frame::Ping { stamp }) => Frame::Pong { stamp }.put(&mut self.out),
                _ => return Err(invalid("it sent something unknown")),
            }
        }
        Ok(())
    }

    fn begin(&mut self, id: u64, deadline_ms: u32, kind: u16, body: Bytes) -> io::Result<()> {
        if self.stop.len() >= self.limits.calls_max {
            let reason = NotDone::Busy;
            Frame::NotDone { id, reason }.put(&mut self.out);
            return Ok(());
        }
        let (handle, registration) = AbortHandle::new_pair();
        let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
        if self.stop.insert(id, Stop { handle, deadline }).is_some() {
            return Err(invalid("it used the id of a call twice"));
        }
        let call = Abortable::new(self.handler.call(self.remote, kind, body), registration);
        self.running.push(Running { id, call });
        Ok(())
    }

    /// Takes `first` and whatever else is ready.
    fn take_answers(&mut self, first: (u64, Option<Bytes>)) {
        let mut next = Some(first);
        while let Some((id, answer)) = next {
            self.stop.remove(&id);
            match answer {
                Some(body) if body.len() <= self.limits.call_max_bytes => {
                    Frame::Answer { id, body }.put(&mut self.out);
                }
                Some(_) => {
                    let reason = NotDone::AnswerTooLarge;
                    Frame::NotDone { id, reason }.put(&mut self.out);
                }
                // Nobody waits for it.
                None => {}
            }
            if self.out.remaining() >= WRITE_HIGH_BYTES {
                return;
            }
            next = self.running.next().now_or_never().flatten();
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
