//! What Go's server refuses in the head of a request of HTTP/1 before anything looks at it, and hyper lets through.

use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::answer::Body;
use crate::reply::{Policy, Reply};

/// The answer to a request that goes no further; the connection ends with it.
pub(crate) fn refusal<B>(request: &Request<B>) -> Option<Response<Body>> {
    let fault = fault(request)?;
    let (status, text) = match fault {
        Fault::Encoding => (
            StatusCode::NOT_IMPLEMENTED,
            "Unsupported transfer encoding".to_owned(),
        ),
        Fault::Expectation => (StatusCode::EXPECTATION_FAILED, String::new()),
        Fault::Host(why) => (StatusCode::BAD_REQUEST, format!("400 Bad Request{why}")),
    };
    let reply = if text.is_empty() {
        Reply::empty(status)
    } else {
        Reply::text(status, text)
    };
    let reply = reply.with_header(CONNECTION, HeaderValue::from_static("close"));
    let mut response = reply.into_response(HeaderMap::new(), Policy::Unserved, &HeaderMap::new());
    if let Fault::Host(why) = fault
        && let Ok(reason) = ReasonPhrase::try_from(format!("Bad Request{why}").into_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    Some(response)
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// A body that is more than cut into chunks.
    Encoding,
    /// Something else than `100-continue` is expected.
    Expectation,
    /// No host, several, or one that cannot be; what is said of it.
    Host(&'static str),
}

fn fault<B>(request: &Request<B>) -> Option<Fault> {
    let headers = request.headers();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next()
        && (encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Some(Fault::Encoding);
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Some(Fault::Host("")),
        (Some(host), None) if !host.as_bytes().iter().copied().all(is_of_a_host) => {
            return Some(Fault::Host(": malformed Host header"));
        }
        (None, _) if request.version() == Version::HTTP_11 && request.method() != Method::CONNECT => {
            return Some(Fault::Host(": missing required Host header"));
        }
        _ => {}
    }
    let expected = headers.get(EXPECT).map(HeaderValue::as_bytes);
    let is_known = |expected: &[u8]| expected.is_empty() || expected.eq_ignore_ascii_case(b"100-continue");
    match expected {
        Some(expected) if !is_known(expected) => Some(Fault::Expectation),
        _ => None,
    }
}

/// The bytes that were seen to be taken.
fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(version: Version, headers: &[(&'static str, &'static str)]) -> Option<Fault> {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        fault(&request.body(()).unwrap())
    }

    #[test]
    fn a_request_names_one_host_that_can_be() {
        let missing = Some(Fault::Host(": missing required Host header"));
        assert_eq!(found(Version::HTTP_11, &[]), missing);
        assert_eq!(found(Version::HTTP_10, &[]), None);
        assert_eq!(
            found(Version::HTTP_11, &[("host", "a"), ("host", "a")]),
            Some(Fault::Host(""))
        );
        for host in ["", "localhost:8500", "[::1]:80", "a_b~,;(x)!", "%41"] {
            assert_eq!(found(Version::HTTP_11, &[("host", host)]), None, "{host}");
        }
        for host in [
            "a b", "a/b", "a@b", "x?y", "a#b", "{x}", "a\\b", "a\"b", "a|b", "a^b", "a`b",
        ] {
            let malformed = Some(Fault::Host(": malformed Host header"));
            assert_eq!(found(Version::HTTP_11, &[("host", host)]), malformed, "{host}");
        }
    }

    #[test]
    fn bodies_are_cut_into_chunks_and_nothing_else() {
        let with = |encodings: &[&'static str]| {
            let encodings = encodings.iter().map(|encoding| ("transfer-encoding", *encoding));
            let headers: Vec<_> = std::iter::once(("host", "x")).chain(encodings).collect();
            found(Version::HTTP_11, &headers)
        };
        assert_eq!(with(&["chunked"]), None);
        assert_eq!(with(&["CHUNKED"]), None);
        assert_eq!(with(&["gzip, chunked"]), Some(Fault::Encoding));
        assert_eq!(with(&["chunked", "chunked"]), Some(Fault::Encoding));
    }

    #[test]
    fn only_a_go_ahead_may_be_expected() {
        let with = |expected| found(Version::HTTP_11, &[("host", "x"), ("expect", expected)]);

        assert_eq!(with("100-continue"), None);
        assert_eq!(with("100-CONTINUE"), None);
        assert_eq!(with(""), None);
        assert_eq!(with("foo"), Some(Fault::Expectation));
    }
}
