//! `/v1/agent/members` and what makes members come and go.

use std::collections::BTreeMap;

use lictor_proto::v1::NodeRow;

use crate::acl::{Access, Resource};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter::{Field, Filter, Kind, Row, Validate, Value};
use crate::reply::Reply;
use crate::wire::agent::Member;

const FIELDS: &[Field] = &[
    Field::new("Name", Kind::Text),
    Field::new("Addr", Kind::Text),
    Field::new("Port", Kind::Number),
    Field::new("Status", Kind::Number),
];

impl Row for Member {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "Name" => Value::Text(&self.name),
            "Addr" => Value::Text(&self.addr),
            "Port" => Value::Number(self.port.into()),
            "Status" => Value::Number(self.status.into()),
            _ => return None,
        })
    }
}

/// `GET /v1/agent/members`: this server, which is alive.
pub(crate) async fn members(ctx: Ctx) -> Result<Reply, ApiError> {
    let query = ctx.query();
    let segment = query.non_empty("segment");
    // `_all` is what clients send who know nothing of segments.
    if segment.is_some_and(|segment| *segment != *"_all") {
        return Err(ApiError::internal(
            "Network segments are not supported in this version of Consul",
        ));
    }
    let filter = Filter::new(
        &query.text("filter").unwrap_or_default(),
        FIELDS,
        Validate::Always,
    )
    .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut member = this_member(&ctx);
    if query.has("wan") {
        member.name = format!("{}.{}", member.name, ctx.shared.node.identity().datacenter);
    }
    let keep = filter.keep(&member).unwrap_or(false)
        && ctx.authorize(Resource::Node(&member.name), Access::Read).is_ok();
    Ok(Reply::json(
        &keep.then_some(member).into_iter().collect::<Vec<_>>(),
    ))
}

/// This server as a member.
pub(super) fn this_member(ctx: &Ctx) -> Member {
    let identity = ctx.shared.node.identity();
    let agent = &ctx.shared.agent;
    let text = |text: &str| text.to_owned();
    let version = text(agent.version());
    Member {
        name: identity.node.clone(),
        addr: identity.address.clone(),
        port: agent.serf_lan_port(),
        tags: BTreeMap::from([
            ("acls", text("0")),
            ("bootstrap", text("1")),
            ("build", format!("{version}:")),
            ("dc", identity.datacenter.clone()),
            ("id", identity.node_id.clone()),
            ("port", identity.server_port.to_string()),
            ("raft_vsn", text("3")),
            ("role", text("consul")),
            ("segment", String::new()),
            ("vsn", text("2")),
            ("vsn_max", text("3")),
            ("vsn_min", text("2")),
        ]),
        status: 1,
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    }
}

/// `PUT /v1/agent/join/:address`: this server's own address is joined already.
pub(crate) async fn join(ctx: Ctx) -> Result<Reply, ApiError> {
    may_administer(&ctx)?;
    let address = ctx.param_text();
    let own = &ctx.shared.node.identity().address;
    let is_own = *address == **own
        || address
            .rsplit_once(':')
            .is_some_and(|(host, port)| host == own && port.parse() == Ok(ctx.shared.agent.serf_lan_port()));
    if is_own {
        return Ok(Reply::empty_json());
    }
    Err(ApiError::internal(format!(
        "1 error occurred:\n\t* Failed to join {address}: this server stands alone\n\n"
    )))
}

/// `PUT /v1/agent/force-leave/:node`.
pub(crate) async fn force_leave(ctx: Ctx) -> Result<Reply, ApiError> {
    may_administer(&ctx)?;
    let name = ctx.param_text();
    let is_known = |node: &NodeRow| node.node.eq_ignore_ascii_case(&name);
    if is_known(ctx.shared.agent.own_node()) {
        return Ok(Reply::empty_json());
    }
    Err(ApiError::internal(format!(
        "agent: No node found with name '{name}'"
    )))
}

/// `PUT /v1/agent/leave`: stops the server in order.
pub(crate) async fn leave(ctx: Ctx) -> Result<Reply, ApiError> {
    may_administer(&ctx)?;
    ctx.shared.agent.leave();
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/reload`: reads the configuration files again.
pub(crate) async fn reload(ctx: Ctx) -> Result<Reply, ApiError> {
    may_administer(&ctx)?;
    let reloaded = ctx.shared.agent.request_reload().await;
    reloaded.map_err(ApiError::internal)?;
    Ok(Reply::empty_json())
}

fn may_administer(ctx: &Ctx) -> Result<(), ApiError> {
    ctx.authorize(Resource::Agent(&ctx.shared.node.identity().node), Access::Write)
}
