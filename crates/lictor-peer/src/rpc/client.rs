//! The calling side.
//!
//! A call is **not sent** as long as none of its bytes was handed to the connection, and of **unknown outcome** from
//! then on until its answer is there. Why it is correct: the positions at which calls begin in the stream of bytes are
//! kept, and compared with the number of bytes that the connection has taken when it ends. A server that stops says how
//! many of them it has read: a call behind is as good as not sent.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::{SWEEP_INTERVAL, WRITE_HIGH_BYTES};
use crate::config::Limits;
use crate::contact::Contact;
use crate::error::{CallError, Lost, NotSent};
use crate::outbox::{NotTaken, Outbox, Weigh};
use crate::stream::{Ended, Stream, split};
use crate::wire::{FRAME_HEAD_MAX_BYTES, Frame, NotDone, WriteBuf, read_more, split_frame};

type Answer = Result<Bytes, CallError>;

/// While a connection that is to be made anew waits for its last answers, new calls wait for the next one, for so long. Then
/// it takes calls again for as long, since one that is under way may take minutes.
const HELD_BACK: Duration = Duration::from_secs(1);

/// Why a connection ends that the other side closes in good order.
const STOPS: &str = "it stops";

/// What callers want of the connection's task.
#[derive(Debug)]
pub(crate) enum Order {
    Call {
        id: u64,
        kind: u16,
        body: Bytes,
        deadline: Instant,
        reply: oneshot::Sender<Answer>,
    },
    /// The caller has gone.
    Cancel(u64),
}

impl Weigh for Order {
    fn weight_bytes(&self) -> usize {
        match self {
            Self::Call { body, .. } => body.len(),
            Self::Cancel(_) => 0,
        }
    }
}

impl Order {
    /// Answers a call that does not leave.
    pub(crate) fn fail(self, why: NotSent) {
        if let Self::Call { reply, .. } = self {
            // The caller may have gone.
            let _ = reply.send(Err(why.into()));
        }
    }
}

/// The callers' end: a queue to the task of the connection, which may come and go.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) outbox: Outbox<Order>,
    next_id: AtomicU64,
    max_bytes: usize,
}

impl Caller {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            outbox: Outbox::new(limits.calls_max, limits.call_queue_max_bytes),
            next_id: AtomicU64::new(1),
            max_bytes: limits.call_max_bytes,
        }
    }

    /// Makes a call. When the future is dropped, the other side is told that nobody waits any more.
    pub(crate) async fn call(
        &self,
        kind: u16,
        body: Bytes,
        deadline: Instant,
        closed: impl Fn() -> NotSent,
    ) -> Answer {
        if body.len() > self.max_bytes {
            let (len_bytes, max_bytes) = (body.len(), self.max_bytes);
            return Err(NotSent::TooLarge { len_bytes, max_bytes }.into());
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let order = Order::Call {
            id,
            kind,
            body,
            deadline,
            reply,
        };
        self.outbox.push(order).map_err(|not_taken| match not_taken {
            NotTaken::Full => NotSent::Busy,
            NotTaken::Closed => closed(),
        })?;
        let mut waiting = Waiting {
            outbox: &self.outbox,
            id: Some(id),
        };
        let answer = answer.await;
        waiting.id = None;
        // The task answers every call it took; only when it is killed, with its runtime, does it not.
        answer.unwrap_or_else(|_| Err(Lost::Connection("the server stops".to_owned()).into()))
    }
}

/// A caller that waits for an answer.
struct Waiting<'a> {
    outbox: &'a Outbox<Order>,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // If the queue is full, the other side stops at the deadline, which it knows.
            let _ = self.outbox.push(Order::Cancel(id));
        }
    }
}

/// A call that has been encoded.
struct Pending {
    reply: oneshot::Sender<Answer>,
    deadline: Instant,
    /// Where its frame begins in all that this connection is given to write.
    start: u64,
}

/// One connection's calls.
struct Calls<'a> {
    pending: HashMap<u64, Pending>,
    out: WriteBuf,
    /// How many bytes the connection has taken.
    handed: u64,
    contact: &'a Contact,
    /// How many pings were sent since anything was read. Counted rather than timed: after a pause of this process, what
    /// came meanwhile has not been read yet.
    unanswered_pings: u32,
    /// Why the connection ended.
    why: String,
}

/// Runs one connection until it ends, and says how it did. Calls that it took are answered then, also when the future
/// is dropped; those in the outbox stay there. Asks for signs of life if `pings`.
pub(crate) async fn drive(
    stream: Stream,
    caller: &Caller,
    contact: &Arc<Contact>,
    limits: &Limits,
    pings: bool,
) -> Ended {
    let mut calls = Calls {
        pending: HashMap::new(),
        out: WriteBuf::default(),
        handed: 0,
        contact,
        unanswered_pings: 0,
        why: "cut by this server".to_owned(),
    };
    let ended = calls.run(stream, &caller.outbox, limits, pings).await;
    match ended {
        Ok(()) => Ended::Outdated,
        Err(error) => {
            calls.why = error.to_string();
            Ended::Lost(calls.why.clone())
        }
    }
}

/// Ends the calls of the queue whose time is over before they could leave.
pub(crate) fn expire(outbox: &Outbox<Order>, now: Instant) {
    let over = |order: &Order| matches!(order, Order::Call { deadline, .. } if *deadline <= now);
    for order in outbox.remove_if(over) {
        order.fail(NotSent::Deadline);
    }
}

impl Calls<'_> {
    /// Returns in good order, all calls that were taken being answered, when the connection is to be made anew.
    async fn run(
        &mut self,
        stream: Stream,
        outbox: &Outbox<Order>,
        limits: &Limits,
        pings: bool,
    ) -> io::Result<()> {
        let hold = stream.hold();
        let outdated = hold.outdated();
        tokio::pin!(outdated);
        let mut outdated_at: Option<Instant> = None;
        let holds_back = |at: Instant| (at.elapsed().as_millis() / HELD_BACK.as_millis()).is_multiple_of(2);
        let (mut reader, mut writer) = split(stream);
        let mut incoming = BytesMut::new();
        let mut next_ping = Instant::now();
        let mut next_sweep = Instant::now();
        self.contact.heard();
        loop {
            if outdated_at.is_some() && self.pending.is_empty() && !writer.has_work(&self.out) {
                return Ok(());
            }
            let room = !outdated_at.is_some_and(holds_back)
                && self.out.remaining() < WRITE_HIGH_BYTES
                && self.pending.len() < limits.calls_max;
            let wake = if self.pending.is_empty() {
                next_ping
            } else {
                next_ping.min(next_sweep)
            };
            tokio::select! {
                read = read_more(&mut reader, &mut incoming) => {
                    read?;
                    self.contact.heard();
                    self.unanswered_pings = 0;
                    self.take_answers(&mut incoming, limits)?;
                }
                () = outbox.filled(), if room => self.take_orders(outbox, limits),
                written = writer.step(&mut self.out), if writer.has_work(&self.out) => self.handed += written? as u64,
                () = &mut outdated, if outdated_at.is_none() => outdated_at = Some(Instant::now()),
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= next_ping {
                        next_ping = now + limits.ping_interval;
                        if pings {
                            self.ping(limits)?;
                        }
                    }
                    if now >= next_sweep {
                        next_sweep = now + SWEEP_INTERVAL;
                        self.sweep(now);
                        expire(outbox, now);
                    }
                }
            }
        }
    }

    fn take_orders(&mut self, outbox: &Outbox<Order>, limits: &Limits) {
        let now = Instant::now();
        outbox.drain(|order| {
            match order {
                // Nobody waits: it need not leave.
                Order::Call { reply, .. } if reply.is_closed() => {}
                Order::Call { deadline, reply, .. } if deadline <= now => {
                    let _ = reply.send(Err(NotSent::Deadline.into()));
                }
                Order::Call {
                    id,
                    kind,
                    body,
                    deadline,
                    reply,
                } => {
                    let start = self.handed + self.out.remaining() as u64;
                    let left = deadline.duration_since(now).as_millis();
                    let call = Frame::Call {
                        id,
                        deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
                        kind,
                        body,
                    };
                    call.put(&mut self.out);
                    let pending = Pending {
                        reply,
                        deadline,
                        start,
                    };
                    self.pending.insert(id, pending);
                }
                Order::Cancel(id) => {
                    if self.pending.remove(&id).is_some() {
                        Frame::Cancel { id }.put(&mut self.out);
                    }
                }
            }
            self.out.remaining() < WRITE_HIGH_BYTES && self.pending.len() < limits.calls_max
        });
    }

    fn take_answers(&mut self, incoming: &mut BytesMut, limits: &Limits) -> io::Result<()> {
        while let Some(bytes) = split_frame(incoming, limits.call_max_bytes + FRAME_HEAD_MAX_BYTES)? {
            let (id, answer) = match Frame::decode(bytes) {
                Some(Frame::Answer { id, body }) => (id, Ok(body)),
                Some(Frame::NotDone { id, reason }) => {
                    let error = match reason {
                        NotDone::Busy => NotSent::Busy.into(),
                        NotDone::AnswerTooLarge => Lost::AnswerTooLarge.into(),
                    };
                    (id, Err(error))
                }
                Some(Frame::Pong { stamp }) => {
                    self.contact.pong(stamp);
                    continue;
                }
                Some(Frame::Closing { taken }) => {
                    self.fail_from(taken);
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, STOPS));
                }
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it sent something unknown",
                    ));
                }
            };
            // Not there any more: its deadline has passed.
            if let Some(pending) = self.pending.remove(&id) {
                let _ = pending.reply.send(answer);
            }
        }
        Ok(())
    }

    /// The other side stops: it has taken calls up to a place in the stream of bytes, and answered them.
    fn fail_from(&mut self, taken: u64) {
        for (_, pending) in self.pending.extract_if(|_, pending| pending.start >= taken) {
            // The caller may have gone.
            let _ = pending
                .reply
                .send(Err(NotSent::Unreachable(STOPS.to_owned()).into()));
        }
    }

    fn ping(&mut self, limits: &Limits) -> io::Result<()> {
        if limits.ping_interval * self.unanswered_pings >= limits.silence_max {
            let text = format!("no sign of life for {} ms", limits.silence_max.as_millis());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        self.unanswered_pings += 1;
        let stamp = self.contact.stamp();
        Frame::Ping { stamp }.put(&mut self.out);
        Ok(())
    }

    /// Ends the calls whose time is over.
    fn sweep(&mut self, now: Instant) {
        let over = |pending: &Pending| pending.deadline <= now || pending.reply.is_closed();
        for (_, pending) in self.pending.extract_if(|_, pending| over(pending)) {
            // Unknown even if its bytes have not left yet: they may leave later.
            let _ = pending.reply.send(Err(Lost::Deadline.into()));
        }
    }
}

/// However the connection ends, its calls are told.
impl Drop for Calls<'_> {
    fn drop(&mut self) {
        for (_, pending) in self.pending.drain() {
            let error = if pending.start < self.handed {
                Lost::Connection(self.why.clone()).into()
            } else {
                NotSent::Unreachable(self.why.clone()).into()
            };
            let _ = pending.reply.send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// More than the sockets of both sides hold, so that some calls cannot leave.
    const CALLS: usize = 30;
    const BODY_BYTES: usize = 1024 * 1024;

    #[tokio::test]
    async fn only_what_no_byte_of_has_left_is_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, _) = listener.accept().await.unwrap();
        let limits = Limits::default();
        let caller = Caller::new(&limits);
        let contact = Arc::new(Contact::new());
        let deadline = Instant::now() + Duration::from_secs(60);

        let calls = (0..CALLS).map(|_| {
            let body = Bytes::from(vec![0; BODY_BYTES]);
            caller.call(1, body, deadline, || NotSent::UnknownPeer)
        });
        let connection = async {
            drive(Stream::Plain(stream), &caller, &contact, &limits, false).await;
            for order in caller.outbox.close() {
                order.fail(NotSent::UnknownPeer);
            }
        };
        let reading = async {
            other.read_exact(&mut vec![0; 5 * BODY_BYTES / 2]).await.unwrap();
            drop(other);
        };
        let (answers, (), ()) = tokio::join!(join_all(calls), connection, reading);

        let unknown = |answer: &Answer| matches!(answer, Err(CallError::OutcomeUnknown(Lost::Connection(_))));
        let not_sent = |answer: &Answer| matches!(answer, Err(CallError::NotSent(_)));
        let left = answers.iter().take_while(|answer| unknown(answer)).count();
        assert!((3..CALLS).contains(&left), "{left} calls left");
        assert!(answers[left..].iter().all(not_sent));
    }
}
