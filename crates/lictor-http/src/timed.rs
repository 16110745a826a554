//! A socket that gives up on clients which are too slow.
//!
//! Two times are bounded: that of a request's head, and that in which a client takes nothing of an answer. Neither runs
//! while a connection is idle or a query waits, and neither costs a timer unless something is late.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::framing::{Framing, Length};
use crate::metrics::Metrics;

/// How many requests of a connection began and ended, and what is known of the last; one task reads and writes it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    started: AtomicU32,
    finished: AtomicU32,
    /// The length of the last one's body.
    body_len: AtomicU64,
    /// The last one may wait long for its answer, or for the end of it.
    waits: AtomicBool,
}

impl Progress {
    /// No body is as long.
    const CHUNKED: u64 = u64::MAX;

    /// A request begins with such a body. While it `waits`, the client must not close its half of the connection.
    pub(crate) fn start(&self, body: Length, waits: bool) {
        let body_len = match body {
            Length::Exact(len) => len,
            Length::Chunked => Self::CHUNKED,
        };
        self.body_len.store(body_len, Ordering::Relaxed);
        self.waits.store(waits, Ordering::Relaxed);
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer is known; it `flows` if its body has no end of its own.
    pub(crate) fn finish(&self, flows: bool) {
        self.waits.store(flows, Ordering::Relaxed);
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    fn body(&self) -> Length {
        match self.body_len.load(Ordering::Relaxed) {
            Self::CHUNKED => Length::Chunked,
            len => Length::Exact(len),
        }
    }
}

/// What a client must send in time.
#[derive(Debug)]
pub(crate) enum Head {
    /// A whole head once its first byte is in.
    ///
    /// Hyper's own `header_read_timeout` (1.12) also runs while a kept-alive connection is idle, so it would close the
    /// pools of Consul's clients.
    Http1 {
        progress: Arc<Progress>,
        /// The requests that had begun when bytes were last read.
        seen: u32,
        /// Bytes of a head are in, the head is not.
        partial: bool,
        framing: Framing,
    },
    /// The preface, of which as many bytes are missing. What follows is bounded by pings: a client that does not end a
    /// head cannot answer them.
    Http2 { missing: usize },
}

impl Head {
    pub(crate) fn http1(progress: Arc<Progress>) -> Self {
        Self::Http1 {
            progress,
            seen: 0,
            partial: false,
            framing: Framing::default(),
        }
    }

    pub(crate) fn http2() -> Self {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        Self::Http2 {
            missing: PREFACE.len(),
        }
    }

    /// Whether the client has begun something before this read; a request that began since ends it.
    fn starts_anew(&mut self) -> bool {
        let Self::Http1 {
            progress,
            seen,
            partial,
            framing,
        } = self
        else {
            return false;
        };
        let started = progress.started.load(Ordering::Relaxed);
        let anew = started != *seen;
        if anew {
            *seen = started;
            *partial = false;
            framing.began(progress.body());
        }
        anew
    }

    /// Takes note of a read; whether the client owes more.
    fn is_owed(&mut self, read: Option<usize>) -> bool {
        match self {
            Self::Http1 {
                progress,
                seen,
                partial,
                ..
            } => {
                if *seen != progress.finished.load(Ordering::Relaxed) {
                    return false;
                }
                *partial |= read.is_some();
                *partial
            }
            Self::Http2 { missing } => {
                *missing = missing.saturating_sub(read.unwrap_or(0));
                *missing > 0
            }
        }
    }
}

/// See the [module](self).
pub(crate) struct Timed<S> {
    io: S,
    head: Head,
    head_due: Due,
    write_due: Due,
    metrics: Arc<Metrics>,
}

impl<S> Timed<S> {
    /// `write_timeout` bounds the time in which a client takes nothing. Bytes are counted in `metrics`.
    pub(crate) fn new(
        io: S,
        head: Head,
        head_timeout: Duration,
        write_timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            io,
            metrics,
            head,
            head_due: Due::new(head_timeout),
            write_due: Due::new(write_timeout),
        }
    }

    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.metrics.sent(*bytes);
        }
    }

    /// The result of writing, or the end of patience.
    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_due.forget();
        } else if self.write_due.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncRead + Unpin> Timed<S> {
    fn poll_framed(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Head::Http1 { framing, .. } = &mut self.head else {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        };
        if framing.holds() {
            framing.fill(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        framing.filter(buf, before);
        Poll::Ready(Ok(()))
    }

    /// Whether a client that is waited with has closed its half of the connection. It might still read the answer, but
    /// cannot be told from one that is gone, and those must not keep thousands of queries waiting.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let Head::Http1 {
            progress, framing, ..
        } = &mut self.head
        else {
            return false;
        };
        if !progress.waits.load(Ordering::Relaxed) || framing.holds() {
            return false;
        }
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                framing.hold(Bytes::copy_from_slice(buf.filled()));
                // Hyper may wait for it.
                cx.waker().wake_by_ref();
                false
            }
            Poll::Ready(_) => true,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.starts_anew() {
            self.head_due.forget();
        }
        let before = buf.filled().len();
        let result = self.poll_framed(cx, buf);
        let read = result.is_ready().then(|| buf.filled().len() - before);
        if let Some(bytes @ 1..) = read {
            self.metrics.received(bytes);
        }
        if !self.head.is_owed(read) {
            self.head_due.forget();
        } else if result.is_pending() && self.head_due.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count(&result);
        self.written(cx, result)
    }

    /// Hyper (1.12) flushes whenever it has done what it can, also while it waits for an answer. Left to itself it would
    /// either drop whoever closes half of the connection, or not notice at all.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_gone(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count(&result);
        self.written(cx, result)
    }
}

/// A deadline that begins when it is first asked about.
struct Due {
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Due {
    fn new(timeout: Duration) -> Self {
        Self { timeout, sleep: None }
    }

    fn forget(&mut self) {
        self.sleep = None;
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let timeout = self.timeout;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        sleep.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const WRITE: Duration = Duration::from_secs(60);

    fn pair(head: Head) -> (Timed<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (server, client) = tokio::io::duplex(64);
        let metrics = Arc::new(Metrics::new());
        (Timed::new(server, head, HEAD, WRITE, metrics), client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut server, _client) = pair(Head::http1(Arc::default()));
        let began = tokio::time::Instant::now();

        let error = server.write_all(&[0; 65]).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), WRITE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_is_waited_for() {
        let (mut server, mut client) = pair(Head::http1(Arc::default()));
        let reading = async {
            let mut all = Vec::new();
            while client.read_buf(&mut all).await.unwrap() > 0 && all.len() < 640 {
                tokio::time::sleep(WRITE * 9 / 10).await;
            }
            all.len()
        };
        let writing = server.write_all(&[0; 640]);

        let (read, written) = tokio::join!(reading, writing);

        assert_eq!(read, 640);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_must_come_in_time_and_nothing_after_it() {
        let (mut server, mut client) = pair(Head::http2());
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n").await.unwrap();
        let mut all = Vec::new();
        let mut read = async || server.read_buf(&mut all).await;

        assert_eq!(read().await.unwrap(), 22);
        assert_eq!(read().await.unwrap_err().kind(), io::ErrorKind::TimedOut);

        let (mut server, mut client) = pair(Head::http2());
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut all = Vec::new();
        assert_eq!(server.read_buf(&mut all).await.unwrap(), 24);
        let idle = tokio::time::timeout(10 * HEAD, server.read_buf(&mut all));
        assert!(idle.await.is_err());
    }
}
