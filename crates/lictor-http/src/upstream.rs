//! The API of a client agent: what concerns the cluster is passed on to the server that the agent attends, on one
//! connection of HTTP/2, and what that server answers is passed back as it comes.
//!
//! ```text
//! request ──about this agent?──yes──> routes (see `route.rs`)
//!              │ no
//!              ├─ write ────────────> server      sent once; lost on the way: the outcome is unknown
//!              ├─ read ─────────────> server      lost on the way: asked again, of another server
//!              └─ read that waits ──> one question for all who ask the same ──> server
//! ```
//! Reads that wait and ask the same share one question as long as it is under way. So who joins may be told what was so
//! just before, by as much as the answer is on its way; with `?consistent` nothing is shared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, Shared as SharedFuture, WeakShared};
use http_body_util::{BodyExt as _, Either, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lictor_node::{Node, Topic};
use lictor_proto::RaftId;
use lictor_state::Area;
use parking_lot::Mutex;
use tokio::runtime;

use crate::answer::Body;
use crate::body::{self, PassedOn};
use crate::ctx::Verb;
use crate::error::ApiError;
use crate::events;
use crate::query::Query;
use crate::reply::Policy;
use crate::scope::{X_NAMESPACE, X_PARTITION};
use crate::server::Shared;

/// How long servers are asked again and again for something that none answers.
const PATIENCE: Duration = Duration::from_secs(7);
/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a server that is not attended any more may take to answer a write.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A connection on which nothing comes is asked for a sign of life after this time, and given up after it once more.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Larger answers are not shared: each who waits asks on its own.
const SHARED_MAX_BYTES: usize = 8 * 1024 * 1024;

/// When so many questions are kept, those that nobody waits for any more are dropped.
const ABANDONED_MAX: usize = 1024;

/// What two reads must have in common, beside path and query, to be the same.
const TELLING: [HeaderName; 8] = [
    HeaderName::from_static("x-consul-token"),
    header::AUTHORIZATION,
    header::ACCEPT_ENCODING,
    header::CACHE_CONTROL,
    X_NAMESPACE,
    X_PARTITION,
    header::ACCEPT,
    HeaderName::from_static("last-event-id"),
];
/// What concerns the connection to this agent, and not the request.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    // What pages of other origins may do is this agent's to say.
    header::ORIGIN,
];

/// The way to the servers.
#[derive(Debug)]
pub(crate) struct Upstream {
    node: Node,
    /// Connections live here and not on the workers, which come and go with their own clients.
    runtime: runtime::Handle,
    connection: tokio::sync::Mutex<Option<Connection>>,
    /// The reads that wait. Held for lookups alone.
    polls: Mutex<HashMap<Question, WeakShared<Poll>>>,
}

#[derive(Debug, Clone)]
struct Connection {
    server: RaftId,
    /// The cluster key that it rests on, see [`Node::key_era`].
    era: u64,
    sender: SendRequest<Outgoing>,
}

type Outgoing = Either<PassedOn, Empty<Bytes>>;
type Poll = BoxFuture<'static, Result<Arc<Whole>, Refused>>;

/// A read that can be asked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    target: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// An answer that several wait for.
#[derive(Debug)]
struct Whole {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Why there is no shared answer.
#[derive(Debug, Clone)]
enum Refused {
    /// It is too large to be shared.
    TooLarge,
    Failed(Arc<str>),
}

/// Why a server has not answered.
struct Lost {
    why: String,
    /// Whom it was asked of, if anybody.
    server: Option<RaftId>,
}

impl Upstream {
    /// Must be called within the runtime that connections are to live on.
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            runtime: runtime::Handle::current(),
            connection: tokio::sync::Mutex::default(),
            polls: Mutex::default(),
        }
    }

    /// Whether servers answer on a route: on all but those about this agent and the events that reached it. Before any
    /// server is known the agent tells of itself alone.
    pub(crate) fn serves(&self, route: &str) -> bool {
        if route == "/v1/event/list" {
            return false;
        }
        match route.strip_prefix("/v1/agent/") {
            None => true,
            Some("members") => self.node.attended().is_some(),
            Some(route) => route.starts_with("force-leave") || route.starts_with("connect/"),
        }
    }

    /// Passes a request to a route on to a server, and its answer back.
    pub(crate) fn pass_on(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        route: &'static str,
        verb: Verb,
        parts: Parts,
        body: Incoming,
    ) -> BoxFuture<'static, Response<Body>> {
        let (this, shared) = (Arc::clone(self), Arc::clone(shared));
        let passed = async move {
            let configured = Arc::clone(&shared.options.response_headers);
            let answer = this.answer(&shared, route, verb, parts, body).await;
            let mut answer = answer.unwrap_or_else(|refusal| {
                refusal
                    .into_reply()
                    .into_response(HeaderMap::new(), Policy::Allow, &HeaderMap::new())
            });
            for (name, value) in &*configured {
                answer.headers_mut().entry(name).or_insert_with(|| value.clone());
            }
            // The server's is that of the tunnel, which says nothing of keeping the client's connection.
            *answer.version_mut() = Version::HTTP_11;
            answer
        };
        passed.boxed()
    }

    async fn answer(
        self: &Arc<Self>,
        shared: &Shared,
        route: &'static str,
        verb: Verb,
        parts: Parts,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        let failed = |why: String| ApiError::internal(why);
        if verb != Verb::Get {
            let (body, broke_off) = PassedOn::new(body);
            let answer = self.write(parts, body).await;
            return answer.map_err(|why| {
                if broke_off.load(Ordering::Acquire) {
                    body::broken_off(route)
                } else {
                    failed(why)
                }
            });
        }
        let query = Query::new(parts.uri.query().unwrap_or_default().as_bytes());
        let is_poll = query.non_empty("index").is_some() || query.non_empty("hash").is_some();
        // A stream of events has no end to wait for.
        let is_shared = is_poll && !query.has("consistent") && !events::are_wanted(&parts.headers);
        let question = Question {
            target: parts.uri.clone(),
            headers: TELLING
                .into_iter()
                .filter_map(|name| parts.headers.get(&name).map(|value| (name, value.clone())))
                .collect(),
        };
        drop((parts, body));
        let answer = async {
            if is_shared {
                match self.poll(question.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(Refused::Failed(why)) => return Err(failed(why.to_string())),
                    Err(Refused::TooLarge) => {}
                }
            }
            self.read(&question)
                .await
                .map(|answer| answer.map(Body::Passed))
                .map_err(failed)
        };
        if !is_poll {
            return answer.await;
        }
        tokio::select! {
            answer = answer => answer,
            () = stop(&self.node, shared) => {
                Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is shutting down"))
            }
        }
    }

    /// Sends a write once.
    async fn write(&self, parts: Parts, body: PassedOn) -> Result<Response<Body>, String> {
        let mut headers = parts.headers;
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
        let mut request = request(parts.method, &parts.uri, headers, Either::Left(body));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lost = match self.connection(deadline).await {
                Err(lost) => lost,
                Ok(mut connection) => {
                    let server = connection.server;
                    let sent = connection.sender.try_send_request(request);
                    let gone = async {
                        self.node.attends_another(server).await;
                        tokio::time::sleep(LAST_WORDS).await;
                    };
                    let answer = tokio::select! {
                        biased;
                        answer = sent => answer,
                        () = gone => return Err(unknown("the server is gone")),
                    };
                    match answer {
                        Ok(answer) => return Ok(answer.map(Body::Passed)),
                        Err(mut error) => {
                            let Some(unsent) = error.take_message() else {
                                return Err(unknown(&error.into_error().to_string()));
                            };
                            request = unsent;
                            let why = error.into_error().to_string();
                            Lost {
                                why,
                                server: Some(server),
                            }
                        }
                    }
                }
            };
            self.before_retry(lost, deadline).await?;
        }
    }

    /// Asks until a server answers.
    async fn read(&self, question: &Question) -> Result<Response<Incoming>, String> {
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let began = Instant::now();
            let lost = match self.ask(question, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(lost) => lost,
            };
            if lost.server.is_some() && began.elapsed() > RETRY_PAUSE {
                // It was taken and waited for: patience begins anew.
                deadline = Instant::now() + PATIENCE;
            }
            self.before_retry(lost, deadline).await?;
        }
    }

    async fn before_retry(&self, lost: Lost, deadline: Instant) -> Result<(), String> {
        if let Some(server) = lost.server {
            self.node.avoid(server);
        }
        let nobody_is_known = lost.server.is_none() && self.node.known_servers().is_empty();
        if nobody_is_known || Instant::now() >= deadline {
            return Err(lost.why);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        Ok(())
    }

    async fn ask(&self, question: &Question, deadline: Instant) -> Result<Response<Incoming>, Lost> {
        let mut connection = self.connection(deadline).await?;
        let server = connection.server;
        let lost = |why: String| Lost {
            why,
            server: Some(server),
        };
        let headers = question.headers.iter().cloned().collect();
        let request = request(
            Method::GET,
            &question.target,
            headers,
            Either::Right(Empty::new()),
        );
        tokio::select! {
            biased;
            answer = connection.sender.send_request(request) => answer.map_err(|error| lost(error.to_string())),
            () = self.node.attends_another(server) => Err(lost("the server is gone".to_owned())),
        }
    }

    /// Asks together with all who ask the same at the moment.
    async fn poll(self: &Arc<Self>, question: Question) -> Result<Response<Body>, Refused> {
        let poll = {
            let mut polls = self.polls.lock();
            if polls.len() >= ABANDONED_MAX {
                polls.retain(|_, poll| poll.upgrade().is_some());
            }
            if let Some(poll) = polls.get(&question).and_then(WeakShared::upgrade) {
                poll
            } else {
                let poll = Arc::clone(self).shared_poll(question.clone());
                if let Some(weak) = poll.downgrade() {
                    polls.insert(question, weak);
                }
                poll
            }
        };
        let whole = poll.await?;
        let mut answer = Response::new(Body::Whole(Full::new(whole.body.clone())));
        *answer.status_mut() = whole.status;
        *answer.headers_mut() = whole.headers.clone();
        Ok(answer)
    }

    fn shared_poll(self: Arc<Self>, question: Question) -> SharedFuture<Poll> {
        let poll = async move {
            let answer = self.read_whole(&question).await;
            // Who comes from now on asks anew.
            self.polls.lock().remove(&question);
            answer
        };
        poll.boxed().shared()
    }

    async fn read_whole(&self, question: &Question) -> Result<Arc<Whole>, Refused> {
        let failed = |why: String| Refused::Failed(why.into());
        let answer = self.read(question).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, SHARED_MAX_BYTES).collect().await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Refused::TooLarge
            } else {
                failed(error.to_string())
            }
        })?;
        Ok(Arc::new(Whole {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        }))
    }

    /// The connection to the attended server, made anew if need be.
    async fn connection(&self, deadline: Instant) -> Result<Connection, Lost> {
        let connection = tokio::time::timeout_at(deadline.into(), self.connected()).await;
        connection.unwrap_or_else(|_| {
            Err(Lost {
                why: "no server could be reached in time".to_owned(),
                server: None,
            })
        })
    }

    async fn connected(&self) -> Result<Connection, Lost> {
        let mut kept = self.connection.lock().await;
        let is_usable = |c: &Connection| {
            !c.sender.is_closed() && self.node.attended() == Some(c.server) && self.node.key_era() == c.era
        };
        if let Some(connection) = kept.as_ref().filter(|c| is_usable(c)) {
            return Ok(connection.clone());
        }
        *kept = None;
        let connecting = self.runtime.spawn(connect(self.node.clone()));
        let connected = connecting.await.unwrap_or_else(|error| {
            Err(Lost {
                why: error.to_string(),
                server: None,
            })
        });
        connected.map(|connection| kept.insert(connection).clone())
    }
}

async fn connect(node: Node) -> Result<Connection, Lost> {
    let era = node.key_era();
    let (server, stream) = node.open_tunnel().await.map_err(|error| Lost {
        why: error.to_string(),
        server: None,
    })?;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(SILENCE_MAX)
        .keep_alive_timeout(SILENCE_MAX)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(|error| Lost {
        why: error.to_string(),
        server: Some(server),
    })?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%server, %error, "the connection to a server ended");
        }
    });
    Ok(Connection { server, era, sender })
}

fn unknown(why: &str) -> String {
    format!("rpc error making call: {why}; the outcome is unknown")
}

/// Resolves when the agent stops.
async fn stop(node: &Node, shared: &Shared) {
    // No node has this name, so that only a stop wakes it.
    let Ok(mut waiter) = node.watches().register(&[Topic::Row(Area::Node, b"\0")]) else {
        return std::future::pending().await;
    };
    while !shared.is_stopping() {
        waiter.changed().await;
    }
}

fn request(method: Method, target: &Uri, headers: HeaderMap, body: Outgoing) -> Request<Outgoing> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    let mut uri = Uri::builder().scheme("http").authority("server");
    if let Some(path_and_query) = target.path_and_query() {
        uri = uri.path_and_query(path_and_query.clone());
    }
    // Path and query come from a request, so that they fit into another.
    *request.uri_mut() = uri.build().unwrap_or_default();
    request
}
