//! `/v1/operator/autopilot`: how the group of servers looks after itself, and how it is.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use lictor_agent::decode::{DecodeError, Object};
use lictor_node::Autopilot;
use lictor_proto::go;
use serde_json::{Map, Value, json};

use super::{Seen, Servers};
use crate::acl::{Access, Resource};
use crate::blocking;
use crate::ctx::{Ctx, Verb};
use crate::decode;
use crate::error::ApiError;
use crate::reply::Reply;

const BODY_MAX_BYTES: usize = 64 * 1024;

/// `GET` and `PUT /v1/operator/autopilot/configuration`.
pub(crate) async fn configuration(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()?;
    if ctx.verb == Verb::Put {
        return set(ctx).await;
    }
    ctx.authorize(Resource::Operator, Access::Read)?;
    blocking::gate(&ctx.shared.node, options.consistency).await?;
    let autopilot = ctx.shared.node.autopilot();
    let roster = ctx.shared.node.roster();
    let (created, modified) = roster
        .autopilot()
        .map_or((0, 0), |row| (row.create_index, row.modify_index));
    Ok(Reply::json(&json!({
        "CleanupDeadServers": autopilot.cleanup_dead_servers,
        "LastContactThreshold": duration(autopilot.last_contact_threshold),
        "MaxTrailingLogs": autopilot.max_trailing_logs,
        "MinQuorum": autopilot.min_quorum,
        "ServerStabilizationTime": duration(autopilot.server_stabilization_time),
        "RedundancyZoneTag": "",
        "DisableUpgradeMigration": false,
        "UpgradeVersionTag": "",
        "CreateIndex": created,
        "ModifyIndex": modified,
    })))
}

async fn set(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.authorize(Resource::Operator, Access::Write)?;
    let body = ctx.body(BODY_MAX_BYTES).await?;
    let bad = |why: String| ApiError::bad_request(format!("Error parsing autopilot config: {why}"));
    let value = decode::value(&decode::text(&body)).map_err(bad)?;
    let autopilot = read(value).map_err(|error| bad(error.to_string()))?;
    let cas = match ctx.query().get("cas") {
        None => None,
        Some(text) if text.is_empty() => None,
        Some(text) => {
            let parsed = go::parse_uint(&text);
            Some(parsed.map_err(|why| ApiError::bad_request(format!("Error parsing cas value: {why}")))?)
        }
    };
    let done = ctx.shared.node.set_autopilot(&autopilot, cas).await?;
    Ok(Reply::json(&done))
}

/// Reads a configuration; what it leaves out is as it is by default.
fn read(value: Value) -> Result<Autopilot, DecodeError> {
    let mut object = Object::new(value, "AutopilotConfiguration")?;
    let default = Autopilot::default();
    let cleanup_dead_servers = match object.take("CleanupDeadServers") {
        None => default.cleanup_dead_servers,
        Some(Value::Bool(flag)) => flag,
        Some(other) => return Err(wrong(&other, "CleanupDeadServers", "bool")),
    };
    let max_trailing_logs = match object.take("MaxTrailingLogs") {
        None => default.max_trailing_logs,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| wrong(&value, "MaxTrailingLogs", "uint64"))?,
    };
    let min_quorum = match object.take("MinQuorum") {
        None => default.min_quorum,
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong(&value, "MinQuorum", "uint"))?,
    };
    // Zero is no time that any server could keep.
    let mut time = |name, default: Duration| {
        let nanos = object.duration(name)?;
        Ok(u64::try_from(nanos)
            .ok()
            .filter(|nanos| *nanos > 0)
            .map_or(default, Duration::from_nanos))
    };
    let last_contact_threshold = time("LastContactThreshold", default.last_contact_threshold)?;
    let server_stabilization_time = time("ServerStabilizationTime", default.server_stabilization_time)?;
    // Of the paid edition, and shown by every client that reads and writes back; and what is not for clients to set.
    object.skip(&[
        "RedundancyZoneTag",
        "DisableUpgradeMigration",
        "UpgradeVersionTag",
        "CreateIndex",
        "ModifyIndex",
    ]);
    object.finish()?;
    Ok(Autopilot {
        cleanup_dead_servers,
        last_contact_threshold,
        max_trailing_logs,
        min_quorum,
        server_stabilization_time,
    })
}

fn wrong(value: &Value, name: &str, wanted: &'static str) -> DecodeError {
    DecodeError::WrongKind {
        found: lictor_agent::decode::kind(value),
        field: format!("AutopilotConfiguration.{name}"),
        wanted,
    }
}

/// Whether the group is healthy, and how many voters it may lose.
struct Verdict {
    healthy: bool,
    failure_tolerance: usize,
}

impl Verdict {
    fn of(servers: &Servers) -> Self {
        let voters = servers.iter().filter(|server| server.votes).count();
        let healthy_voters = servers
            .iter()
            .filter(|server| server.votes && server.health.healthy)
            .count();
        Self {
            healthy: servers.iter().all(|server| server.health.healthy),
            failure_tolerance: healthy_voters.saturating_sub(voters / 2 + 1),
        }
    }
}

/// `GET /v1/operator/autopilot/health`: 429 when a server is not healthy.
pub(crate) async fn health(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Operator, Access::Read)?;
    let servers = Servers::ask(&ctx).await?;
    let verdict = Verdict::of(&servers);
    let (now, version) = (SystemTime::now(), ctx.shared.agent.version());
    let one = |server: Seen<'_>| {
        json!({
            "ID": server.row.node_id,
            "Name": server.row.name,
            "Address": server.address,
            "SerfStatus": node_status(&server),
            "Version": version,
            "Leader": server.leads,
            "LastContact": last_contact(&server),
            "LastTerm": servers.census.term,
            "LastIndex": server.health.last_index,
            "Healthy": server.health.healthy,
            "Voter": server.votes,
            "StableSince": stable_since(&server, now),
        })
    };
    let shown: Vec<Value> = servers.iter().map(one).collect();
    let reply = Reply::json(&json!({
        "Healthy": verdict.healthy,
        "FailureTolerance": verdict.failure_tolerance,
        "Servers": shown,
    }));
    Ok(if verdict.healthy {
        reply
    } else {
        reply.with_status(StatusCode::TOO_MANY_REQUESTS)
    })
}

/// `GET /v1/operator/autopilot/state`.
pub(crate) async fn state(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Operator, Access::Read)?;
    let servers = Servers::ask(&ctx).await?;
    let verdict = Verdict::of(&servers);
    let (now, version) = (SystemTime::now(), ctx.shared.agent.version());
    let one = |server: Seen<'_>| {
        let (status, kind) = match (server.leads, server.votes) {
            (true, _) => ("leader", "voter"),
            (false, true) => ("voter", "voter"),
            (false, false) => ("non-voter", "voter"),
        };
        let shown = json!({
            "ID": server.row.node_id,
            "Name": server.row.name,
            "Address": server.address,
            "NodeStatus": node_status(&server),
            "Version": version,
            "LastContact": last_contact(&server),
            "LastTerm": servers.census.term,
            "LastIndex": server.health.last_index,
            "Healthy": server.health.healthy,
            "StableSince": stable_since(&server, now),
            "ReadReplica": false,
            "Status": status,
            "Meta": {"consul-network-segment": "", "consul-version": version},
            "NodeType": kind,
        });
        (server.row.node_id.clone(), shown)
    };
    let leader = servers.iter().find(|server| server.leads);
    let leader = leader
        .map(|server| server.row.node_id.clone())
        .unwrap_or_default();
    let votes = servers.iter().filter(|server| server.votes);
    let voters: Vec<_> = votes.map(|server| server.row.node_id.clone()).collect();
    Ok(Reply::json(&json!({
        "Healthy": verdict.healthy,
        "FailureTolerance": verdict.failure_tolerance,
        "OptimisticFailureTolerance": verdict.failure_tolerance,
        "Servers": servers.iter().map(one).collect::<Map<_, _>>(),
        "Leader": leader,
        "Voters": voters,
    })))
}

fn node_status(server: &Seen<'_>) -> &'static str {
    if server.health.alive { "alive" } else { "failed" }
}

/// The silence of a server; the leader has none.
fn last_contact(server: &Seen<'_>) -> String {
    let silence = server.health.silence_ms.map(Duration::from_millis);
    silence.map_or_else(|| "never".to_owned(), duration)
}

fn stable_since(server: &Seen<'_>, now: SystemTime) -> String {
    let since = now.checked_sub(Duration::from_millis(server.health.stable_ms));
    lictor_agent::rfc3339(since.unwrap_or(now))
}

fn duration(time: Duration) -> String {
    go::format_duration(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}
