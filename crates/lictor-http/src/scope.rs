//! What of Consul's paid edition a request names: a namespace, a partition. Routes differ in what they look for; the rest
//! is nothing to them.

use hyper::header::{HeaderMap, HeaderName};

use crate::error::ApiError;
use crate::query::Query;

pub(crate) const X_NAMESPACE: HeaderName = HeaderName::from_static("x-consul-namespace");
pub(crate) const X_PARTITION: HeaderName = HeaderName::from_static("x-consul-partition");

/// What the headers name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Named {
    namespace: bool,
    partition: bool,
}

impl Named {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let names = |header| headers.get(header).is_some_and(|value| !value.is_empty());
        Self {
            namespace: names(X_NAMESPACE),
            partition: names(X_PARTITION),
        }
    }
}

/// What a route looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Nothing,
    /// What is known of nodes is known in no namespace.
    Partitions,
    All,
}

impl Scope {
    pub(crate) fn of(route: &str) -> Self {
        match route {
            "/v1/txn"
            | "/v1/snapshot"
            | "/v1/query"
            | "/v1/query/"
            | "/v1/event/fire/"
            | "/v1/event/list"
            | "/v1/operator/raft/configuration"
            | "/v1/operator/raft/peer"
            | "/v1/operator/autopilot/configuration"
            | "/v1/operator/autopilot/health"
            | "/v1/operator/autopilot/state"
            | "/v1/operator/keyring"
            | "/v1/status/leader"
            | "/v1/status/peers" => Self::Nothing,
            "/v1/operator/raft/transfer-leader"
            | "/v1/catalog/nodes"
            | "/v1/coordinate/nodes"
            | "/v1/coordinate/node/"
            | "/v1/agent/members"
            | "/v1/agent/join/"
            | "/v1/agent/force-leave/" => Self::Partitions,
            _ => Self::All,
        }
    }

    /// Refuses what the route looks for and nobody has here.
    ///
    /// # Errors
    /// 400 in Consul's words.
    pub(crate) fn refuse(self, query: Query<'_>, headers: Named) -> Result<(), ApiError> {
        let asks = |name| query.non_empty(name).is_some();
        let refused = if self == Self::Nothing {
            return Ok(());
        } else if self == Self::All && headers.namespace {
            "Invalid header: \"X-Consul-Namespace\" - Namespaces are a Consul Enterprise feature"
        } else if self == Self::All && asks("ns") {
            "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature"
        } else if headers.partition {
            "Invalid header: \"X-Consul-Partition\" - Partitions are a Consul Enterprise feature"
        } else if asks("partition") {
            "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature"
        } else {
            return Ok(());
        };
        Err(ApiError::bad_request(refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused: the first letter of its kind, in capitals for a header.
    fn refused(scope: Scope, query: &str, namespace: &'static str, partition: &'static str) -> char {
        let mut headers = HeaderMap::new();
        headers.insert(X_NAMESPACE, namespace.parse().unwrap());
        headers.insert(X_PARTITION, partition.parse().unwrap());
        let refused = scope.refuse(Query::new(query.as_bytes()), Named::read(&headers));
        let texts = [
            ("Invalid header: \"X-Consul-Namespace\" - Namespaces are", 'N'),
            ("Invalid query parameter: \"ns\" - Namespaces are", 'n'),
            ("Invalid header: \"X-Consul-Partition\" - Partitions are", 'P'),
            ("Invalid query parameter: \"partition\" - Partitions are", 'p'),
        ];
        match refused {
            Ok(()) => '.',
            Err(error) => {
                let (_, kind) = texts
                    .into_iter()
                    .find(|(text, _)| error.text().starts_with(text))
                    .unwrap();
                kind
            }
        }
    }

    /// Requests and answers as they were recorded, on one route of each scope.
    #[test]
    fn routes_refuse_what_they_look_for_namespaces_first() {
        for (query, namespace, partition, expected) in [
            ("", "", "", "..."),
            ("ns=&partition=", "", "", "..."),
            ("ns=default", "", "", "..n"),
            ("partition=default", "", "", ".pp"),
            ("ns=a&partition=b", "", "", ".pn"),
            ("", "default", "", "..N"),
            ("", "", "default", ".PP"),
            ("ns=a", "b", "", "..N"),
            ("partition=a", "", "b", ".PP"),
            ("partition=a", "b", "", ".pN"),
            ("ns=a", "", "b", ".Pn"),
        ] {
            let scopes = ["/v1/txn", "/v1/catalog/nodes", "/v1/kv/"].map(Scope::of);
            let found = scopes.map(|scope| refused(scope, query, namespace, partition));
            assert_eq!(
                found.iter().collect::<String>(),
                expected,
                "{query} {namespace} {partition}"
            );
        }
    }

    #[test]
    fn scopes_are_of_routes_that_exist() {
        let source = include_str!("scope.rs");
        let named = source
            .split('"')
            .filter(|text| text.starts_with("/v1/") && text.len() > 4);
        for path in named {
            assert!(
                matches!(crate::route::find(path.as_bytes()), crate::route::Found::Route(route, _) if route.path == path),
                "{path}"
            );
        }
    }
}
