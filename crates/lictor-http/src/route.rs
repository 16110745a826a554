//! The route table: every path and method of Consul's core API.
//!
//! A path that ends in a slash serves everything below it, the longest match wins, and a request for it without
//! the slash is redirected to it, as in Go's `ServeMux`.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;

use hyper::StatusCode;

use crate::ctx::Ctx;
use crate::ctx::Verb::{self, Delete, Get, Post, Put};
use crate::error::ApiError;
use crate::reply::Reply;
use crate::routes::{
    acl, agent, catalog, coordinate, demo, event, health, kv, kv_watch, locks, modules, operator, prepared,
    session, snapshot, status, txn, usage,
};

/// What a handler gives back. Each is boxed on its own, so that a waiting request is as large as its own handler.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Reply, ApiError>> + Send>>;

/// One endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    /// Ends in a slash if it serves what is below.
    pub(crate) path: &'static str,
    /// In the order that `Allow` shows them.
    pub(crate) verbs: &'static [Verb],
    pub(crate) run: fn(Ctx) -> Answer,
    /// Its number in the metrics; see [`label`].
    pub(crate) number: u16,
}

impl Route {
    /// The value of `Allow`.
    pub(crate) fn allow(&self) -> String {
        let mut allow = String::from("OPTIONS");
        for verb in self.verbs {
            allow.push(',');
            allow.push_str(verb.name());
        }
        allow
    }
}

/// What a path leads to.
pub(crate) enum Found {
    /// A route, and where the parameter begins in the path.
    Route(&'static Route, usize),
    /// The path with a slash at its end.
    Redirect,
    Nothing,
}

static TABLE: LazyLock<HashMap<&'static [u8], &'static Route>> = LazyLock::new(|| {
    ROUTES
        .iter()
        .chain([&KV])
        .map(|route| (route.path.as_bytes(), route))
        .collect()
});

/// Looks up a decoded path.
pub(crate) fn find(path: &[u8]) -> Found {
    // Most requests go here, and no other route lies below it.
    if path.starts_with(KV.path.as_bytes()) {
        return Found::Route(&KV, KV.path.len());
    }
    if let Some(route) = TABLE.get(path) {
        return Found::Route(route, path.len());
    }
    let mut end = path.len();
    while let Some(slash) = path[..end].iter().rposition(|b| *b == b'/') {
        if let Some(route) = TABLE.get(&path[..=slash]) {
            return Found::Route(route, slash + 1);
        }
        end = slash;
        // No route lies deeper than this; the rest of a long key need not be searched.
        if end > LONGEST_PREFIX {
            end = LONGEST_PREFIX;
        }
    }
    let below: Vec<u8> = [path, b"/"].concat();
    if TABLE.contains_key(below.as_slice()) {
        Found::Redirect
    } else {
        Found::Nothing
    }
}

/// Longer than any route's path.
const LONGEST_PREFIX: usize = 64;

macro_rules! to {
    ($handler:path) => {
        |ctx| Box::pin($handler(ctx))
    };
}

/// The number of requests that no route is found for.
pub(crate) const OTHER: u16 = 0;
const KV_NUMBER: u16 = 1;
const FIRST: u16 = 2;
/// The first number of the routes of Raft-KV-Demo.
#[expect(clippy::cast_possible_truncation, reason = "there are some hundred")]
pub(crate) const DEMO_FIRST: u16 = FIRST + LISTED.len() as u16;
/// How many numbers there are.
pub(crate) const NUMBERS: usize = DEMO_FIRST as usize + demo::ROUTES_LEN;

/// What the metrics call the route of a number: its path.
pub(crate) fn label(number: usize) -> &'static str {
    let listed = number.checked_sub(FIRST.into()).and_then(|at| ROUTES.get(at));
    match (number, listed) {
        (0, _) => "other",
        (1, _) => KV.path,
        (_, Some(route)) => route.path,
        (_, None) => demo::label(number - usize::from(DEMO_FIRST)),
    }
}

/// All listed routes, each with its number.
#[expect(clippy::cast_possible_truncation, reason = "there are some hundred")]
const fn numbered() -> [Route; LISTED.len()] {
    let mut routes = [LISTED[0]; LISTED.len()];
    let mut at = 0;
    while at < LISTED.len() {
        routes[at] = LISTED[at];
        routes[at].number = FIRST + at as u16;
        at += 1;
    }
    routes
}

/// Endpoints that this release does not have yet. They are known, so that methods and redirects are right.
async fn not_built(ctx: Ctx) -> Result<Reply, ApiError> {
    let text = format!("{} is not supported by this release of Lictor\n", ctx.route);
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text))
}

const fn route(path: &'static str, verbs: &'static [Verb], run: fn(Ctx) -> Answer) -> Route {
    Route {
        path,
        verbs,
        run,
        number: OTHER,
    }
}

const fn later(path: &'static str, verbs: &'static [Verb]) -> Route {
    route(path, verbs, to!(not_built))
}

const fn acl_off(path: &'static str, verbs: &'static [Verb]) -> Route {
    route(path, verbs, to!(acl::disabled))
}

pub(crate) static KV: Route = Route {
    number: KV_NUMBER,
    ..route("/v1/kv/", &[Get, Put, Delete], kv::serve)
};

pub(crate) static ROUTES: [Route; LISTED.len()] = numbered();

const LISTED: &[Route] = &[
    // Transactions, sessions, status.
    route("/v1/txn", &[Put], to!(txn::apply)),
    route("/v1/session/create", &[Put], to!(session::create)),
    route("/v1/session/destroy/", &[Put], to!(session::destroy)),
    route("/v1/session/renew/", &[Put], to!(session::renew)),
    route("/v1/session/info/", &[Get], to!(session::info)),
    route("/v1/session/node/", &[Get], to!(session::of_node)),
    route("/v1/session/list", &[Get], to!(session::list)),
    route("/v1/locks", &[Get], to!(locks::list)),
    route("/v1/locks/times", &[Get], to!(locks::times::get)),
    route("/v1/status/leader", &[Get], to!(status::leader)),
    route("/v1/status/peers", &[Get], to!(status::peers)),
    route("/v1/snapshot", &[Get, Put], to!(snapshot::serve)),
    // Fair locks and leader election.
    route("/mod/v2/lock/", &[Get, Put, Post, Delete], modules::lock::serve),
    route("/mod/v2/leader/", &[Get, Put, Delete], modules::leader::serve),
    route("/v1/fair-locks", &[Get], to!(modules::list::list)),
    // Not Consul's.
    route("/v1/kv-watch", &[Get], to!(kv_watch::get)),
    // Agent.
    later("/v1/agent/token/", &[Put]),
    route("/v1/agent/self", &[Get], to!(agent::about)),
    route("/v1/agent/host", &[Get], to!(agent::host)),
    route("/v1/agent/version", &[Get], to!(agent::version)),
    route("/v1/agent/maintenance", &[Put], to!(agent::node_maintenance)),
    route("/v1/agent/reload", &[Put], to!(agent::reload)),
    route("/v1/agent/monitor", &[Get], to!(agent::monitor)),
    route("/v1/agent/metrics", &[Get], to!(agent::metrics)),
    later("/v1/agent/metrics/stream", &[Get]),
    route("/v1/agent/services", &[Get], to!(agent::services)),
    route("/v1/agent/service/", &[Get], to!(agent::service)),
    route("/v1/agent/checks", &[Get], to!(agent::checks)),
    route("/v1/agent/members", &[Get], to!(agent::members)),
    route("/v1/agent/join/", &[Put], to!(agent::join)),
    route("/v1/agent/leave", &[Put], to!(agent::leave)),
    route("/v1/agent/force-leave/", &[Put], to!(agent::force_leave)),
    route("/v1/agent/health/service/id/", &[Get], to!(agent::by_id)),
    route("/v1/agent/health/service/name/", &[Get], to!(agent::by_name)),
    route("/v1/agent/check/register", &[Put], to!(agent::register_check)),
    route(
        "/v1/agent/check/deregister/",
        &[Put],
        to!(agent::deregister_check),
    ),
    route("/v1/agent/check/pass/", &[Put], to!(agent::pass)),
    route("/v1/agent/check/warn/", &[Put], to!(agent::warn)),
    route("/v1/agent/check/fail/", &[Put], to!(agent::fail)),
    route("/v1/agent/check/update/", &[Put], to!(agent::update)),
    later("/v1/agent/connect/authorize", &[Post]),
    route("/v1/agent/connect/ca/roots", &[Get], to!(agent::ca_roots)),
    later("/v1/agent/connect/ca/leaf/", &[Get]),
    route("/v1/agent/service/register", &[Put], to!(agent::register_service)),
    route(
        "/v1/agent/service/deregister/",
        &[Put],
        to!(agent::deregister_service),
    ),
    route(
        "/v1/agent/service/maintenance/",
        &[Put],
        to!(agent::maintenance_service),
    ),
    // Catalog and health.
    route("/v1/catalog/register", &[Put], to!(catalog::register)),
    route("/v1/catalog/deregister", &[Put], to!(catalog::deregister)),
    route("/v1/catalog/connect/", &[Get], to!(catalog::no_mesh)),
    route("/v1/catalog/datacenters", &[Get], to!(catalog::datacenters)),
    route("/v1/catalog/nodes", &[Get], to!(catalog::nodes)),
    route("/v1/catalog/services", &[Get], to!(catalog::services)),
    route("/v1/catalog/service/", &[Get], to!(catalog::service)),
    route("/v1/catalog/node/", &[Get], to!(catalog::node)),
    route("/v1/catalog/node-services/", &[Get], to!(catalog::node_services)),
    later("/v1/catalog/gateway-services/", &[Get]),
    route("/v1/health/node/", &[Get], to!(health::node)),
    route("/v1/health/checks/", &[Get], to!(health::service_checks)),
    route("/v1/health/state/", &[Get], to!(health::state)),
    route("/v1/health/service/", &[Get], to!(health::service)),
    route("/v1/health/connect/", &[Get], to!(health::no_mesh)),
    route("/v1/health/ingress/", &[Get], to!(health::no_mesh)),
    // Events and coordinates.
    route("/v1/event/fire/", &[Put], to!(event::fire)),
    route("/v1/event/list", &[Get], to!(event::list)),
    route("/v1/coordinate/datacenters", &[Get], to!(coordinate::datacenters)),
    route("/v1/coordinate/nodes", &[Get], to!(coordinate::nodes)),
    route("/v1/coordinate/node/", &[Get], to!(coordinate::node)),
    route("/v1/coordinate/update", &[Put], to!(coordinate::update)),
    // Access control, which is off.
    acl_off("/v1/acl/bootstrap", &[Put]),
    acl_off("/v1/acl/replication", &[Get]),
    acl_off("/v1/acl/policies", &[Get]),
    acl_off("/v1/acl/policy", &[Put]),
    acl_off("/v1/acl/policy/", &[Get, Put, Delete]),
    acl_off("/v1/acl/policy/name/", &[Get]),
    acl_off("/v1/acl/roles", &[Get]),
    acl_off("/v1/acl/role", &[Put]),
    acl_off("/v1/acl/role/", &[Get, Put, Delete]),
    acl_off("/v1/acl/role/name/", &[Get]),
    acl_off("/v1/acl/binding-rules", &[Get]),
    acl_off("/v1/acl/binding-rule", &[Put]),
    acl_off("/v1/acl/binding-rule/", &[Get, Put, Delete]),
    acl_off("/v1/acl/auth-methods", &[Get]),
    acl_off("/v1/acl/auth-method", &[Put]),
    acl_off("/v1/acl/auth-method/", &[Get, Put, Delete]),
    acl_off("/v1/acl/login", &[Post]),
    acl_off("/v1/acl/logout", &[Post]),
    acl_off("/v1/acl/tokens", &[Get]),
    acl_off("/v1/acl/token", &[Put]),
    acl_off("/v1/acl/token/self", &[Get]),
    acl_off("/v1/acl/token/", &[Get, Put, Delete]),
    acl_off("/v1/acl/templated-policies", &[Get]),
    acl_off("/v1/acl/templated-policy/name/", &[Get]),
    acl_off("/v1/acl/templated-policy/preview/", &[Post]),
    // Operators.
    route(
        "/v1/operator/raft/configuration",
        &[Get],
        to!(operator::configuration),
    ),
    route(
        "/v1/operator/raft/transfer-leader",
        &[Post],
        to!(operator::transfer_leader),
    ),
    route("/v1/operator/raft/peer", &[Delete], to!(operator::remove_peer)),
    route(
        operator::keyring::PATH,
        &[Get, Post, Put, Delete],
        to!(operator::keyring::keyring),
    ),
    route(
        "/v1/operator/autopilot/configuration",
        &[Get, Put],
        to!(operator::autopilot_configuration),
    ),
    route("/v1/operator/autopilot/health", &[Get], to!(operator::health)),
    route("/v1/operator/autopilot/state", &[Get], to!(operator::state)),
    route("/v1/operator/usage", &[Get], to!(usage::usage)),
    // Prepared queries.
    route("/v1/query", &[Get, Post], to!(prepared::all)),
    route("/v1/query/", &[Get, Put, Delete], to!(prepared::one)),
    // The service mesh, peering and the user interface's own endpoints.
    later("/v1/config", &[Put]),
    later("/v1/config/", &[Get, Delete]),
    later("/v1/connect/ca/configuration", &[Get, Put]),
    route("/v1/connect/ca/roots", &[Get], to!(agent::ca_roots)),
    later("/v1/connect/intentions", &[Get, Post]),
    later("/v1/connect/intentions/match", &[Get]),
    later("/v1/connect/intentions/check", &[Get]),
    later("/v1/connect/intentions/exact", &[Get, Put, Delete]),
    later("/v1/connect/intentions/", &[Get, Put, Delete]),
    later("/v1/discovery-chain/", &[Get, Post]),
    later("/v1/exported-services", &[Get]),
    later("/v1/imported-services", &[Get]),
    later("/v1/peering/token", &[Post]),
    later("/v1/peering/establish", &[Post]),
    later("/v1/peering/", &[Get, Delete]),
    later("/v1/peerings", &[Get]),
    later("/v1/internal/acl/authorize", &[Post]),
    later("/v1/internal/federation-states", &[Get]),
    later("/v1/internal/federation-states/mesh-gateways", &[Get]),
    later("/v1/internal/federation-state/", &[Get]),
    later("/v1/internal/service-virtual-ip", &[Put]),
    later("/v1/internal/ui/nodes", &[Get]),
    later("/v1/internal/ui/node/", &[Get]),
    later("/v1/internal/ui/services", &[Get]),
    later("/v1/internal/ui/exported-services", &[Get]),
    later("/v1/internal/ui/catalog-overview", &[Get]),
    later("/v1/internal/ui/gateway-services-nodes/", &[Get]),
    later("/v1/internal/ui/gateway-intentions/", &[Get]),
    later("/v1/internal/ui/service-topology/", &[Get]),
    later("/v1/internal/ui/metrics-proxy/", &[Get]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(&'static str, usize)> {
        match find(path.as_bytes()) {
            Found::Route(route, at) => Some((route.path, at)),
            _ => None,
        }
    }

    #[test]
    fn the_longest_match_wins() {
        assert_eq!(found("/v1/kv/a/b"), Some(("/v1/kv/", 7)));
        assert_eq!(found("/v1/kv/"), Some(("/v1/kv/", 7)));
        assert_eq!(found("/v1/acl/token/self"), Some(("/v1/acl/token/self", 18)));
        assert_eq!(found("/v1/acl/token/x"), Some(("/v1/acl/token/", 14)));
        assert_eq!(
            found("/v1/acl/policy/name/x/y"),
            Some(("/v1/acl/policy/name/", 20))
        );
        assert_eq!(
            found("/v1/agent/service/register"),
            Some(("/v1/agent/service/register", 26))
        );
        let deep = format!("/v1/kv/{}", "d/".repeat(300));
        assert_eq!(found(&deep), Some(("/v1/kv/", 7)));
        let long = format!("/v1/internal/ui/gateway-services-nodes/{}", "x".repeat(300));
        assert_eq!(
            found(&long),
            Some(("/v1/internal/ui/gateway-services-nodes/", 39))
        );
    }

    #[test]
    fn unknown_paths_lead_nowhere_and_missing_slashes_are_redirected() {
        for path in [
            "/v1/foo",
            "/",
            "/v1",
            "/v1/",
            "/v1/session",
            "/v1/session/list/",
            "/V1/kv/a",
            "/x/v1/kv/a",
        ] {
            assert!(matches!(find(path.as_bytes()), Found::Nothing), "{path}");
        }
        for path in ["/v1/kv", "/v1/session/destroy"] {
            assert!(matches!(find(path.as_bytes()), Found::Redirect), "{path}");
        }
    }

    #[test]
    fn every_route_stands_once_and_is_short_enough_to_be_found() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.sort_unstable();
        let count = paths.len();
        paths.dedup();

        assert_eq!(paths.len(), count);
        assert!(paths.iter().all(|path| path.len() < LONGEST_PREFIX));
    }
}
