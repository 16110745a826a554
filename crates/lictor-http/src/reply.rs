//! What a handler answers, and the one place that turns it into an HTTP response with its headers.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use lictor_node::ReadMeta;

use crate::answer::{Body, Flow};
use crate::json;
use crate::list::{Pieces, Rest};

/// Bodies below this many bytes are never compressed (Consul: gzip from 1400 bytes).
const GZIP_MIN_BYTES: usize = 1400;

const X_INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const X_KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const X_LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const X_QUERY_BACKEND: HeaderName = HeaderName::from_static("x-consul-query-backend");
const X_EFFECTIVE_CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");
const X_DEFAULT_ACL_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// What stored values are sent as; Consul names no encoding.
const RAW: HeaderValue = HeaderValue::from_static("text/plain");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a read says about the data it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// `X-Consul-Index`; absent where Consul sends none. Shown as at least 1.
    pub(crate) index: Option<u64>,
    pub(crate) known_leader: bool,
    pub(crate) last_contact_ms: u64,
    /// Whether `X-Consul-Query-Backend` is sent; transactions do without.
    pub(crate) query_backend: bool,
    /// `X-Consul-Effective-Consistency`, which catalog and health reads send.
    pub(crate) effective_consistency: Option<&'static str>,
}

impl Meta {
    /// The headers of an ordinary read.
    pub(crate) fn new(index: u64, read: ReadMeta) -> Self {
        Self {
            index: Some(index),
            known_leader: read.known_leader,
            last_contact_ms: read.last_contact_ms,
            query_backend: true,
            effective_consistency: None,
        }
    }

    /// The headers of a read that failed before it saw any data.
    pub(crate) fn failed_read() -> Self {
        Self::new(
            1,
            ReadMeta {
                known_leader: false,
                last_contact_ms: 0,
            },
        )
    }
}

/// The kinds of body that Consul's API knows.
#[derive(Debug, Clone)]
enum Payload {
    /// No body and no Content-Type.
    Nothing,
    /// Compact JSON, indented on the way out if asked for.
    Json(Bytes),
    /// Text for people.
    Text(Bytes),
    /// A page for a browser.
    Html(Bytes),
    /// The first piece of a long list, compact, and what the others are written from.
    List(Bytes, Box<Rest>, Layout),
    /// A file of the web page, with its Content-Type, compressed where it pays.
    File(HeaderValue, Bytes),
    /// A stored value as it is, with headers that keep a browser from running it.
    Raw(Bytes),
    /// What comes piece by piece, with a Content-Type of its own.
    Flow(Flow),
}

/// A body as one line of JSON.
pub(crate) enum Text {
    /// There is none.
    Missing,
    Whole(Bytes),
    /// What is long comes piece by piece.
    Pieces(Box<Pieces>),
}

/// The answer of a handler.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: StatusCode,
    payload: Payload,
    meta: Option<Meta>,
    /// Headers beyond the common ones; rare.
    extra: Vec<(HeaderName, HeaderValue)>,
    /// The body is laid out and compressed already.
    is_prepared: bool,
}

impl Reply {
    fn new(status: StatusCode, payload: Payload) -> Self {
        Self {
            status,
            payload,
            meta: None,
            extra: Vec::new(),
            is_prepared: false,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// 200 with a value as JSON.
    pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> Self {
        Self::json_bytes(json::to_vec(value))
    }

    /// 200 with JSON that is already written, compact.
    pub(crate) fn json_bytes(compact: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, Payload::Json(compact.into()))
    }

    /// 200 with JSON that goes out byte by byte as it is, whatever layout the client asks for.
    pub(crate) fn json_as_it_is(json: impl Into<Bytes>) -> Self {
        Self {
            is_prepared: true,
            ..Self::json_bytes(json)
        }
    }

    /// 200 with a long list, of which the first piece is written, compact.
    pub(crate) fn list(first: Bytes, rest: Rest) -> Self {
        Self::new(
            StatusCode::OK,
            Payload::List(first, Box::new(rest), Layout::default()),
        )
    }

    /// 200 with `true` or `false`.
    pub(crate) fn bool(value: bool) -> Self {
        Self::json_bytes(Bytes::from_static(if value { b"true" } else { b"false" }))
    }

    /// A status with a text.
    pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status, Payload::Text(text.into()))
    }

    /// A status with a page.
    pub(crate) fn html(status: StatusCode, page: impl Into<Bytes>) -> Self {
        Self::new(status, Payload::Html(page.into()))
    }

    /// 200 with a file that is laid out and compressed already.
    pub(crate) fn file(content_type: HeaderValue, body: Bytes) -> Self {
        Self::new(StatusCode::OK, Payload::File(content_type, body))
    }

    /// A status without a body or Content-Type.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self::new(status, Payload::Nothing)
    }

    /// Stands for no answer, where a stream of events waits for a change and there is none.
    pub(crate) fn unchanged() -> Self {
        Self::empty(StatusCode::NOT_MODIFIED)
    }

    pub(crate) fn is_unchanged(&self) -> bool {
        self.status == StatusCode::NOT_MODIFIED
    }

    /// Whether this shows something, or that there is nothing, and is no failure.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.status, StatusCode::OK | StatusCode::NOT_FOUND)
    }

    pub(crate) fn meta(&self) -> Option<Meta> {
        self.meta
    }

    /// The body as compact JSON, before it was [`Self::prepared`]; `None` for one that is none.
    pub(crate) fn into_text(self) -> Option<Text> {
        match self.payload {
            Payload::Nothing => Some(Text::Missing),
            Payload::Json(body) => Some(Text::Whole(body)),
            Payload::List(first, rest, _) => {
                let pieces = Pieces::new(first, *rest, Layout::default());
                Some(Text::Pieces(Box::new(pieces)))
            }
            Payload::Text(_) | Payload::Html(_) | Payload::File(..) | Payload::Raw(_) | Payload::Flow(_) => {
                None
            }
        }
    }

    /// Neither laid out anew nor compressed.
    pub(crate) fn laid_out_already(mut self) -> Self {
        self.is_prepared = true;
        self
    }

    /// 200 with an empty body of Content-Type application/json, as many agent endpoints answer.
    pub(crate) fn empty_json() -> Self {
        Self::json_bytes(Bytes::new())
    }

    /// 200 with a stored value as it is.
    pub(crate) fn raw(value: Bytes) -> Self {
        Self::new(StatusCode::OK, Payload::Raw(value))
    }

    /// 200 with what comes piece by piece.
    pub(crate) fn flow(pieces: Flow) -> Self {
        Self::new(StatusCode::OK, Payload::Flow(pieces))
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn with_meta(mut self, meta: Meta) -> Self {
        self.meta = Some(meta);
        self
    }

    /// Adds `X-Consul-Effective-Consistency` to the headers of a read.
    pub(crate) fn with_effective_consistency(mut self, consistency: &'static str) -> Self {
        if let Some(meta) = &mut self.meta {
            meta.effective_consistency = Some(consistency);
        }
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.extra.push((name, value));
        self
    }

    /// Whether a header of that name was set.
    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.extra.iter().any(|(set, _)| set == name)
    }

    /// How many bytes the body has as it stands; no bound of any holds for a long list.
    pub(crate) fn body_len(&self) -> usize {
        match &self.payload {
            Payload::Nothing => 0,
            Payload::List(..) | Payload::Flow(_) => usize::MAX,
            Payload::Json(body)
            | Payload::Text(body)
            | Payload::Html(body)
            | Payload::File(_, body)
            | Payload::Raw(body) => body.len(),
        }
    }

    /// Applies layout and compression to the body, so that the reply can be kept and shared as it goes out.
    pub(crate) fn prepared(mut self, layout: Layout) -> Self {
        if std::mem::replace(&mut self.is_prepared, true) {
            return self;
        }
        if let Payload::List(_, _, of_list) = &mut self.payload {
            *of_list = layout;
            if layout.gzip {
                self.extra
                    .push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            }
        }
        if let Payload::Json(body) = &mut self.payload
            && !body.is_empty()
            && layout.indent != Indent::None
        {
            let mut text = json::indented(body);
            if layout.indent == Indent::Pretty {
                text.push(b'\n');
            }
            *body = text.into();
        }
        if layout.gzip
            && let Payload::Json(body) | Payload::Text(body) | Payload::Raw(body) = &mut self.payload
            && body.len() >= GZIP_MIN_BYTES
            && let Some(packed) = gzip(body)
        {
            *body = packed;
            self.extra
                .push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        self
    }

    /// The response. `reuse` is a header map whose allocation may be used again; its content is dropped.
    /// `configured` are headers that the operator adds to every answer.
    pub(crate) fn into_response(
        self,
        reuse: HeaderMap,
        policy: Policy,
        configured: &HeaderMap,
    ) -> Response<Body> {
        let mut headers = reuse;
        headers.clear();
        let body = match self.payload {
            Payload::Nothing => Body::default(),
            Payload::Json(body) => {
                headers.insert(header::CONTENT_TYPE, JSON);
                whole(body)
            }
            Payload::List(first, rest, layout) => {
                headers.insert(header::CONTENT_TYPE, JSON);
                Body::Pieces(Box::new(Pieces::new(first, *rest, layout)))
            }
            Payload::Flow(pieces) => Body::Flow(pieces),
            Payload::Text(body) => {
                headers.insert(header::CONTENT_TYPE, TEXT);
                whole(body)
            }
            Payload::Html(body) => {
                headers.insert(header::CONTENT_TYPE, HTML);
                whole(body)
            }
            Payload::File(content_type, body) => {
                headers.insert(header::CONTENT_TYPE, content_type);
                whole(body)
            }
            Payload::Raw(body) => {
                headers.insert(header::CONTENT_TYPE, RAW);
                headers.insert(
                    header::X_CONTENT_TYPE_OPTIONS,
                    HeaderValue::from_static("nosniff"),
                );
                headers.insert(
                    header::CONTENT_SECURITY_POLICY,
                    HeaderValue::from_static("sandbox"),
                );
                whole(body)
            }
        };
        if let Some(value) = policy.value() {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            headers.insert(X_DEFAULT_ACL_POLICY, value);
        }
        if let Some(meta) = self.meta {
            insert_meta(&mut headers, meta);
        }
        for (name, value) in self.extra {
            headers.append(name, value);
        }
        if !configured.is_empty() {
            insert_configured(&mut headers, configured);
        }
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

fn whole(body: Bytes) -> Body {
    Body::Whole(Full::new(body))
}

fn insert_meta(headers: &mut HeaderMap, meta: Meta) {
    if let Some(index) = meta.index {
        headers.insert(X_INDEX, HeaderValue::from(index.max(1)));
    }
    let known = if meta.known_leader { "true" } else { "false" };
    headers.insert(X_KNOWN_LEADER, HeaderValue::from_static(known));
    let last_contact = match meta.last_contact_ms {
        0 => HeaderValue::from_static("0"),
        ms => HeaderValue::from(ms),
    };
    headers.insert(X_LAST_CONTACT, last_contact);
    if meta.query_backend {
        headers.insert(X_QUERY_BACKEND, HeaderValue::from_static("blocking-query"));
    }
    if let Some(consistency) = meta.effective_consistency {
        headers.insert(X_EFFECTIVE_CONSISTENCY, HeaderValue::from_static(consistency));
    }
}

/// What the API says itself wins, but for `Vary` (a recorded order).
fn insert_configured(headers: &mut HeaderMap, configured: &HeaderMap) {
    for (name, value) in configured {
        if name == header::VARY || !headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// How a body is laid out on its way to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub(crate) indent: Indent,
    /// Whether the client takes gzip.
    pub(crate) gzip: bool,
}

/// How JSON is indented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Indent {
    #[default]
    None,
    /// By four spaces, as everything is in development mode.
    Development,
    /// By four spaces with a newline at the end: `?pretty`.
    Pretty,
}

/// The default ACL policy as shown in a header, which only served endpoints send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Not an endpoint: neither `Vary` nor the policy is sent.
    Unserved,
    Allow,
}

impl Policy {
    fn value(self) -> Option<HeaderValue> {
        match self {
            Self::Unserved => None,
            Self::Allow => Some(HeaderValue::from_static("allow")),
        }
    }
}

/// The body compressed; quickly rather than well, since most bodies go out once.
pub(crate) fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    // Writing to memory does not fail; if it did, the body would go out as it is.
    encoder.write_all(body).ok()?;
    Some(encoder.finish().ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers_of(reply: Reply) -> HeaderMap {
        reply
            .into_response(HeaderMap::new(), Policy::Allow, &HeaderMap::new())
            .headers()
            .clone()
    }

    impl Reply {
        /// A body that comes in pieces.
        pub(crate) fn into_pieces(self) -> Pieces {
            match self.payload {
                Payload::List(first, rest, layout) => Pieces::new(first, *rest, layout),
                other => panic!("not in pieces: {other:?}"),
            }
        }

        /// A header beyond the common ones.
        pub(crate) fn extra_header(&self, wanted: &HeaderName) -> Option<&HeaderValue> {
            let mut found = self.extra.iter().filter(|(name, _)| name == wanted);
            found.next().map(|(_, value)| value)
        }

        /// A body that is JSON in one piece.
        pub(crate) fn body_text(&self) -> String {
            match &self.payload {
                Payload::Json(body) => String::from_utf8(body.to_vec()).unwrap(),
                other => panic!("not whole: {other:?}"),
            }
        }
    }

    #[test]
    fn the_index_is_never_zero() {
        let read = ReadMeta {
            known_leader: true,
            last_contact_ms: 0,
        };

        let headers = headers_of(Reply::bool(true).with_meta(Meta::new(0, read)));

        assert_eq!(headers[X_INDEX], "1");
        assert_eq!(headers[X_KNOWN_LEADER], "true");
        assert_eq!(headers[X_QUERY_BACKEND], "blocking-query");
    }

    #[test]
    fn an_empty_answer_has_no_content_type() {
        let headers = headers_of(Reply::empty(StatusCode::NOT_FOUND));

        assert!(!headers.contains_key(header::CONTENT_TYPE));
        assert_eq!(headers[header::VARY], "Accept-Encoding");
        assert_eq!(headers[X_DEFAULT_ACL_POLICY], "allow");
    }

    #[test]
    fn only_bodies_of_1400_bytes_and_more_are_compressed() {
        let layout = Layout {
            gzip: true,
            ..Layout::default()
        };
        for (len, packed) in [(1399, false), (1400, true)] {
            let reply = Reply::raw(vec![b'x'; len].into()).prepared(layout);
            assert_eq!(
                headers_of(reply).contains_key(header::CONTENT_ENCODING),
                packed,
                "{len}"
            );
        }
    }

    #[test]
    fn pretty_ends_in_a_newline_and_development_mode_does_not() {
        for (indent, expected) in [
            (Indent::Pretty, "[\n    1\n]\n"),
            (Indent::Development, "[\n    1\n]"),
            (Indent::None, "[1]"),
        ] {
            let reply = Reply::json(&[1]).prepared(Layout { indent, gzip: false });
            assert!(matches!(reply.payload, Payload::Json(body) if body == expected));
        }
    }
}
