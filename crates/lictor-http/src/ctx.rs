//! One request, taken apart once. It owns what it needs, so that hyper's buffers are free while it waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use lictor_node::Consistency;
use smallvec::SmallVec;

use crate::acl::{Access, Resource};
use crate::error::ApiError;
use crate::events::HEARTBEAT;
use crate::query::Query;
use crate::reply::{Indent, Layout};
use crate::routes::modules::FormKind;
use crate::scope::{Named, Scope};
use crate::server::{Limits, Shared};
use lictor_proto::go;

const X_TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const X_EXPLAIN: HeaderName = HeaderName::from_static("x-lictor-explain");

/// The methods that endpoints serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Put,
    Post,
    Delete,
}

impl Verb {
    /// Methods are compared by case.
    pub(crate) fn parse(method: &hyper::Method) -> Option<Self> {
        match *method {
            hyper::Method::GET => Some(Self::Get),
            hyper::Method::PUT => Some(Self::Put),
            hyper::Method::POST => Some(Self::Post),
            hyper::Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// What the request headers say that handlers care about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeaderFacts {
    /// The client takes gzip.
    pub(crate) gzip: bool,
    /// What only the paid edition of Consul knows.
    pub(crate) named: Named,
    /// The Cache-Control header does not parse.
    pub(crate) bad_cache_control: bool,
    /// The client sends no body before it is told to.
    pub(crate) expects_continue: bool,
}

impl HeaderFacts {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        Self {
            gzip: headers
                .get(header::ACCEPT_ENCODING)
                .is_some_and(|v| accepts_gzip(v.as_bytes())),
            named: Named::read(headers),
            bad_cache_control: headers
                .get(header::CACHE_CONTROL)
                .is_some_and(|v| !cache_control_parses(v.as_bytes())),
            expects_continue: headers.contains_key(header::EXPECT),
        }
    }
}

/// The read options that every endpoint parses, writes included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadOptions {
    pub(crate) consistency: Consistency,
    /// 0 does not block.
    pub(crate) min_index: u64,
    pub(crate) wait: Duration,
}

impl ReadOptions {
    /// What `X-Consul-Effective-Consistency` says.
    pub(crate) fn effective_consistency(self) -> &'static str {
        match self.consistency {
            Consistency::Stale => "stale",
            Consistency::Default => "leader",
            Consistency::Consistent => "consistent",
        }
    }
}

/// How a stream of events runs a read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Follow {
    /// At once; the client knows of what was at this index.
    Now(u64),
    /// When something has changed since this index, or after a while unchanged.
    Change(u64),
}

/// One request on its way through a handler.
pub(crate) struct Ctx {
    pub(crate) shared: Arc<Shared>,
    /// The path of the route that matched.
    pub(crate) route: &'static str,
    pub(crate) verb: Verb,
    /// Whether a write's answer is to say what it did, or why it did not.
    pub(crate) explains: bool,
    /// Set if a stream of events runs this read.
    follow: Option<Follow>,
    facts: HeaderFacts,
    /// Where the parameter ends and the query begins in `target`.
    query_at: u32,
    /// What follows the route in the path, decoded, and then the raw query: one allocation.
    target: Arc<[u8]>,
    /// From the headers; only read while access control is on.
    header_token: Option<Box<str>>,
    body: Option<Incoming>,
    /// The client agent that passed the request on.
    agent: Option<Arc<str>>,
    /// Whether the body is a form.
    form: Option<FormKind>,
}

impl Ctx {
    pub(crate) fn new(
        shared: Arc<Shared>,
        route: &'static str,
        verb: Verb,
        param: &[u8],
        query: &[u8],
        headers: &HeaderMap,
        body: Incoming,
    ) -> Self {
        let mut target = SmallVec::<[u8; 256]>::from_slice(param);
        target.extend_from_slice(query);
        let header_token = shared.acl.is_enabled().then(|| header_token(headers)).flatten();
        Self {
            route,
            verb,
            explains: verb != Verb::Get && asks_to_explain(Query::new(query), headers),
            follow: None,
            facts: HeaderFacts::read(headers),
            // A request's head is at most 64 KiB.
            query_at: u32::try_from(param.len()).unwrap_or(u32::MAX),
            target: Arc::from(target.as_slice()),
            header_token,
            body: Some(body),
            agent: None,
            // Reads have none that matters.
            form: (verb != Verb::Get).then(|| FormKind::of(headers)).flatten(),
            shared,
        }
    }

    /// The same as passed on by a client agent, if by any.
    pub(crate) fn of_agent(mut self, agent: Option<Arc<str>>) -> Self {
        self.agent = agent;
        self
    }

    /// The name of the node whose agent was asked: this server's, or that of the client agent which passed the request on.
    pub(crate) fn agent_node(&self) -> &str {
        self.agent.as_deref().unwrap_or(&self.shared.node.identity().node)
    }

    /// The same request as a stream of events runs it; without a body.
    pub(crate) fn following(&self, follow: Follow) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            route: self.route,
            verb: self.verb,
            explains: false,
            follow: Some(follow),
            facts: self.facts,
            query_at: self.query_at,
            target: Arc::clone(&self.target),
            header_token: self.header_token.clone(),
            agent: self.agent.clone(),
            form: None,
            body: None,
        }
    }

    /// Whether a stream of events waits for a change, and so wants no answer without one.
    pub(crate) fn follows_change(&self) -> bool {
        matches!(self.follow, Some(Follow::Change(_)))
    }

    /// What the client of a stream of events knows.
    pub(crate) fn followed(&self) -> Option<u64> {
        self.follow
            .map(|(Follow::Now(index) | Follow::Change(index))| index)
    }

    /// The index of what the client knows.
    pub(crate) fn since(&self, options: ReadOptions) -> u64 {
        self.followed().unwrap_or(options.min_index)
    }

    /// What follows the route's prefix in the path, decoded: a key, an id, a name.
    pub(crate) fn param(&self) -> &[u8] {
        self.target.get(..self.query_at as usize).unwrap_or_default()
    }

    /// The same as text; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn param_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.param())
    }

    pub(crate) fn query(&self) -> Query<'_> {
        Query::new(self.target.get(self.query_at as usize..).unwrap_or_default())
    }

    /// Parameter and query, to be kept beside the request, and how long the parameter is.
    pub(crate) fn shared_target(&self) -> (Arc<[u8]>, u32) {
        (Arc::clone(&self.target), self.query_at)
    }

    /// Parameter and query as they were sent: what makes two requests to one endpoint equal.
    pub(crate) fn target(&self) -> &[u8] {
        &self.target
    }

    pub(crate) fn layout(&self) -> Layout {
        if self.follow.is_some() {
            // An event's text has no line breaks.
            return Layout::default();
        }
        layout(self.query(), self.facts, &self.shared)
    }

    /// The token in Consul's order: query, X-Consul-Token, Authorization.
    pub(crate) fn token(&self) -> Option<String> {
        if !self.shared.acl.is_enabled() {
            return None;
        }
        query_token(self.query()).or_else(|| self.header_token.as_deref().map(str::to_owned))
    }

    /// Asks the access control hook.
    ///
    /// # Errors
    /// 403 in Consul's words.
    pub(crate) fn authorize(&self, resource: Resource<'_>, access: Access) -> Result<(), ApiError> {
        self.shared
            .acl
            .authorize(self.token().as_deref(), resource, access)
    }

    /// Consistency, index and wait; also refuses what only the paid edition knows.
    ///
    /// # Errors
    /// 400 in Consul's words.
    pub(crate) fn read_options(&self) -> Result<ReadOptions, ApiError> {
        let options = plain_read_options(self.query(), self.facts, &self.shared.limits)?;
        self.refuse_paid_features()?;
        Ok(self.followed_options(options))
    }

    /// Index and wait, where nothing is said of consistency; also refuses what only the paid edition knows.
    ///
    /// # Errors
    /// 400 in Consul's words.
    pub(crate) fn wait_options(&self) -> Result<ReadOptions, ApiError> {
        let options = with_waits(Consistency::Default, self.query(), &self.shared.limits)?;
        self.refuse_paid_features()?;
        Ok(self.followed_options(options))
    }

    /// The same for a stream of events, which knows better how to wait.
    fn followed_options(&self, mut options: ReadOptions) -> ReadOptions {
        match self.follow {
            None => {}
            Some(Follow::Now(_)) => options.min_index = 0,
            Some(Follow::Change(index)) => (options.min_index, options.wait) = (index, HEARTBEAT),
        }
        options
    }

    /// Refuses what only the paid edition knows, as far as the route looks for it.
    ///
    /// # Errors
    /// 400 in Consul's words.
    pub(crate) fn refuse_paid_features(&self) -> Result<(), ApiError> {
        Scope::of(self.route).refuse(self.query(), self.facts.named)
    }

    /// Refuses a datacenter that is not this one.
    ///
    /// # Errors
    /// 500 `No path to datacenter`.
    pub(crate) fn check_datacenter(&self) -> Result<(), ApiError> {
        check_datacenter(self.query(), &self.shared)
    }

    /// The length that the client announced; `None` for a chunked body.
    pub(crate) fn content_length(&self) -> Option<u64> {
        use hyper::body::Body as _;
        self.body
            .as_ref()
            .map_or(Some(0), |body| body.size_hint().exact())
    }

    /// Throws away a body that is refused for its length, within bounds. A connection that is closed on unread bytes
    /// is reset, and a client that still sends then never sees the answer. One that waits for `100 Continue` sends nothing,
    /// and reading would tell it to.
    pub(crate) async fn discard_body(&mut self) {
        const BYTES_MAX: usize = 4 << 20;
        const PATIENCE: Duration = Duration::from_millis(250);
        if let Some(body) = self.body.take()
            && !self.facts.expects_continue
        {
            // Whatever comes of it, the answer is the refusal.
            let reading = crate::body::read(body, BYTES_MAX, PATIENCE, self.route);
            let _ = tokio::time::timeout(PATIENCE, reading).await;
        }
    }

    /// The kind of form that the body is said to be.
    pub(crate) fn form(&self) -> Option<FormKind> {
        self.form
    }

    /// The body, to be read piece by piece; `None` when it was already taken.
    pub(crate) fn take_body(&mut self) -> Option<Incoming> {
        self.body.take()
    }

    /// Reads the body; empty when it was already taken.
    ///
    /// # Errors
    /// 413 beyond the limit, 400 or 500 when the client breaks off, 408 when it is too slow.
    pub(crate) async fn body(&mut self, limit_bytes: usize) -> Result<Bytes, ApiError> {
        match self.body.take() {
            Some(body) => {
                let grace = self.shared.limits.body_grace;
                crate::body::read(body, limit_bytes, grace, self.route).await
            }
            None => Ok(Bytes::new()),
        }
    }
}

/// How the body goes to this client.
pub(crate) fn layout(query: Query<'_>, facts: HeaderFacts, shared: &Shared) -> Layout {
    let indent = match (query.has("pretty"), shared.options.indent_json) {
        (true, _) => Indent::Pretty,
        (false, true) => Indent::Development,
        (false, false) => Indent::None,
    };
    Layout {
        indent,
        gzip: facts.gzip,
    }
}

/// See [`Ctx::check_datacenter`]. An empty name means this datacenter; `datacenter` wins over `dc`.
pub(crate) fn check_datacenter(query: Query<'_>, shared: &Shared) -> Result<(), ApiError> {
    let asked = query.non_empty("datacenter").or_else(|| query.non_empty("dc"));
    match asked {
        Some(name) if *name != *shared.node.identity().datacenter => Err(ApiError::no_path_to_datacenter()),
        _ => Ok(()),
    }
}

/// See [`Ctx::read_options`]; of a route that looks for all that the paid edition knows.
pub(crate) fn read_options(
    query: Query<'_>,
    facts: HeaderFacts,
    limits: &Limits,
) -> Result<ReadOptions, ApiError> {
    let options = plain_read_options(query, facts, limits)?;
    Scope::All.refuse(query, facts.named)?;
    Ok(options)
}

fn plain_read_options(
    query: Query<'_>,
    facts: HeaderFacts,
    limits: &Limits,
) -> Result<ReadOptions, ApiError> {
    let consistency = consistency(query)?;
    if facts.bad_cache_control {
        return Err(ApiError::bad_request("Invalid Cache-Control header."));
    }
    with_waits(consistency, query, limits)
}

fn with_waits(consistency: Consistency, query: Query<'_>, limits: &Limits) -> Result<ReadOptions, ApiError> {
    let mut options = ReadOptions {
        consistency,
        min_index: 0,
        wait: limits.wait_default,
    };
    if let Some(wait) = query.non_empty("wait") {
        let nanos = go::parse_duration(&wait).map_err(|_| ApiError::bad_request("Invalid wait time"))?;
        // Zero and less mean the default, as if nothing had been asked for.
        if let Ok(nanos @ 1..) = u64::try_from(nanos) {
            options.wait = Duration::from_nanos(nanos).min(limits.wait_max);
        }
    }
    if let Some(index) = query.non_empty("index") {
        options.min_index =
            go::parse_uint(index.as_bytes()).map_err(|_| ApiError::bad_request("Invalid index"))?;
    }
    Ok(options)
}

fn consistency(query: Query<'_>) -> Result<Consistency, ApiError> {
    let mut stale = query.has("stale");
    let consistent = query.has("consistent");
    if let Some(max_stale) = query.non_empty("max_stale") {
        let nanos = go::parse_duration(&max_stale).map_err(|_| {
            let quoted = go::quote(max_stale.as_bytes());
            ApiError::bad_request(format!("Invalid max_stale value {quoted}"))
        })?;
        // Zero and less ask for nothing.
        stale |= nanos > 0;
    }
    if stale && consistent {
        return Err(ApiError::bad_request(
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ));
    }
    if consistent && query.has("cached") {
        return Err(ApiError::bad_request(
            "Cannot specify ?cached with ?consistent, conflicting semantics.",
        ));
    }
    Ok(match (stale, consistent) {
        (true, _) => Consistency::Stale,
        (_, true) => Consistency::Consistent,
        _ => Consistency::Default,
    })
}

/// Whether `?explain` or `X-Lictor-Explain` is given; the header is off by `0` and by an empty value.
fn asks_to_explain(query: Query<'_>, headers: &HeaderMap) -> bool {
    let header = headers.get(X_EXPLAIN).map(|value| value.as_bytes().trim_ascii());
    header.is_some_and(|value| !matches!(value, b"" | b"0")) || query.has("explain")
}

/// The token of a request whose headers are still at hand; see [`Ctx::token`].
pub(crate) fn token(shared: &Shared, query: Query<'_>, headers: &HeaderMap) -> Option<String> {
    if !shared.acl.is_enabled() {
        return None;
    }
    query_token(query).or_else(|| header_token(headers).map(String::from))
}

fn query_token(query: Query<'_>) -> Option<String> {
    query.non_empty("token").map(std::borrow::Cow::into_owned)
}

fn header_token(headers: &HeaderMap) -> Option<Box<str>> {
    let text = |name: &HeaderName| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .filter(|t| !t.is_empty())
    };
    if let Some(token) = text(&X_TOKEN) {
        return Some(token.into());
    }
    let (scheme, token) = text(&header::AUTHORIZATION)?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.into())
}

/// Whether `gzip` is named with a weight above zero. `*` does not count (a recorded answer).
fn accepts_gzip(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else {
        return false;
    };
    value.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        named
            && parts.all(|part| match part.split_once('=') {
                Some((name, weight)) if name.trim().eq_ignore_ascii_case("q") => {
                    weight.trim().parse::<f32>().is_ok_and(|q| q > 0.0)
                }
                _ => true,
            })
    })
}

/// Consul reads `max-age` and `stale-if-error` as seconds and ignores everything else.
fn cache_control_parses(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else {
        return false;
    };
    value
        .split(',')
        .all(|directive| match directive.trim().split_once('=') {
            Some((name, seconds))
                if matches!(
                    name.trim().to_ascii_lowercase().as_str(),
                    "max-age" | "stale-if-error"
                ) =>
            {
                seconds.trim().parse::<u32>().is_ok()
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use lictor_proto::limits::{WAIT_DEFAULT, WAIT_MAX};

    use super::*;

    fn parsed(query: &str) -> Result<ReadOptions, String> {
        let (query, limits) = (Query::new(query.as_bytes()), Limits::default());
        read_options(query, HeaderFacts::default(), &limits).map_err(|e| e.text().to_owned())
    }

    #[test]
    fn gzip_must_be_named_with_a_weight() {
        for value in ["gzip", "deflate, gzip;q=1.0", "GZIP;q=0.5"] {
            assert!(accepts_gzip(value.as_bytes()), "{value}");
        }
        for value in ["", "gzip;q=0", "deflate", "*", "x-gzip2", "gzip;q=x"] {
            assert!(!accepts_gzip(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn wait_and_index_are_refused_in_consuls_words() {
        for query in ["wait=10", "wait=1d", "index=5&wait=x"] {
            assert_eq!(parsed(query).unwrap_err(), "Invalid wait time", "{query}");
        }
        for query in ["index=abc", "index=-1", "index=1.5"] {
            assert_eq!(parsed(query).unwrap_err(), "Invalid index", "{query}");
        }
        let options = parsed("index=7&wait=90m").unwrap();
        assert_eq!((options.min_index, options.wait), (7, WAIT_MAX));
        let options = parsed("index=&wait=").unwrap();
        assert_eq!((options.min_index, options.wait), (0, WAIT_DEFAULT));
    }

    #[test]
    fn conflicting_consistency_modes_are_refused() {
        assert!(
            parsed("stale&consistent")
                .unwrap_err()
                .starts_with("Cannot specify ?stale")
        );
        assert!(
            parsed("max_stale=10s&consistent")
                .unwrap_err()
                .starts_with("Cannot specify ?stale")
        );
        assert!(
            parsed("cached&consistent")
                .unwrap_err()
                .starts_with("Cannot specify ?cached")
        );
        assert_eq!(
            parsed("max_stale=junk").unwrap_err(),
            "Invalid max_stale value \"junk\""
        );
        assert_eq!(parsed("stale=false").unwrap().consistency, Consistency::Stale);
        for (query, expected) in [
            ("max_stale=1ns", Consistency::Stale),
            ("max_stale=0", Consistency::Default),
            ("max_stale=-1s&consistent", Consistency::Consistent),
        ] {
            assert_eq!(parsed(query).unwrap().consistency, expected, "{query}");
        }
    }

    #[test]
    fn cache_control_must_carry_numbers() {
        for value in [
            "max-age=30",
            "must-revalidate",
            "no-cache",
            "max-age=0, must-revalidate",
        ] {
            assert!(cache_control_parses(value.as_bytes()), "{value}");
        }
        for value in ["max-age=junk", "stale-if-error=x"] {
            assert!(!cache_control_parses(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn bearer_is_the_only_scheme_that_is_a_token() {
        let token = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            header_token(&headers)
        };
        assert_eq!(
            token(header::AUTHORIZATION, "bEARER  abc").as_deref(),
            Some("abc")
        );
        assert_eq!(token(header::AUTHORIZATION, "Basic abc"), None);
        assert_eq!(token(X_TOKEN, "t").as_deref(), Some("t"));
    }
}
