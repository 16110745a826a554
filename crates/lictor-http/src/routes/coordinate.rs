//! `/v1/coordinate`: where nodes are in the network. Round-trip times are not measured, so that a node stands at the
//! origin with the error of a node that has just started, unless a client says otherwise. What it says is known to this
//! server until it stops; nothing depends on it.

use std::collections::BTreeMap;

use hyper::StatusCode;
use lictor_agent::decode::{DecodeError, Object};
use lictor_node::Topic;
use lictor_state::{Area, State};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::acl::{Access, Resource};
use crate::blocking;
use crate::blocking::ViewOf;
use crate::ctx::Ctx;
use crate::decode;
use crate::error::ApiError;
use crate::reply::Reply;

/// Largest body of an update.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// Of the space that nodes are placed in.
const DIMENSIONS: usize = 8;

fn origin() -> Value {
    json!({"Vec": [0, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 1.0e-5})
}

fn placed(ctx: &Ctx, node: &str) -> Value {
    let told = ctx.shared.coordinates.of(node);
    json!({"Node": node, "Segment": "", "Coord": told.unwrap_or_else(origin)})
}

/// Coordinates that clients told, by the lower-case name of a node.
#[derive(Debug, Default)]
pub(crate) struct Coordinates(Mutex<BTreeMap<String, Value>>);

impl Coordinates {
    fn of(&self, node: &str) -> Option<Value> {
        self.0.lock().get(&node.to_lowercase()).cloned()
    }

    /// Keeps one for a node of the catalog; others are not kept, so that there are no more than nodes.
    fn put(&self, state: &State, node: &str, coordinate: Value) {
        let mut all = self.0.lock();
        if state.node(node).is_none() {
            return;
        }
        if all.insert(node.to_lowercase(), coordinate).is_none() {
            all.retain(|known, _| state.node(known).is_some());
        }
    }
}

/// `PUT /v1/coordinate/update`.
pub(crate) async fn update(mut ctx: Ctx) -> Result<Reply, ApiError> {
    let body = ctx.body(BODY_MAX_BYTES).await?;
    let body = decode::value(&decode::text(&body)).map_err(|why| ApiError::decode(&why))?;
    let (node, coordinate) = read(body).map_err(|why| ApiError::decode(&why))?;
    ctx.refuse_paid_features()?;
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Node(&node), Access::Write)?;
    let dimensions = coordinate["Vec"].as_array().map_or(0, Vec::len);
    if dimensions != DIMENSIONS {
        return Err(ApiError::internal("incompatible coordinate"));
    }
    ctx.shared
        .coordinates
        .put(&ctx.shared.node.view(), &node, coordinate);
    Ok(Reply::empty_json())
}

/// The node and its coordinate, as it will be shown.
fn read(body: Value) -> Result<(String, Value), String> {
    let text = |error: DecodeError| error.to_string();
    let mut entry = Object::new(body, "CoordinateUpdateRequest").map_err(text)?;
    let node = entry.text("Node").map_err(text)?;
    let mut coordinate = Object::new(entry.take("Coord").unwrap_or_default(), "Coord").map_err(text)?;
    let numbers = match coordinate.take("Vec").unwrap_or_default() {
        Value::Array(numbers) if numbers.iter().all(Value::is_number) => numbers,
        Value::Null => Vec::new(),
        other => return Err(decode::wrong_kind(&other, "Vec", "[]float64")),
    };
    let mut number = |name| match coordinate.take(name) {
        None => Ok(Value::from(0)),
        Some(number) if number.is_number() => Ok(number),
        Some(other) => Err(decode::wrong_kind(&other, name, "float64")),
    };
    let (error, adjustment, height) = (number("Error")?, number("Adjustment")?, number("Height")?);
    coordinate.finish().map_err(text)?;
    entry.skip(&["Segment", "Datacenter", "Token"]);
    entry.finish().map_err(text)?;
    let shown = json!({"Vec": numbers, "Error": error, "Adjustment": adjustment, "Height": height});
    Ok((node, shown))
}

/// `GET /v1/coordinate/datacenters`.
pub(crate) async fn datacenters(ctx: Ctx) -> Result<Reply, ApiError> {
    let own = ctx.shared.node.identity();
    let node = placed(&ctx, &own.node);
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
            Reply::json(&nodes.map(|node| placed(&ctx, &node.node)).collect::<Vec<_>>())
        },
    };
    blocking::read(&ctx, options, &[Topic::Row(Area::Nodes, b"")], &view).await
}

/// `GET /v1/coordinate/node/:node`: 404 for one that is not there.
pub(crate) async fn node(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = ctx.param_text();
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
                    .map(|node| placed(&ctx, &node.node))
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
