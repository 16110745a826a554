//! One connection: hyper with our limits around it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::clients::Slot;
use crate::reply::Body;
use crate::server::{Shared, Stage};
use crate::service::{self, Answering};
use crate::workers;

/// Requests that one HTTP/2 connection may have in flight, blocking queries included.
const H2_STREAMS_MAX: u32 = 250;

/// Serves HTTP/1.1 until the client leaves or the server stops.
pub(crate) async fn serve_h1<S>(
    stream: S,
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
    slot: Option<Slot>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::new(Progress::default());
    let io = HeadTimed::new(
        TokioIo::new(stream),
        Arc::clone(&progress),
        shared.limits.header_timeout,
    );
    let header_max_bytes = shared.limits.header_max_bytes;
    let service = H1Service { shared, progress };
    let mut connection = pin!(
        http1::Builder::new()
            .title_case_headers(true)
            .half_close(false)
            .max_buf_size(header_max_bytes.max(8192))
            .serve_connection(io, service)
    );
    drive(connection.as_mut(), http1::Connection::graceful_shutdown, stage).await;
    drop(slot);
}

/// Serves HTTP/2 until the client leaves or the server stops.
pub(crate) async fn serve_h2<S>(stream: S, shared: Arc<Shared>, stage: watch::Receiver<Stage>, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let header_max_bytes = u32::try_from(shared.limits.header_max_bytes).unwrap_or(u32::MAX);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = service::call(&shared, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(H2_STREAMS_MAX)
            .max_header_list_size(header_max_bytes)
            .serve_connection(TokioIo::new(stream), service)
    );
    drive(connection.as_mut(), http2::Connection::graceful_shutdown, stage).await;
    drop(slot);
}

/// Polls a connection to its end, telling it once when the server drains and dropping it when it is killed.
///
/// It borrows the connection: a future that owns what it polls is twice as large, for every idle watcher.
async fn drive<C>(mut connection: Pin<&mut C>, drain: fn(Pin<&mut C>), mut stage: watch::Receiver<Stage>)
where
    C: Future<Output = hyper::Result<()>>,
{
    loop {
        let stop = async {
            match stage.changed().await {
                Ok(()) => *stage.borrow_and_update(),
                Err(_) => Stage::Kill,
            }
        };
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            now = stop => match now {
                Stage::Serve => {}
                Stage::Drain => drain(connection.as_mut()),
                Stage::Kill => return,
            }
        }
    }
}

/// Tells a client that it has too many connections; the connection is dropped by the caller. Never waits: a
/// client that does not read gets nothing.
pub(crate) fn refuse(stream: &TcpStream) {
    const TEXT: &str = "Your IP is issuing too many concurrent connections, please rate limit your calls\n";
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{TEXT}",
        TEXT.len()
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        tracing::debug!(%error, "a client over its connection limit could not be told");
    }
}

struct H1Service {
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

impl Service<Request<Incoming>> for H1Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = H1Answering;

    fn call(&self, request: Request<Incoming>) -> H1Answering {
        self.progress.started.fetch_add(1, Ordering::Relaxed);
        H1Answering {
            answering: service::call(&self.shared, request),
            progress: Arc::clone(&self.progress),
        }
    }
}

struct H1Answering {
    answering: Answering,
    progress: Arc<Progress>,
}

impl Future for H1Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answering).poll(cx);
        workers::note_event();
        if answer.is_ready() {
            self.progress.finished.fetch_add(1, Ordering::Relaxed);
        }
        answer.map(Ok)
    }
}

/// How many requests of a connection began and ended; one task reads and writes it.
#[derive(Debug, Default)]
struct Progress {
    started: AtomicU32,
    finished: AtomicU32,
}

/// Closes a connection whose request head takes too long, and leaves idle ones alone.
///
/// Hyper's own `header_read_timeout` (1.12) also runs while a kept-alive connection is idle, so it would close
/// the pools of Consul's clients. Here the time runs from the first byte of a head, and costs a timer only if
/// the head did not come in one piece.
struct HeadTimed<S> {
    io: TokioIo<S>,
    progress: Arc<Progress>,
    /// The requests that had begun when bytes were last read.
    seen: u32,
    /// Bytes of a head are in, the head is not.
    partial: bool,
    timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> HeadTimed<S> {
    fn new(io: TokioIo<S>, progress: Arc<Progress>, timeout: Duration) -> Self {
        Self {
            io,
            progress,
            seen: 0,
            partial: false,
            timeout,
            deadline: None,
        }
    }
}

impl<S: AsyncRead + Unpin> Read for HeadTimed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let started = self.progress.started.load(Ordering::Relaxed);
        if started != self.seen {
            self.seen = started;
            self.partial = false;
            self.deadline = None;
        }
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if started != self.progress.finished.load(Ordering::Relaxed) {
            return result;
        }
        if result.is_ready() {
            self.partial = true;
        } else if self.partial {
            let timeout = self.timeout;
            let deadline = self
                .deadline
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> Write for HeadTimed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
