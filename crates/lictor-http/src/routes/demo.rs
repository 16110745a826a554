//! `/key`, `/join` and `/remove` of Raft-KV-Demo: the same keys and members under another face, where the leader is found
//! by redirects.
//!
//! ```text
//! request ──parameters──> does this server lead? ──no──> 307 to the leader's HTTP address, or 503 where nobody leads
//!                              │ yes; or level=stale
//!                              └──> the same reads, commands and changes of members as under /v1
//! ```
//! Answers have no body but the value that was asked for; why a request failed is in a header.

mod entry;

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use lictor_node::{Consistency, EnlistError, Newcomer, Node, ProposeError, ReadMeta};
use lictor_proto::{Command, HostPort, RaftId, v1};
use lictor_state::Outcome;
use tokio::time::{Instant, timeout, timeout_at};

use self::entry::Entry;
use crate::acl::{Access, Resource};
use crate::ctx::Ctx;
use crate::ctx::Verb::{self, Delete, Get, Post};
use crate::error::ApiError;
use crate::query::Query;
use crate::reply::{Meta, Reply};
use crate::route::{Answer, DEMO_FIRST, Route};

/// How long a request waits for a leader, and again for what it asked of that.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a leader whose place is not known yet is waited for before it is looked up again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Where the HTTP service of a server is that never said: the program's constant.
const HTTP_PORT: u16 = 8079;
/// Longest name of a node, in bytes.
const NAME_MAX_BYTES: usize = 512;
/// A character of a JSON text takes at most so many bytes (`\u0041`).
const JSON_ESCAPE_BYTES: usize = 6;

/// Why a request failed, in words.
const X_REASON: HeaderName = HeaderName::from_static("x-lictor-reason");

/// The paths; a slash at the end stands for nothing below it. `Allow` does not count where any method will do.
static ROUTES: [Route; ROUTES_LEN] = [
    route(0, "/key", key),
    route(1, "/key/", key),
    route(2, JOIN, |ctx| Box::pin(join(ctx))),
    route(3, REMOVE, |ctx| Box::pin(remove(ctx))),
];

/// How many there are.
pub(crate) const ROUTES_LEN: usize = 4;

const JOIN: &str = "/join";
const REMOVE: &str = "/remove";

const fn route(number: u16, path: &'static str, run: fn(Ctx) -> Answer) -> Route {
    Route {
        number: DEMO_FIRST + number,
        path,
        verbs: &[Get, Post, Delete],
        run,
    }
}

/// Looks up a decoded path.
pub(crate) fn find(path: &[u8]) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path.as_bytes() == path)
}

/// The path of one of them.
pub(crate) fn label(number: usize) -> &'static str {
    ROUTES.get(number).map_or("other", |route| route.path)
}

/// What a method asks of a route; `None` if the route does not have it.
pub(crate) fn verb(route: &Route, method: &Method) -> Option<Verb> {
    let any_will_do = [JOIN, REMOVE].contains(&route.path) && *method != Method::OPTIONS;
    if any_will_do || *method == Method::HEAD {
        return Some(Get);
    }
    Verb::parse(method).filter(|verb| route.verbs.contains(verb))
}

fn key(ctx: Ctx) -> Answer {
    match ctx.verb {
        Post => Box::pin(post(ctx)),
        Delete => Box::pin(delete(ctx)),
        _ => Box::pin(get(ctx)),
    }
}

async fn get(ctx: Ctx) -> Result<Reply, ApiError> {
    let query = ctx.query();
    let Some(level) = level(query) else {
        return Ok(refusal(
            StatusCode::BAD_REQUEST,
            "level is default, stale or consistent",
        ));
    };
    let Some(key) = text(query, "key") else {
        return Ok(missing("key"));
    };
    ctx.authorize(Resource::Key(&key), Access::Read)?;
    if level != Consistency::Stale
        && let Err(elsewhere) = leads_here(&ctx).await
    {
        return Ok(elsewhere);
    }
    let freshness = match timeout(PATIENCE, ctx.shared.node.read(level)).await {
        Ok(Ok(freshness)) => freshness,
        Ok(Err(error)) => return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, error)),
        Err(_) => {
            return Ok(refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "leadership cannot be confirmed",
            ));
        }
    };
    let state = ctx.shared.node.view();
    let reply = match state.kv_get(&key) {
        Some(row) => Reply::text(StatusCode::OK, Bytes::copy_from_slice(row.value())).with_header(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        None => Reply::empty(StatusCode::NOT_FOUND),
    };
    Ok(reply.with_meta(meta(freshness)))
}

fn meta(freshness: ReadMeta) -> Meta {
    Meta {
        index: None,
        query_backend: false,
        ..Meta::new(0, freshness)
    }
}

async fn post(mut ctx: Ctx) -> Result<Reply, ApiError> {
    let limits = &ctx.shared.limits;
    let (value_max_bytes, key_max_bytes) = (limits.kv_value_max_bytes, limits.header_max_bytes);
    let body = ctx
        .body(JSON_ESCAPE_BYTES * (value_max_bytes + key_max_bytes))
        .await?;
    let Some(Entry { key, value }) = Entry::read(&body) else {
        return Ok(refusal(
            StatusCode::BAD_REQUEST,
            "the body is not of the form {\"key\":\"K\",\"value\":\"V\"}",
        ));
    };
    if key.is_empty() {
        return Ok(missing("key"));
    }
    if value.len() > value_max_bytes || key.len() > key_max_bytes {
        let text = format!("a key has {key_max_bytes} bytes at most, and a value {value_max_bytes}");
        return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    ctx.authorize(Resource::Key(key.as_bytes()), Access::Write)?;
    let set = v1::KvSet {
        key: key.into(),
        value: value.into(),
        flags: 0,
        cas: None,
    };
    Ok(write(&ctx, Command::KvSet(set)).await)
}

async fn delete(ctx: Ctx) -> Result<Reply, ApiError> {
    let Some(key) = text(ctx.query(), "key") else {
        return Ok(missing("key"));
    };
    ctx.authorize(Resource::Key(&key), Access::Write)?;
    let delete = v1::KvDelete {
        key: key.into(),
        cas: None,
    };
    Ok(write(&ctx, Command::KvDelete(delete)).await)
}

async fn write(ctx: &Ctx, command: Command) -> Reply {
    if let Err(elsewhere) = leads_here(ctx).await {
        return elsewhere;
    }
    match timeout(PATIENCE, ctx.shared.node.propose(command)).await {
        Ok(Ok(Outcome::Failed(error))) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
        Ok(Ok(_)) => Reply::empty(StatusCode::OK),
        Ok(Err(error @ ProposeError::TooLarge(_))) => refusal(StatusCode::PAYLOAD_TOO_LARGE, error),
        Ok(Err(error)) => refusal(StatusCode::SERVICE_UNAVAILABLE, error),
        Err(_) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "not committed in time; it may be later",
        ),
    }
}

async fn join(ctx: Ctx) -> Result<Reply, ApiError> {
    let query = ctx.query();
    let newcomer = match newcomer(query) {
        Ok(newcomer) => newcomer,
        Err(why) => return Ok(refusal(StatusCode::BAD_REQUEST, why)),
    };
    ctx.authorize(Resource::Operator, Access::Write)?;
    if let Err(elsewhere) = leads_here(&ctx).await {
        return Ok(elsewhere);
    }
    let node = ctx.shared.node.clone();
    // To its end, also when the client leaves: a newcomer is not left halfway.
    let enlisted = tokio::spawn(async move { node.enlist(&newcomer).await }).await;
    let error = match enlisted {
        Ok(Ok(())) => return Ok(Reply::empty(StatusCode::OK)),
        Ok(Err(error)) => error,
        Err(error) => return Err(ApiError::internal(error.to_string())),
    };
    tracing::info!(%error, "a server was not taken in");
    Ok(match error {
        // Who leads now finishes it.
        EnlistError::NotLeader => match leads_here(&ctx).await {
            Err(elsewhere) => elsewhere,
            Ok(()) => refusal(StatusCode::SERVICE_UNAVAILABLE, error),
        },
        EnlistError::Lags | EnlistError::Propose(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, error),
        _ => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    })
}

fn newcomer(query: Query<'_>) -> Result<Newcomer, &'static str> {
    let place = |name: &str| query.non_empty(name).map(|text| text.parse::<HostPort>());
    Ok(Newcomer {
        name: name(query)?,
        address: match place("addr") {
            Some(Ok(address)) if !address.is_wildcard() => address,
            _ => return Err("addr is the HOST:PORT at which other nodes reach the new one"),
        },
        http_address: match place("http") {
            None => None,
            Some(Ok(address)) if !address.is_wildcard() => Some(address),
            Some(_) => return Err("http is the HOST:PORT at which clients reach the new node"),
        },
    })
}

async fn remove(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = match name(ctx.query()) {
        Ok(name) => name,
        Err(why) => return Ok(refusal(StatusCode::BAD_REQUEST, why)),
    };
    ctx.authorize(Resource::Operator, Access::Write)?;
    if let Err(elsewhere) = leads_here(&ctx).await {
        return Ok(elsewhere);
    }
    let node = &ctx.shared.node;
    let Some(id) = node.roster().named(&name).map(|server| RaftId(server.raft_id)) else {
        return Ok(Reply::empty(StatusCode::OK));
    };
    Ok(match node.remove_member(id).await {
        Ok(()) => Reply::empty(StatusCode::OK),
        Err(error @ ProposeError::Storage(_)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, error),
    })
}

fn name(query: Query<'_>) -> Result<String, &'static str> {
    let name = query.non_empty("id").filter(|name| {
        query.is_valid() && name.len() <= NAME_MAX_BYTES && !name.chars().any(char::is_control)
    });
    name.map(std::borrow::Cow::into_owned)
        .ok_or("id is the name of a node")
}

/// How fresh a read is to be; `None` for a level that is none.
fn level(query: Query<'_>) -> Option<Consistency> {
    match query.non_empty("level").as_deref() {
        None | Some("default") => Some(Consistency::Default),
        Some("stale") => Some(Consistency::Stale),
        Some("consistent") => Some(Consistency::Consistent),
        Some(_) => None,
    }
}

/// A parameter that must be there.
fn text(query: Query<'_>, name: &str) -> Option<Vec<u8>> {
    let text = query
        .get(name)
        .filter(|text| !text.is_empty() && query.is_valid());
    text.map(std::borrow::Cow::into_owned)
}

fn missing(name: &str) -> Reply {
    refusal(StatusCode::BAD_REQUEST, format!("{name} is missing"))
}

fn refusal(status: StatusCode, why: impl Display) -> Reply {
    let mut reply = Reply::empty(status);
    let why: String = why.to_string().chars().filter(|c| !c.is_control()).collect();
    if let Ok(why) = HeaderValue::from_bytes(why.as_bytes()) {
        reply = reply.with_header(X_REASON, why);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        reply = reply.with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

/// Waits until this server leads. Where it does not, the answer says who does, or that nobody does.
async fn leads_here(ctx: &Ctx) -> Result<(), Reply> {
    let deadline = Instant::now() + PATIENCE;
    let node = &ctx.shared.node;
    loop {
        let leader = node.leader();
        match leader {
            Some(leader) if leader == node.raft_id() => return Ok(()),
            Some(leader) if !node.was_removed() => {
                if let Some(to) = http_address(node, leader) {
                    return Err(redirect(ctx, &to));
                }
            }
            _ => {}
        }
        if node.was_removed() || Instant::now() >= deadline {
            return Err(nobody_leads());
        }
        let pause = if leader.is_some() { LOOK_AGAIN } else { PATIENCE };
        let until = deadline.min(Instant::now() + pause);
        // Neither outcome matters: it is looked at anew.
        let _ = timeout_at(until, node.leader_changed(leader)).await;
    }
}

fn nobody_leads() -> Reply {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "no leader is known")
}

/// Where clients reach another server; `None` if that is not known, or would be this one.
fn http_address(node: &Node, of: RaftId) -> Option<String> {
    let roster = node.roster();
    let server = roster.get(of)?;
    let address = if server.http_address.is_empty() {
        let host = server.address.clone();
        HostPort {
            host,
            port: HTTP_PORT,
        }
        .to_string()
    } else {
        server.http_address.clone()
    };
    (address != node.identity().http_address).then_some(address)
}

/// The client is to send the same to the leader: method, body, path and query.
fn redirect(ctx: &Ctx, to: &str) -> Reply {
    let mut target = format!("http://{to}{}", ctx.route).into_bytes();
    // These paths have no parameter before it.
    let query = ctx.target();
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    match HeaderValue::from_bytes(&target) {
        Ok(location) => Reply::empty(StatusCode::TEMPORARY_REDIRECT).with_header(header::LOCATION, location),
        Err(_) => refusal(StatusCode::BAD_REQUEST, "the query cannot be passed on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomer_of(query: &'static str) -> Option<(String, String, Option<String>)> {
        let newcomer = newcomer(Query::new(query.as_bytes())).ok()?;
        let http = newcomer.http_address.map(|http| http.to_string());
        Some((newcomer.name, newcomer.address.to_string(), http))
    }

    #[test]
    fn levels_are_three_words_in_lower_case() {
        let level = |query: &'static str| level(Query::new(query.as_bytes()));

        assert_eq!(level("key=a&level=stale"), Some(Consistency::Stale));
        assert_eq!(level("level=consistent"), Some(Consistency::Consistent));
        for default in ["", "key=a", "level=", "level=default"] {
            assert_eq!(level(default), Some(Consistency::Default), "{default}");
        }
        for none in ["level=Stale", "level=STALE", "level=strong", "level=stale%20"] {
            assert_eq!(level(none), None, "{none}");
        }
    }

    #[test]
    fn a_newcomer_has_a_name_and_an_address() {
        assert_eq!(
            newcomer_of("id=node2&addr=cluster-host2:8080"),
            Some(("node2".to_owned(), "cluster-host2:8080".to_owned(), None))
        );
        assert_eq!(
            newcomer_of("addr=[::1]:80&id=a%20b&http=h:81"),
            Some(("a b".to_owned(), "[::1]:80".to_owned(), Some("h:81".to_owned())))
        );
        for none in [
            "",
            "id=a",
            "id=&addr=a:1",
            "id=a&addr=",
            "id=a&addr=a",
            "id=a&addr=a:0",
            "id=a&addr=0.0.0.0:1",
            "id=a%0Ab&addr=a:1",
            "id=a&addr=a:1&http=b",
            "id=a&addr=a:1&http=:1",
        ] {
            assert_eq!(newcomer_of(none), None, "{none}");
        }
    }

    #[test]
    fn only_the_paths_themselves_are_served() {
        for path in ["/key", "/key/", "/join", "/remove"] {
            assert_eq!(find(path.as_bytes()).map(|route| route.path), Some(path));
        }
        for path in ["/", "/keys", "/key/a", "/join/", "/v1/key"] {
            assert!(find(path.as_bytes()).is_none(), "{path}");
        }
    }

    #[test]
    fn members_are_changed_by_any_method_and_keys_by_theirs() {
        let verb = |path: &str, method: Method| verb(find(path.as_bytes()).unwrap(), &method);

        assert_eq!(verb("/key", Method::HEAD), Some(Get));
        assert_eq!(verb("/key/", Method::DELETE), Some(Delete));
        assert_eq!(verb("/key", Method::PUT), None);
        assert_eq!(verb("/key", Method::PATCH), None);
        assert_eq!(verb("/join", Method::PATCH), Some(Get));
        assert_eq!(verb("/remove", Method::PUT), Some(Get));
        assert_eq!(verb("/remove", Method::OPTIONS), None, "a question about it");
    }
}
