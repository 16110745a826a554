//! One connection: hyper with our limits around it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lictor_node::Tunnel;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::answer::Body;
use crate::clients::Slot;
use crate::framing::Length;
use crate::head;
use crate::relay::{self, Relayed};
use crate::server::{Shared, Stage};
use crate::service::{self, Answering, Caller};
use crate::timed::{Head, Progress, Timed};
use crate::workers::{self, Event};

/// Requests that one HTTP/2 connection may have in flight, blocking queries included.
const H2_STREAMS_MAX: u32 = 250;
/// The same for a client agent, which asks for all clients of its host.
const TUNNEL_STREAMS_MAX: u32 = 4096;
/// An HTTP/2 client that is silent for so many times the limit of a head is asked for a sign of life, which it owes
/// within one.
const H2_SILENCE_HEADS: u32 = 3;

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
    let io = timed(stream, Head::http1(Arc::clone(&progress)), &shared);
    let header_max_bytes = shared.limits.header_max_bytes;
    let caller = slot
        .as_ref()
        .map_or(Caller::Unix, |slot| Caller::At(slot.address()));
    let service = H1Service {
        shared,
        progress,
        caller,
    };
    let mut connection = pin!(
        http1::Builder::new()
            .title_case_headers(true)
            .half_close(true)
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
    let caller = Caller::At(slot.address());
    h2(stream, shared, stage, caller, H2_STREAMS_MAX).await;
    drop(slot);
}

/// Serves a client agent, on a connection that it made to the port for servers.
pub(crate) async fn serve_tunnel(tunnel: Tunnel, shared: Arc<Shared>, stage: watch::Receiver<Stage>) {
    let Tunnel { agent, stream, open } = tunnel;
    h2(stream, shared, stage, Caller::Agent(agent), TUNNEL_STREAMS_MAX).await;
    drop(open);
}

async fn h2<S>(
    stream: S,
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
    caller: Caller,
    streams_max: u32,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let header_max_bytes = u32::try_from(shared.limits.header_max_bytes).unwrap_or(u32::MAX);
    let (head_timeout, write_timeout) = (shared.limits.header_timeout, shared.limits.write_timeout);
    let io = timed(stream, Head::http2(), &shared);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = service::call(&shared, request, &caller);
        async move {
            let response = answer.await;
            Ok::<_, Infallible>(response.map(|body| body.watched(write_timeout)))
        }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(streams_max)
            .max_header_list_size(header_max_bytes)
            .timer(TokioTimer::new())
            .keep_alive_interval(H2_SILENCE_HEADS * head_timeout)
            .keep_alive_timeout(head_timeout)
            .serve_connection(io, service)
    );
    drive(connection.as_mut(), http2::Connection::graceful_shutdown, stage).await;
}

fn timed<S>(stream: S, head: Head, shared: &Shared) -> TokioIo<Timed<S>> {
    let limits = &shared.limits;
    TokioIo::new(Timed::new(
        stream,
        head,
        limits.header_timeout,
        limits.write_timeout,
        Arc::clone(&shared.metrics),
    ))
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
    caller: Caller,
}

impl Service<Request<Incoming>> for H1Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = H1Answering;

    fn call(&self, request: Request<Incoming>) -> H1Answering {
        let body_len = request.body().size_hint().exact();
        let waits = may_wait(request.uri());
        self.progress
            .start(body_len.map_or(Length::Chunked, Length::Exact), waits);
        let answering = match head::refusal(&request) {
            Some(refusal) => Answering::Now(Some(refusal)),
            None => service::call(&self.shared, request, &self.caller),
        };
        H1Answering {
            answering,
            progress: Arc::clone(&self.progress),
            waker: None,
        }
    }
}

struct H1Answering {
    answering: Answering,
    progress: Arc<Progress>,
    /// What the handler sleeps on.
    waker: Option<Arc<Relayed>>,
}

impl Future for H1Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let answer = match &this.answering {
            Answering::Now(_) | Answering::Passed(..) => Pin::new(&mut this.answering).poll(cx),
            Answering::Later(..) => {
                let waker = relay::relayed(cx.waker(), &mut this.waker);
                let waker = waker.as_ref().unwrap_or(cx.waker());
                Pin::new(&mut this.answering).poll(&mut Context::from_waker(waker))
            }
        };
        workers::note(if answer.is_ready() {
            Event::Answered
        } else {
            Event::Taken
        });
        if let Poll::Ready(answer) = &answer {
            this.progress.finish(flows(answer));
        }
        answer.map(Ok)
    }
}

/// Whether a request may be one that waits: for a change, or in line.
pub(crate) fn may_wait(uri: &Uri) -> bool {
    const NAMES: [&str; 4] = ["index=", "wait=", "hash=", "queue"];
    let mut fields = uri.query().unwrap_or_default().split('&');
    uri.path().starts_with("/mod/") || fields.any(|field| NAMES.iter().any(|name| field.starts_with(name)))
}

/// Whether the body of an answer goes on for as long as the client listens.
fn flows(answer: &Response<Body>) -> bool {
    let is_text = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/");
    match answer.body() {
        Body::Flow(_) => answer.headers().get(CONTENT_TYPE).is_none_or(is_text),
        Body::Passed(body) => {
            body.size_hint().exact().is_none() && answer.headers().get(CONTENT_TYPE).is_some_and(is_text)
        }
        Body::Whole(_) | Body::Pieces(_) | Body::Watched(_) => false,
    }
}
