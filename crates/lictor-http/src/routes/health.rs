//! `/v1/health`: checks, and services with their checks.

use std::sync::Arc;

use lictor_node::Topic;
use lictor_proto::v1::{CheckRow, ServiceRow};
use lictor_state::{Area, State};

use super::catalog::{List, instances, wanted};
use crate::acl::{Access, Resource};
use crate::blocking::ViewOf;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter::fields;
use crate::reply::Reply;
use crate::wire;

/// `GET /v1/health/node/:node`.
pub(crate) async fn node(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing node name")?;
    let list = List::new(&ctx, fields::CHECK)?;
    let view = ViewOf {
        index: |state: &State| state.node_index(&name).0,
        render: |state: &State| checks(&ctx, &list, state, state.checks_of_node(&name)),
    };
    list.read(
        &ctx,
        Topic::Row(Area::Node, name.to_lowercase().as_bytes()),
        &view,
    )
    .await
}

/// `GET /v1/health/checks/:service`: the checks of a service's instances, without those of their nodes.
pub(crate) async fn service_checks(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing service name")?;
    let list = List::new(&ctx, fields::CHECK)?;
    let view = ViewOf {
        index: |state: &State| state.service_index(&name).0,
        render: |state: &State| {
            let of = |service: &'_ ServiceRow| (service.node.clone(), service.id.clone());
            let ids: Vec<_> = state.services_named(&name).map(|service| of(service)).collect();
            let rows = ids
                .iter()
                .flat_map(|(node, id)| state.checks_of_service(node, id));
            checks(&ctx, &list, state, rows)
        },
    };
    list.read(
        &ctx,
        Topic::Row(Area::Service, name.to_lowercase().as_bytes()),
        &view,
    )
    .await
}

/// `GET /v1/health/state/:state`: `any` for all.
pub(crate) async fn state(ctx: Ctx) -> Result<Reply, ApiError> {
    let wanted = wanted(&ctx, "Missing check state")?;
    let list = List::new(&ctx, fields::CHECK)?;
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::Checks).0,
        render: |state: &State| {
            let rows = state
                .checks()
                .filter(|check| wanted == "any" || check.status == wanted);
            checks(&ctx, &list, state, rows)
        },
    };
    list.read(&ctx, Topic::Row(Area::Checks, b""), &view).await
}

/// `GET /v1/health/service/:service`: instances with their checks and those of their nodes.
pub(crate) async fn service(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing service name")?;
    let passing = passing_only(&ctx)?;
    let list = List::bare(&ctx, fields::SERVICE_HEALTH)?;
    let view = ViewOf {
        index: |state: &State| state.service_index(&name).0,
        render: |state: &State| {
            let mut shown = Vec::new();
            for (node, service) in instances(&ctx, &list, state, &name) {
                let of_node = state.checks_of_service(&node.node, "");
                let of_service = state.checks_of_service(&node.node, &service.id);
                let checks: Vec<&CheckRow> = of_node.chain(of_service).map(|check| &**check).collect();
                let in_service = !passing || checks.iter().all(|check| check.status == "passing");
                if in_service
                    && list.keeps(&fields::ServiceHealth {
                        node,
                        service,
                        checks: &checks,
                    })
                {
                    shown.push(wire::catalog::ServiceHealth {
                        node: wire::Node::of(node),
                        service: wire::Service::listed(service),
                        checks: checks.into_iter().map(wire::Check::listed).collect(),
                    });
                }
            }
            Reply::json(&shown)
        },
    };
    list.read_cached(
        &ctx,
        Topic::Row(Area::Service, name.to_lowercase().as_bytes()),
        &view,
    )
    .await
}

/// `?passing`: a switch that may also say false.
fn passing_only(ctx: &Ctx) -> Result<bool, ApiError> {
    match ctx.query().text("passing").as_deref() {
        None => Ok(false),
        Some("") => Ok(true),
        Some(text) => super::truth(text).ok_or_else(|| ApiError::bad_request("Invalid value for ?passing")),
    }
}

fn checks<'a>(ctx: &Ctx, list: &List, state: &State, rows: impl Iterator<Item = &'a Arc<CheckRow>>) -> Reply {
    let shown = rows
        .filter(|check| {
            list.keeps(&***check)
                && state
                    .node(&check.node)
                    .is_some_and(|node| list.meta_matches(node))
        })
        .filter(|check| ctx.authorize(Resource::Node(&check.node), Access::Read).is_ok())
        .map(|check| wire::Check::listed(check));
    Reply::json(&shown.collect::<Vec<_>>())
}
