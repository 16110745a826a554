//! `GET /v1/agent/metrics`: the gauges that the server keeps anyway, in the form of Consul's telemetry or for Prometheus.

use std::fmt::Write as _;
use std::time::SystemTime;

use hyper::StatusCode;
use lictor_state::Area;
use serde_json::json;

use super::info::{hostname, kib_of, may_read};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

/// A name in Consul's form, what it is, and its value.
type Gauge = (&'static str, &'static str, u64);

/// `?format=prometheus` answers in the text format of Prometheus.
pub(crate) async fn metrics(ctx: Ctx) -> Result<Reply, ApiError> {
    may_read(&ctx)?;
    let process = tokio::task::spawn_blocking(|| (hostname(), resident_bytes())).await;
    let (hostname, resident) = process.map_err(|error| ApiError::internal(error.to_string()))?;
    let gauges = gauges(&ctx, resident);
    if ctx.query().text("format").as_deref() == Some("prometheus") {
        return Ok(Reply::text(StatusCode::OK, prometheus(&gauges)));
    }
    // Gauges carry the host's name, as Consul's do.
    let shown =
        |(name, _, value)| json!({"Name": format!("consul.{hostname}.{name}"), "Value": value, "Labels": {}});
    Ok(Reply::json(&json!({
        "Timestamp": lictor_agent::timestamp(SystemTime::now()),
        "Gauges": gauges.map(shown),
        "Points": [],
        "Counters": [],
        "Samples": [],
    })))
}

fn gauges(ctx: &Ctx, resident_bytes: u64) -> [Gauge; 14] {
    let status = ctx.shared.node.status();
    let view = ctx.shared.node.view();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    [
        ("kv.entries", "Keys.", count(view.kv_len())),
        (
            "raft.appliedIndex",
            "Index of the last entry that was applied.",
            status.applied.0,
        ),
        (
            "raft.commitIndex",
            "Index of the last entry that is committed.",
            status.commit.0,
        ),
        (
            "raft.lastIndex",
            "Index of the last entry in the log.",
            status.last.0,
        ),
        ("raft.term", "Term of the Raft log.", status.term.0),
        (
            "runtime.alloc_bytes",
            "Memory that the process holds.",
            resident_bytes,
        ),
        (
            "server.isLeader",
            "1 if this server leads.",
            status.is_leader.into(),
        ),
        (
            "state.checks",
            "Checks in the catalog.",
            count(view.checks().count()),
        ),
        (
            "state.nodes",
            "Nodes in the catalog.",
            count(view.nodes().count()),
        ),
        (
            "state.service_instances",
            "Services in the catalog.",
            count(view.services().count()),
        ),
        (
            "state.services.index",
            "Index of the last change of services.",
            view.area_index(Area::Services).0,
        ),
        ("state.sessions", "Sessions.", count(view.sessions().count())),
        (
            "watches.waiting",
            "Blocking queries that wait.",
            count(ctx.shared.node.watches().waiters()),
        ),
        (
            "watches.woken",
            "Blocking queries that were woken since the start.",
            ctx.shared.node.watches().woken_total(),
        ),
    ]
}

/// Dots are underscores there, and every name has its help and type in front.
fn prometheus(gauges: &[Gauge]) -> String {
    let mut text = String::with_capacity(gauges.len() * 128);
    for (name, help, value) in gauges {
        let name = format!("consul_{}", name.replace('.', "_"));
        // Writing to a text does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    text
}

/// The memory that this process holds.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kib_of(&status, "VmRSS") * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_help_type_and_value_of_each() {
        let text = prometheus(&[("raft.term", "Term.", 7), ("kv.entries", "Keys.", 0)]);

        let expected = "# HELP consul_raft_term Term.\n# TYPE consul_raft_term gauge\nconsul_raft_term 7\n\
                        # HELP consul_kv_entries Keys.\n# TYPE consul_kv_entries gauge\nconsul_kv_entries 0\n";
        assert_eq!(text, expected);
    }
}
