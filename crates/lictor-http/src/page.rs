//! The web page: files built ahead from `ui/`, carried in the binary, served below [`HOMES`].
//!
//! The page is one file; its script picks the view from the path. So every path that is no file answers that page.
//! Nothing here reads or writes data: the page's script is a client of the API like any other.

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::ctx::HeaderFacts;
use crate::reply::{Reply, gzip};

/// Where the page lives: Consul's path, and that of etcd's dashboard.
const HOMES: [&str; 2] = ["/ui/", "/mod/dashboard/"];

/// Scripts and styles come from this server alone. Connections go wherever the user points the page: it may work
/// against another server, which has to allow that by CORS.
const SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self' http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// One file of the page, as it goes out.
struct File {
    name: &'static str,
    content_type: HeaderValue,
    body: Bytes,
    packed: Option<Bytes>,
    /// The first characters of the content's hash. The page asks for its files with this as query.
    version: String,
}

impl File {
    fn new(name: &'static str, content_type: &'static str, body: &'static [u8]) -> Self {
        let hash = Sha256::digest(body);
        Self {
            name,
            content_type: HeaderValue::from_static(content_type),
            body: Bytes::from_static(body),
            packed: gzip(body),
            version: hex::encode(&hash[..6]),
        }
    }

    /// `forever`: what the client asked for can never be anything else.
    fn answer(&self, headers: &HeaderMap, forever: bool) -> Reply {
        let tag = format!("\"{}\"", self.version);
        let known = headers.get_all(header::IF_NONE_MATCH).iter();
        let is_known = known.filter_map(|value| value.to_str().ok()).any(|tags| {
            tags.split(',')
                .any(|one| one.trim().trim_start_matches("W/") == tag)
        });
        let packed = self.packed.as_ref();
        let reply = if is_known {
            Reply::empty(StatusCode::NOT_MODIFIED)
        } else if let Some(packed) = packed.filter(|_| HeaderFacts::read(headers).gzip) {
            Reply::file(self.content_type.clone(), packed.clone())
                .with_header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
        } else {
            Reply::file(self.content_type.clone(), self.body.clone())
        };
        let caching = if forever {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let reply = reply
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static(caching))
            .with_header(header::VARY, HeaderValue::from_static("Accept-Encoding"))
            .with_header(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
        match HeaderValue::try_from(tag) {
            Ok(tag) => reply.with_header(header::ETAG, tag),
            Err(_) => reply,
        }
    }
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File::new(
            $name,
            $content_type,
            include_bytes!(concat!("../../../ui/dist/", $name)),
        )
    };
}

static PAGE: LazyLock<File> = LazyLock::new(|| file!("index.html", "text/html; charset=utf-8"));

static FILES: LazyLock<[File; 3]> = LazyLock::new(|| {
    [
        file!("app.js", "text/javascript; charset=utf-8"),
        file!("app.css", "text/css; charset=utf-8"),
        file!("icon.svg", "image/svg+xml"),
    ]
});

/// The answer to a path (decoded) that no endpoint serves; `None` if it is not the page's either.
pub(crate) fn answer(
    method: &Method,
    path: &[u8],
    query: Option<&str>,
    headers: &HeaderMap,
) -> Option<Reply> {
    if path == b"/" {
        return Some(moved(StatusCode::MOVED_PERMANENTLY, HOMES[0]));
    }
    let home = HOMES
        .into_iter()
        .find(|home| path.starts_with(&home.as_bytes()[..home.len() - 1]))?;
    let below = match path[home.len() - 1..].split_first() {
        None => return Some(moved(StatusCode::FOUND, home)),
        Some((b'/', below)) => below,
        Some(_) => return None,
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        let text = format!("method {method} not allowed");
        let reply = Reply::text(StatusCode::METHOD_NOT_ALLOWED, text);
        return Some(reply.with_header(header::ALLOW, HeaderValue::from_static("GET,HEAD")));
    }
    let Some(name) = below.strip_prefix(b"static/") else {
        return Some(page(headers));
    };
    let reply = match FILES.iter().find(|file| file.name.as_bytes() == name) {
        Some(file) => file.answer(headers, query == Some(&file.version)),
        None => Reply::text(StatusCode::NOT_FOUND, [path, b": File not found"].concat()),
    };
    Some(reply)
}

fn page(headers: &HeaderMap) -> Reply {
    PAGE.answer(headers, false)
        .with_header(header::CONTENT_SECURITY_POLICY, SECURITY_POLICY)
        // Keys stand in the page's address.
        .with_header(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
}

fn moved(status: StatusCode, to: &'static str) -> Reply {
    Reply::empty(status).with_header(header::LOCATION, HeaderValue::from_static(to))
}
