//! From a request to an answer: cleaning, lookup, method, dispatch.
//!
//! The hot path (a plain read of one key) is answered inside [`call`], without a task, a box or a copy of the
//! request; everything else becomes a boxed future.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

use crate::answer::Body;
use crate::conn;
use crate::cors::{self, Grant};
use crate::ctx::{Ctx, Verb};
use crate::error::ApiError;
use crate::events;
use crate::metrics::{self, Asked};
use crate::page;
use crate::path::{self, BadPath};
use crate::query::Query;
use crate::reply::{Layout, Policy, Reply};
use crate::route::{self, Answer, Found, Route};
use crate::routes::operator::keyring;
use crate::routes::{demo, kv};
use crate::server::Shared;
use crate::trace::{self, Trace};

/// The answer to one request.
pub(crate) enum Answering {
    /// Known at once; taken when polled.
    Now(Option<Response<Body>>),
    /// A handler at work, and how its answer goes out.
    Later(Answer, Layout, Policy, Arc<HeaderMap>, Option<Grant>, Trace),
    /// A server is asked.
    Passed(BoxFuture<'static, Response<Body>>, Option<Grant>, Trace),
}

impl Answering {
    /// With what lets a page of another origin read the answer.
    fn granted(mut self, grant: Grant) -> Self {
        match &mut self {
            Self::Now(Some(response)) => cors::allow(response.headers_mut(), &grant),
            Self::Now(None) => {}
            Self::Later(.., slot, _) | Self::Passed(_, slot, _) => *slot = Some(grant),
        }
        self
    }
}

impl Future for Answering {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(response) => match response.take() {
                Some(response) => Poll::Ready(response),
                None => Poll::Pending,
            },
            Self::Passed(answer, grant, trace) => answer.as_mut().poll(cx).map(|mut response| {
                trace.end(response.status());
                if let Some(grant) = grant {
                    cors::allow(response.headers_mut(), grant);
                }
                response
            }),
            Self::Later(answer, layout, policy, configured, grant, trace) => {
                let polled = trace.enter(|| answer.as_mut().poll(cx));
                polled.map(|result| {
                    let reply = result.unwrap_or_else(ApiError::into_reply);
                    let reply = reply.prepared(*layout);
                    let mut response = reply.into_response(HeaderMap::new(), *policy, configured);
                    trace.end(response.status());
                    if let Some(grant) = grant {
                        cors::allow(response.headers_mut(), grant);
                    }
                    response
                })
            }
        }
    }
}

/// Whose request it is.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// A client at this address.
    At(IpAddr),
    /// A client on a Unix socket.
    Unix,
    /// A client of the client agent of this name, which has looked at its own configuration already.
    Agent(Arc<str>),
}

/// One request as it is counted.
struct Count {
    asked: Asked,
    /// Set if it is timed from here on.
    began: Option<Instant>,
    /// Set once the clock was read at its end.
    took: Option<Duration>,
}

/// Answers one request.
pub(crate) fn call(shared: &Arc<Shared>, request: Request<Incoming>, caller: &Caller) -> Answering {
    let is_plain = request.uri().query().is_none();
    let mut count = Count {
        asked: Asked::by(request.method()),
        began: metrics::begin(is_plain),
        took: None,
    };
    let answering = granted(shared, request, caller, &mut count);
    // What answers later is counted by its trace.
    if let Answering::Now(Some(response)) = &answering {
        let took = count.took.or_else(|| Some(count.began?.elapsed()));
        let metrics = &shared.metrics;
        metrics.answered_now(count.asked, response.status(), is_plain, took);
    }
    answering
}

/// Answers a request, with what lets a page of another origin read the answer.
fn granted(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    caller: &Caller,
    count: &mut Count,
) -> Answering {
    let cors = &shared.options.cors;
    // What pages may do at a client agent is that agent's to say.
    if cors.is_off() || matches!(caller, Caller::Agent(_)) {
        return answer(shared, request, caller, count);
    }
    let grant = cors.grant(request.headers());
    let answering = if request.method() == Method::OPTIONS {
        preflight(shared, request, grant.is_some())
    } else {
        answer(shared, request, caller, count)
    };
    match grant {
        Some(grant) => answering.granted(grant),
        None => answering,
    }
}

/// A browser's question what a page of another origin may do: no redirect and no refusal, since it would not ask again.
fn preflight(shared: &Shared, request: Request<Incoming>, is_allowed: bool) -> Answering {
    let (parts, _) = request.into_parts();
    let decoded = path::decoded(parts.uri.path());
    let mut reply = match decoded.as_deref().map(route::find) {
        Ok(Found::Route(route, _)) => wrong_method(route, &parts),
        _ => Reply::empty(StatusCode::OK),
    };
    if is_allowed {
        let (name, value) = cors::PREFLIGHT;
        reply = reply.with_header(name, value);
    }
    served(shared, reply, parts.headers)
}

fn answer(shared: &Arc<Shared>, request: Request<Incoming>, caller: &Caller, count: &mut Count) -> Answering {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if let Some(clean) = path::cleaned(path) {
        return unserved(redirect(&parts.method, &clean, parts.uri.query()), parts.headers);
    }
    let decoded = match path::decoded(path) {
        Ok(decoded) => decoded,
        Err(bad) => return unserved(bad_path(&bad), parts.headers),
    };
    if shared.options.raft_kv_demo
        && let Some(route) = demo::find(&decoded)
    {
        count.asked.route = route.number;
        return answer_demo(shared, route, &parts, body, count);
    }
    let (route, param_at) = match route::find(&decoded) {
        Found::Route(route, at) => (route, at),
        Found::Redirect => {
            let below = format!("{path}/");
            return unserved(redirect(&parts.method, &below, parts.uri.query()), parts.headers);
        }
        Found::Nothing => {
            let reply = no_route(shared, &parts, &decoded);
            let configured = &shared.options.response_headers;
            let response = reply.into_response(parts.headers, Policy::Unserved, configured);
            return Answering::Now(Some(response));
        }
    };
    count.asked.route = route.number;
    let query = Query::new(parts.uri.query().unwrap_or_default().as_bytes());
    if !query.is_valid() {
        let nothing = Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "");
        return served(shared, nothing, parts.headers);
    }
    let verb = match admitted(shared, route, &decoded, &parts, caller) {
        Ok(verb) => verb,
        Err(refusal) => return served(shared, *refusal, parts.headers),
    };
    if let Some(upstream) = &shared.upstream
        && upstream.serves(route.path)
    {
        let trace = Trace::passed(shared, count.asked, count.began, conn::may_wait(&parts.uri));
        let passed = upstream.pass_on(shared, route.path, verb, parts, body);
        return Answering::Passed(passed, None, trace);
    }
    let param = &decoded[param_at..];
    let is_stream = verb == Verb::Get && events::are_wanted(&parts.headers) && !query.has("raw");
    if route.path == kv::PATH
        && verb == Verb::Get
        && !is_stream
        && let Some(reply) = kv::read_now(shared, param, query, &parts.headers)
    {
        note_slow_read(shared, count, param, &reply);
        return served(shared, reply, parts.headers);
    }
    let agent = match caller {
        Caller::Agent(agent) => Some(Arc::clone(agent)),
        Caller::At(_) | Caller::Unix => None,
    };
    let ctx = context(shared, route, verb, param, &parts, body).of_agent(agent);
    if is_stream {
        return streamed(route, ctx, &parts.headers, count);
    }
    // From here on nothing may hold on to `parts`: they keep hyper's read buffer alive.
    let layout = ctx.layout();
    let configured = Arc::clone(&shared.options.response_headers);
    let trace = Trace::of(shared, count.asked, count.began, ctx.shared_target());
    Answering::Later((route.run)(ctx), layout, shared.policy(), configured, None, trace)
}

fn bad_path(bad: &BadPath) -> Reply {
    match bad {
        BadPath::Unprintable => Reply::empty(StatusCode::BAD_REQUEST),
        BadPath::Escape => Reply::text(StatusCode::BAD_REQUEST, "400 Bad Request"),
    }
}

/// Tells of a read that took long, if it is timed.
fn note_slow_read(shared: &Shared, count: &mut Count, key: &[u8], reply: &Reply) {
    count.took = count.began.map(|began| began.elapsed());
    if let Some(took) = count.took
        && shared.node.is_slow(took)
    {
        trace::note_slow_read(shared, count.asked, key, reply.status(), took);
    }
}

fn context(
    shared: &Arc<Shared>,
    route: &Route,
    verb: Verb,
    param: &[u8],
    parts: &Parts,
    body: Incoming,
) -> Ctx {
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let shared = Arc::clone(shared);
    Ctx::new(shared, route.path, verb, param, query, &parts.headers, body)
}

/// What is no path of the API may be one of the page.
fn no_route(shared: &Shared, parts: &Parts, path: &[u8]) -> Reply {
    let page = (shared.options.page)
        .then(|| page::answer(&parts.method, path, parts.uri.query(), &parts.headers))
        .flatten();
    page.unwrap_or_else(|| unknown(path))
}

/// The method of a request that may be served, or why it may not.
fn admitted(
    shared: &Shared,
    route: &Route,
    path: &[u8],
    parts: &Parts,
    caller: &Caller,
) -> Result<Verb, Box<Reply>> {
    let forbidden = |text| Err(Box::new(Reply::text(StatusCode::FORBIDDEN, text)));
    if shared.options.is_blocked(path) && !matches!(caller, Caller::Agent(_)) {
        return forbidden("Endpoint is blocked by agent configuration");
    }
    let verb = Verb::parse(&parts.method).filter(|verb| route.verbs.contains(verb));
    let verb = verb.ok_or_else(|| Box::new(wrong_method(route, parts)))?;
    // The cluster's keys let whoever has them do more than write.
    let is_guarded = verb != Verb::Get || route.path == keyring::PATH;
    if is_guarded && !may_write(shared, caller) {
        return forbidden("Access is restricted");
    }
    Ok(verb)
}

/// A read as a stream of events.
fn streamed(route: &Route, ctx: Ctx, headers: &HeaderMap, count: &Count) -> Answering {
    let (layout, policy) = (ctx.layout(), ctx.shared.policy());
    let configured = Arc::clone(&ctx.shared.options.response_headers);
    let trace = Trace::of(&ctx.shared, count.asked, count.began, ctx.shared_target());
    let answer = Box::pin(events::serve(ctx, route.run, events::last_id(headers)));
    Answering::Later(answer, layout, policy, configured, None, trace)
}

/// Answers a request to one of the paths of Raft-KV-Demo.
fn answer_demo(
    shared: &Arc<Shared>,
    route: &'static Route,
    parts: &Parts,
    body: Incoming,
    count: &Count,
) -> Answering {
    let Some(verb) = demo::verb(route, &parts.method) else {
        return unserved(wrong_method(route, parts), HeaderMap::new());
    };
    let ctx = context(shared, route, verb, b"", parts, body);
    let layout = ctx.layout();
    let configured = Arc::clone(&shared.options.response_headers);
    let trace = Trace::of(shared, count.asked, count.began, ctx.shared_target());
    Answering::Later(
        (route.run)(ctx),
        layout,
        Policy::Unserved,
        configured,
        None,
        trace,
    )
}

fn may_write(shared: &Shared, caller: &Caller) -> bool {
    match caller {
        Caller::At(client) => shared.options.may_write(Some(*client)),
        Caller::Unix => shared.options.may_write(None),
        Caller::Agent(_) => true,
    }
}

fn served(shared: &Shared, reply: Reply, reuse: HeaderMap) -> Answering {
    let response = reply.into_response(reuse, shared.policy(), &shared.options.response_headers);
    Answering::Now(Some(response))
}

/// The answer to what is no request of the API; it does without the headers of the configuration, as Consul's.
fn unserved(reply: Reply, reuse: HeaderMap) -> Answering {
    Answering::Now(Some(reply.into_response(
        reuse,
        Policy::Unserved,
        &HeaderMap::new(),
    )))
}

/// 307 rather than Go's 301: it keeps the method, so that a PUT does not turn into a GET on the way.
///
/// As Go does it, reads get a page with a link.
fn redirect(method: &Method, path: &str, query: Option<&str>) -> Reply {
    const STATUS: StatusCode = StatusCode::TEMPORARY_REDIRECT;
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let Ok(location) = HeaderValue::from_str(&target) else {
        return Reply::empty(StatusCode::BAD_REQUEST);
    };
    let reply = if matches!(*method, Method::GET | Method::HEAD) {
        let page = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escaped(&target));
        Reply::html(STATUS, page)
    } else {
        Reply::empty(STATUS)
    };
    reply.with_header(header::LOCATION, location)
}

/// A text as it stands in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn unknown(path: &[u8]) -> Reply {
    if path == b"/" {
        return Reply::text(StatusCode::OK, "Lictor: the HTTP API is under /v1/\n");
    }
    let text = if path.windows(4).any(|part| part == b"/v1/") {
        "Invalid URL path: not a recognized HTTP API endpoint\n"
    } else {
        "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n"
    };
    Reply::text(StatusCode::NOT_FOUND, text)
}

/// OPTIONS, or 405.
fn wrong_method(route: &Route, parts: &Parts) -> Reply {
    let reply = if parts.method == Method::OPTIONS {
        Reply::empty_json()
    } else {
        Reply::text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("method {} not allowed", parts.method),
        )
    };
    match HeaderValue::try_from(route.allow()) {
        Ok(allow) => reply.with_header(header::ALLOW, allow),
        Err(_) => reply,
    }
}
