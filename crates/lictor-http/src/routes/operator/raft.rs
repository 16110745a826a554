//! `/v1/operator/raft`: who votes, and changes of that.

use lictor_proto::RaftId;
use lictor_proto::go;
use serde_json::{Value, json};

use super::{Seen, Servers};
use crate::acl::{Access, Resource};
use crate::blocking;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

/// `GET /v1/operator/raft/configuration`.
pub(crate) async fn configuration(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Operator, Access::Read)?;
    let servers = Servers::ask(&ctx).await?;
    let shown: Vec<Value> = servers.iter().map(|server| shown(&server)).collect();
    Ok(Reply::json(&json!({"Servers": shown, "Index": 0})))
}

fn shown(server: &Seen<'_>) -> Value {
    json!({
        "ID": server.row.node_id,
        "Node": server.row.name,
        "Address": server.address,
        "Leader": server.leads,
        "ProtocolVersion": "3",
        "Voter": server.votes,
        "LastIndex": server.health.last_index,
    })
}

/// `DELETE /v1/operator/raft/peer`.
pub(crate) async fn remove_peer(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Operator, Access::Write)?;
    let query = ctx.query();
    let (what, wanted) = match (query.non_empty("id"), query.non_empty("address")) {
        (Some(id), None) => ("id", id),
        (None, Some(address)) => ("address", address),
        (None, None) => {
            return Err(ApiError::bad_request(
                "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("Must specify only one of ?id or ?address"));
        }
    };
    // As of now, also on a server that lags.
    blocking::gate(&ctx.shared.node, lictor_node::Consistency::Default).await?;
    let roster = ctx.shared.node.roster();
    let found = roster.servers().find(|server| match what {
        "id" => server.node_id == *wanted,
        _ => roster.address(RaftId(server.raft_id)).as_deref() == Some(&*wanted),
    });
    let Some(server) = found else {
        let quoted = go::quote(wanted.as_bytes());
        return Err(ApiError::internal(format!(
            "{what} {quoted} was not found in the Raft configuration"
        )));
    };
    let id = RaftId(server.raft_id);
    ctx.shared.node.remove_member(id).await?;
    Ok(Reply::empty_json())
}

/// `POST /v1/operator/raft/transfer-leader`.
pub(crate) async fn transfer_leader(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    ctx.authorize(Resource::Operator, Access::Write)?;
    let node = &ctx.shared.node;
    let to = match ctx.query().non_empty("id") {
        None => None,
        Some(id) => {
            let roster = node.roster();
            let found = roster.servers().find(|server| server.node_id == *id);
            let unknown = || ApiError::internal(format!("Could not find address for server id {id}"));
            Some(RaftId(found.ok_or_else(unknown)?.raft_id))
        }
    };
    node.hand_over(to).await?;
    Ok(Reply::json(&json!({"Success": true})))
}
