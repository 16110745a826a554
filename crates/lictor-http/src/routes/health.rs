//! `/v1/health`: checks, and services with their checks.

use std::sync::Arc;

use lictor_node::Topic;
use lictor_proto::v1::{CheckRow, NodeRow, ServiceRow};
use lictor_state::{Area, State};

use super::catalog::{List, instances, none_of_a_mesh, wanted};
use crate::acl::{Access, Resource};
use crate::blocking::ViewOf;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter::fields;
use crate::json;
use crate::list;
use crate::reply::Reply;
use crate::wire;

/// `GET /v1/health/node/:node`.
pub(crate) async fn node(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing node name")?;
    let params = List::new(&ctx, fields::CHECK)?.without_meta();
    let view = ViewOf {
        index: |state: &State| state.node_index(&name).0,
        render: |state: &State| checks(&ctx, &params, state, state.checks_of_node(&name)),
    };
    params
        .read(
            &ctx,
            Topic::Row(Area::Node, name.to_lowercase().as_bytes()),
            &view,
        )
        .await
}

/// `GET /v1/health/checks/:service`: the checks of a service's instances, without those of their nodes.
pub(crate) async fn service_checks(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing service name")?;
    let params = List::new(&ctx, fields::CHECK)?;
    let view = ViewOf {
        index: |state: &State| state.service_index(&name).0,
        render: |state: &State| {
            let of = |service: &'_ ServiceRow| (service.node.clone(), service.id.clone());
            let ids: Vec<_> = state.services_named(&name).map(|service| of(service)).collect();
            let rows = ids
                .iter()
                .flat_map(|(node, id)| state.checks_of_service(node, id));
            checks(&ctx, &params, state, rows)
        },
    };
    params
        .read(
            &ctx,
            Topic::Row(Area::Service, name.to_lowercase().as_bytes()),
            &view,
        )
        .await
}

/// `GET /v1/health/state/:state`: `any` for all.
pub(crate) async fn state(ctx: Ctx) -> Result<Reply, ApiError> {
    let wanted = wanted(&ctx, "Missing check state")?;
    let params = List::new(&ctx, fields::CHECK)?;
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::Checks).0,
        render: |state: &State| {
            let rows = state
                .checks()
                .filter(|check| wanted == "any" || check.status == wanted);
            checks(&ctx, &params, state, rows)
        },
    };
    params.read(&ctx, Topic::Row(Area::Checks, b""), &view).await
}

/// `GET /v1/health/service/:service`: instances with their checks and those of their nodes.
pub(crate) async fn service(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing service name")?;
    let params = List::bare(&ctx, fields::SERVICE_HEALTH)?;
    let passing = passing_only(&ctx)?;
    refuse_sameness(&ctx)?;
    // What another cluster shows is not known here.
    let is_foreign = ctx.query().non_empty("peer").is_some();
    let view = ViewOf {
        index: |state: &State| state.service_index(&name).0,
        render: |state: &State| {
            if is_foreign {
                return Reply::json_bytes(&b"[]"[..]);
            }
            let found = instances(&ctx, &params, state, &name);
            list::of(found.into_iter().filter_map(|(node, service)| {
                let of_node = state.checks_of_service(&node.node, "");
                let of_service = state.checks_of_service(&node.node, &service.id);
                let checks: Vec<_> = of_node.chain(of_service).cloned().collect();
                let in_service = !passing || checks.iter().all(|check| check.status == "passing");
                let row = fields::ServiceHealth {
                    node,
                    service,
                    checks: &checks,
                };
                let is_shown = in_service && params.keeps(&row);
                is_shown.then(|| InstanceHealth {
                    node: Arc::clone(node),
                    service: Arc::clone(service),
                    checks,
                })
            }))
        },
    };
    params
        .read_cached(
            &ctx,
            Topic::Row(Area::Service, name.to_lowercase().as_bytes()),
            &view,
        )
        .await
}

/// `GET /v1/health/connect/:service` and `/v1/health/ingress/:service`: this server has no mesh, so that no service has a
/// proxy or gateway.
pub(crate) async fn no_mesh(ctx: Ctx) -> Result<Reply, ApiError> {
    wanted(&ctx, "Missing service name")?;
    let params = List::bare(&ctx, fields::SERVICE_HEALTH)?;
    passing_only(&ctx)?;
    refuse_sameness(&ctx)?;
    none_of_a_mesh(&ctx, &params).await
}

/// Refuses `?sg=`, as Consul does that was not paid for.
fn refuse_sameness(ctx: &Ctx) -> Result<(), ApiError> {
    match ctx.query().non_empty("sg") {
        None => Ok(()),
        Some(_) => Err(ApiError::internal(
            "sameness groups are not supported in consul CE",
        )),
    }
}

/// `?passing`: a switch that may also say false.
fn passing_only(ctx: &Ctx) -> Result<bool, ApiError> {
    match ctx.query().text("passing").as_deref() {
        None => Ok(false),
        Some("") => Ok(true),
        Some(text) => super::truth(text).ok_or_else(|| ApiError::bad_request("Invalid value for ?passing")),
    }
}

fn checks<'a>(
    ctx: &Ctx,
    params: &List,
    state: &State,
    rows: impl Iterator<Item = &'a Arc<CheckRow>>,
) -> Reply {
    let kept = rows
        .filter(|check| {
            params.keeps(&***check)
                && state
                    .node(&check.node)
                    .is_some_and(|node| params.meta_matches(node))
        })
        .filter(|check| ctx.authorize(Resource::Node(&check.node), Access::Read).is_ok());
    let mut kept: Vec<_> = kept.collect();
    params.put_near_first(ctx, &mut kept, |check| &check.node);
    list::of(kept.into_iter().map(|check| Listed(Arc::clone(check))))
}

/// An instance with its checks.
#[derive(Debug)]
struct InstanceHealth {
    node: Arc<NodeRow>,
    service: Arc<ServiceRow>,
    checks: Vec<Arc<CheckRow>>,
}

impl list::Entry for InstanceHealth {
    fn push(&self, out: &mut Vec<u8>) {
        let shown = wire::catalog::ServiceHealth {
            node: wire::Node::of(&self.node),
            service: wire::Service::listed(&self.service),
            checks: self
                .checks
                .iter()
                .map(|check| wire::Check::listed(check))
                .collect(),
        };
        json::push(out, &shown);
    }
}

#[derive(Debug)]
struct Listed(Arc<CheckRow>);

impl list::Entry for Listed {
    fn push(&self, out: &mut Vec<u8>) {
        json::push(out, &wire::Check::listed(&self.0));
    }
}
