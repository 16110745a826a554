//! Which pages of other origins may read the answers (CORS).
//!
//! A browser gives a page of another origin an answer only if the answer's headers allow it. All answers carry them,
//! errors and redirects included: a page must see why a request failed, and may follow a server to another one.

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("accept, content-type, x-consul-token, authorization, if-none-match");
/// Without these a page could not wait for changes.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("X-Consul-Index, X-Consul-KnownLeader, X-Consul-LastContact, X-Etcd-Index");
/// How long a browser may remember the answer to its question what is allowed.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// The headers that an answer gains.
pub(crate) type Grant = Arc<HeaderMap>;

/// The origins whose pages may read answers. None by default.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    all: Option<Grant>,
    listed: Vec<(HeaderValue, Grant)>,
}

impl Cors {
    /// Allows these origins, such as `https://example.com:8443`; `*` stands for all.
    pub fn new(origins: impl IntoIterator<Item = HeaderValue>) -> Self {
        let mut cors = Self::default();
        for origin in origins {
            if origin == "*" {
                cors.all = Some(Arc::new(grant(&origin)));
            } else {
                let mut headers = grant(&origin);
                headers.insert(header::VARY, HeaderValue::from_static("Origin"));
                cors.listed.push((origin, Arc::new(headers)));
            }
        }
        cors
    }

    /// Whether no origin is allowed.
    pub(crate) fn is_off(&self) -> bool {
        self.all.is_none() && self.listed.is_empty()
    }

    /// What the answer to a request with these headers gains. Origins are compared byte by byte.
    pub(crate) fn grant(&self, request: &HeaderMap) -> Option<Grant> {
        if self.all.is_some() {
            return self.all.clone();
        }
        let origin = request.get(header::ORIGIN)?;
        let mut listed = self.listed.iter();
        listed
            .find(|(allowed, _)| allowed == origin)
            .map(|(_, grant)| Arc::clone(grant))
    }
}

fn grant(origin: &HeaderValue) -> HeaderMap {
    [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
    ]
    .into_iter()
    .collect()
}

/// What the answer to a preflight gains beside the grant.
pub(crate) const PREFLIGHT: (HeaderName, HeaderValue) = (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);

/// Adds a grant to an answer. It wins over what the operator configured for all answers; `Vary` is added to.
pub(crate) fn allow(answer: &mut HeaderMap, grant: &HeaderMap) {
    for (name, value) in grant {
        if name == header::VARY {
            answer.append(name, value.clone());
        } else {
            answer.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(list: &[&'static str], origin: Option<&'static str>) -> Option<HeaderValue> {
        let cors = Cors::new(list.iter().map(|text| HeaderValue::from_static(text)));
        let mut request = HeaderMap::new();
        if let Some(origin) = origin {
            request.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        let grant = cors.grant(&request)?;
        Some(grant[header::ACCESS_CONTROL_ALLOW_ORIGIN].clone())
    }

    #[test]
    fn a_star_allows_every_origin_and_requests_without_one() {
        for origin in [None, Some("http://a.example"), Some("null")] {
            assert_eq!(
                granted(&["http://a.example", "*"], origin).unwrap(),
                "*",
                "{origin:?}"
            );
        }
    }

    #[test]
    fn listed_origins_are_compared_to_the_letter() {
        let list = ["http://a.example", "https://b.example:8443"];

        assert_eq!(
            granted(&list, Some("http://a.example")).unwrap(),
            "http://a.example"
        );
        for origin in [
            None,
            Some("https://a.example"),
            Some("http://A.example"),
            Some("http://a.example:80"),
            Some("https://b.example"),
            Some("null"),
        ] {
            assert_eq!(granted(&list, origin), None, "{origin:?}");
        }
    }

    #[test]
    fn without_origins_nothing_is_allowed() {
        assert!(Cors::new([]).is_off());
        assert_eq!(granted(&[], Some("http://a.example")), None);
    }

    #[test]
    fn what_an_answer_depends_on_is_added_to_what_it_depended_on_before() {
        let cors = Cors::new([HeaderValue::from_static("http://a.example")]);
        let mut headers = HeaderMap::new();
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let mut request = HeaderMap::new();
        request.insert(header::ORIGIN, HeaderValue::from_static("http://a.example"));

        allow(&mut headers, &cors.grant(&request).unwrap());

        let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
        assert_eq!(vary, ["Accept-Encoding", "Origin"]);
        let origins: Vec<_> = headers
            .get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN)
            .iter()
            .collect();
        assert_eq!(origins, ["http://a.example"]);
    }
}
