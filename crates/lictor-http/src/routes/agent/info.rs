//! What this server tells of itself: `/v1/agent/{self,host,version,connect/ca/roots}`.

use std::time::{SystemTime, UNIX_EPOCH};

use lictor_node::{Consistency, Status};
use lictor_proto::{RaftId, go};
use serde_json::{Value, json};

use super::members::{lan_stats, this_member};
use crate::acl::{Access, Resource};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

pub(super) fn may_read(ctx: &Ctx) -> Result<(), ApiError> {
    ctx.authorize(Resource::Agent(&ctx.shared.node.identity().node), Access::Read)
}

/// `GET /v1/agent/self`.
pub(crate) async fn about(ctx: Ctx) -> Result<Reply, ApiError> {
    may_read(&ctx)?;
    let identity = ctx.shared.node.identity();
    let status = ctx.shared.node.status();
    let agent = &ctx.shared.agent;
    let is_server = !ctx.shared.node.is_client();
    Ok(Reply::json(&json!({
        "Config": {
            "Datacenter": identity.datacenter,
            "PrimaryDatacenter": identity.datacenter,
            "NodeName": identity.node,
            "NodeID": identity.node_id,
            "Revision": "",
            "Server": is_server,
            "Version": agent.version(),
            "BuildDate": "1970-01-01T00:00:00Z",
        },
        "DebugConfig": {
            "ACLsEnabled": false,
            "AdvertiseAddrLAN": identity.address,
            "BindAddr": identity.address,
            "Datacenter": identity.datacenter,
            "NodeID": identity.node_id,
            "NodeName": identity.node,
            "NodeMeta": agent.own_node().meta,
            "ServerMode": is_server,
            "ServerPort": identity.server_port,
            "SerfAdvertiseAddrLAN": format!("tcp://{}:{}", identity.address, agent.serf_lan_port()),
            "SerfPortLAN": agent.serf_lan_port(),
            "Version": agent.version(),
        },
        "Coord": {"Vec": [0, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 1.0e-5},
        "Member": this_member(&ctx),
        "Stats": {
            "agent": {
                "check_monitors": "0",
                "check_ttls": agent.checks().iter().filter(|check| check.r#type == "ttl").count().to_string(),
                "checks": agent.checks().len().to_string(),
                "services": agent.services().len().to_string(),
            },
            "build": {"version": agent.version(), "revision": "", "prerelease": "", "version_metadata": ""},
            "consul": consul_stats(&ctx, &status),
            "raft": raft_stats(&ctx, &status),
            "runtime": runtime_stats(),
            "serf_lan": is_server.then(|| lan_stats(&ctx)),
        },
        "Meta": agent.own_node().meta,
    })))
}

/// Of a client agent how many servers it knows, as Consul shows it.
fn consul_stats(ctx: &Ctx, status: &Status) -> Value {
    let node = &ctx.shared.node;
    if node.is_client() {
        let known = node.known_servers().len().to_string();
        return json!({"acl": "disabled", "known_servers": known, "server": "false"});
    }
    json!({
        "acl": "disabled",
        "bootstrap": (status.peers.len() <= 1).to_string(),
        "known_datacenters": "1",
        "leader": status.is_leader.to_string(),
        "leader_addr": status.leader,
        "server": "true",
    })
}

/// A client agent has none.
fn raft_stats(ctx: &Ctx, status: &Status) -> Option<Value> {
    let number = |number: u64| number.to_string();
    (!ctx.shared.node.is_client()).then(|| {
        json!({
            "applied_index": number(status.applied.0),
            "commit_index": number(status.commit.0),
            "last_contact": last_contact(ctx),
            "last_log_index": number(status.last.0),
            "last_log_term": number(status.term.0),
            "latest_configuration": latest_configuration(ctx),
            "latest_configuration_index": "0",
            "num_peers": status.peers.len().saturating_sub(1).to_string(),
            "protocol_version": "3",
            "protocol_version_max": "3",
            "protocol_version_min": "0",
            "state": if status.is_leader { "Leader" } else { "Follower" },
            "term": number(status.term.0),
        })
    })
}

/// The machine, without what Go alone has.
fn runtime_stats() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let processors = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .to_string();
    json!({"arch": arch, "cpu_count": processors, "max_procs": processors, "os": std::env::consts::OS})
}

/// How long this server has not heard of its leader, in the manner of Consul's library.
fn last_contact(ctx: &Ctx) -> String {
    let meta = ctx.shared.node.try_read(Consistency::Stale);
    match meta.map(|meta| (meta.known_leader, meta.last_contact_ms)) {
        Some((true, 0)) => "0".to_owned(),
        Some((true, ms)) => {
            go::format_duration(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000))
        }
        _ => "never".to_owned(),
    }
}

/// The members in the form that Consul's library prints them.
fn latest_configuration(ctx: &Ctx) -> String {
    let roster = ctx.shared.node.roster();
    let voters: Vec<_> = roster.members().voters().collect();
    let shown: Vec<String> = roster
        .servers()
        .map(|server| {
            let id = RaftId(server.raft_id);
            let suffrage = if voters.contains(&id) { "Voter" } else { "Nonvoter" };
            let address = roster.address(id).unwrap_or_default();
            format!("{{Suffrage:{suffrage} ID:{} Address:{address}}}", server.node_id)
        })
        .collect();
    format!("[{}]", shown.join(" "))
}

/// `GET /v1/agent/version`.
pub(crate) async fn version(ctx: Ctx) -> Result<Reply, ApiError> {
    may_read(&ctx)?;
    let version = ctx.shared.agent.version();
    Ok(Reply::json(&json!({
        "SHA": "",
        "BuildDate": "1970-01-01T00:00:00Z",
        "HumanVersion": version,
        "FIPS": "",
    })))
}

/// `GET /v1/agent/host`: the machine, as far as the kernel tells it in `/proc`.
pub(crate) async fn host(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.authorize(Resource::Operator, Access::Read)?;
    let machine = tokio::task::spawn_blocking(machine).await;
    machine
        .map(|machine| Reply::json(&machine))
        .map_err(|error| ApiError::internal(error.to_string()))
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let memory_bytes = |name: &str| kib_of(&memory, name) * 1024;
    let (total, free, available) = (
        memory_bytes("MemTotal"),
        memory_bytes("MemFree"),
        memory_bytes("MemAvailable"),
    );
    let uptime = read("/proc/uptime");
    let uptime = uptime
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse::<u64>().ok())
        .unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    json!({
        "Memory": {"total": total, "available": available, "used": total.saturating_sub(available), "free": free},
        "CPU": (0..cpus).map(|cpu| json!({"cpu": cpu, "cores": 1})).collect::<Vec<_>>(),
        "Host": {
            "hostname": hostname(),
            "uptime": uptime,
            "bootTime": now.as_secs().saturating_sub(uptime),
            "os": std::env::consts::OS,
            "kernelVersion": read("/proc/sys/kernel/osrelease").trim(),
            "kernelArch": std::env::consts::ARCH,
        },
        "Disk": null,
        "CollectionTime": u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        "Errors": null,
    })
}

pub(super) fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The value of a line such as `MemTotal:  16384 kB`.
pub(super) fn kib_of(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or_default()
}

/// `GET /v1/agent/connect/ca/roots`: the certificate authority of this server.
pub(crate) async fn ca_roots(ctx: Ctx) -> Result<Reply, ApiError> {
    let ca = ctx.shared.agent.certificate_authority();
    Ok(Reply::json(&json!({
        "ActiveRootID": ca.id,
        "TrustDomain": ca.trust_domain,
        "Roots": [{
            "ID": ca.id,
            "Name": "Lictor CA Root Cert",
            "SerialNumber": ca.serial,
            "SigningKeyID": ca.signing_key_id,
            "ExternalTrustDomain": ca.trust_domain.trim_end_matches(".consul"),
            "NotBefore": ca.not_before,
            "NotAfter": ca.not_after,
            "RootCert": ca.certificate,
            "IntermediateCerts": null,
            "Active": true,
            "PrivateKeyType": "ec",
            "PrivateKeyBits": 256,
            "CreateIndex": 1,
            "ModifyIndex": 1,
        }],
    })))
}
