//! `/v1/coordinate`: where nodes are in the network. Round-trip times are not measured, so that every node stands at the
//! origin with the error of a node that has just started.

use hyper::StatusCode;
use lictor_node::Topic;
use lictor_state::{Area, State};
use serde_json::{Value, json};

use super::catalog::wanted;
use crate::acl::{Access, Resource};
use crate::blocking;
use crate::blocking::ViewOf;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

fn origin() -> Value {
    json!({"Vec": [0, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 1.0e-5})
}

fn placed(node: &str) -> Value {
    json!({"Node": node, "Segment": "", "Coord": origin()})
}

/// `GET /v1/coordinate/datacenters`.
pub(crate) async fn datacenters(ctx: Ctx) -> Result<Reply, ApiError> {
    let own = ctx.shared.node.identity();
    let node = placed(&own.node);
    Ok(Reply::json(
        &json!([{"Datacenter": own.datacenter, "AreaID": "wan", "Coordinates": [node]}]),
    ))
}

/// `GET /v1/coordinate/nodes`.
pub(crate) async fn nodes(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::Nodes).0,
        render: |state: &State| {
            let nodes = state.nodes().filter(|node| may_read(&ctx, &node.node));
            Reply::json(&nodes.map(|node| placed(&node.node)).collect::<Vec<_>>())
        },
    };
    blocking::read(&ctx, options, &[Topic::Row(Area::Nodes, b"")], &view).await
}

/// `GET /v1/coordinate/node/:node`: 404 for one that is not there.
pub(crate) async fn node(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing node name")?;
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    if ctx.shared.node.view().node(&name).is_none() {
        return Ok(Reply::empty(StatusCode::NOT_FOUND));
    }
    let view = ViewOf {
        index: |state: &State| state.node_index(&name).0,
        render: |state: &State| {
            let node = state.node(&name).filter(|node| may_read(&ctx, &node.node));
            Reply::json(
                &node
                    .map(|node| placed(&node.node))
                    .into_iter()
                    .collect::<Vec<_>>(),
            )
        },
    };
    blocking::read(
        &ctx,
        options,
        &[Topic::Row(Area::Node, name.to_lowercase().as_bytes())],
        &view,
    )
    .await
}

fn may_read(ctx: &Ctx, node: &str) -> bool {
    ctx.authorize(Resource::Node(node), Access::Read).is_ok()
}
