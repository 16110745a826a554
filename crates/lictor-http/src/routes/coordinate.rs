//! `/v1/coordinate`: where nodes are in the network. Round-trip times are not measured, so that every node stands at the
//! origin with the error of a node that has just started.

use hyper::StatusCode;
use lictor_node::Topic;
use lictor_state::{Area, State};
use serde_json::{Value, json};

use super::catalog::{List, wanted};
use crate::blocking;
use crate::blocking::ViewOf;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter::fields;
use crate::reply::Reply;

fn origin() -> Value {
    json!({"Vec": [0, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 1.0e-5})
}

/// `GET /v1/coordinate/datacenters`.
pub(crate) async fn datacenters(ctx: Ctx) -> Result<Reply, ApiError> {
    let own = ctx.shared.node.identity();
    let node = json!({"Node": format!("{}.{}", own.node, own.datacenter), "Coord": origin()});
    Ok(Reply::json(&json!([{"Datacenter": own.datacenter, "AreaID": "wan", "Coordinates": [node]}])))
}

/// `GET /v1/coordinate/nodes`.
pub(crate) async fn nodes(ctx: Ctx) -> Result<Reply, ApiError> {
    let list = List::new(&ctx, fields::NODE)?;
    let options = ctx.read_options()?;
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::Nodes).0,
        render: |state: &State| {
            let kept = state.nodes().filter(|node| list.keeps(&***node));
            let shown = kept.map(|node| json!({"Node": node.node, "Segment": "", "Coord": origin()}));
            Reply::json(&shown.collect::<Vec<_>>())
        },
    };
    blocking::read(&ctx, options, &[Topic::Row(Area::Nodes, b"")], &view).await
}

/// `GET /v1/coordinate/node/:node`: 404 for one that is not there.
pub(crate) async fn node(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing node name")?;
    ctx.read_options()?;
    ctx.check_datacenter()?;
    Ok(match ctx.shared.node.view().node(&name) {
        None => Reply::empty(StatusCode::NOT_FOUND),
        Some(node) => Reply::json(&json!([{"Node": node.node, "Segment": "", "Coord": origin()}])),
    })
}
