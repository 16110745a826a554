//! `GET /v1/agent/metrics`: all that this server counts, in the form of Consul's telemetry or for Prometheus.

mod process;

use std::time::SystemTime;

use bytes::Bytes;
use hyper::header::HeaderValue;
use lictor_node::Queue;
use lictor_state::Area;
use lictor_telemetry::{Kind, Page};

use self::process::Process;
use super::info::{hostname, may_read};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::server::Shared;

/// The text format of Prometheus.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `?format=prometheus` answers in the text format of Prometheus.
pub(crate) async fn metrics(ctx: Ctx) -> Result<Reply, ApiError> {
    may_read(&ctx)?;
    let process = tokio::task::spawn_blocking(|| (hostname(), Process::read())).await;
    let (hostname, process) = process.map_err(|error| ApiError::internal(error.to_string()))?;
    let page = page(&ctx.shared, &process).await;
    if ctx.query().text("format").as_deref() == Some("prometheus") {
        return Ok(Reply::file(TEXT_FORMAT, Bytes::from(page.prometheus())));
    }
    let now = lictor_agent::timestamp(SystemTime::now());
    Ok(Reply::json(&page.json(
        &now,
        &hostname,
        ctx.shared.metrics.uptime(),
    )))
}

/// Everything, as of now.
pub(crate) async fn page(shared: &Shared, process: &Process) -> Page {
    let mut page = Page::default();
    add_state(&mut page, shared);
    add_watches(&mut page, shared);
    shared.node.add_metrics(&mut page).await;
    shared.metrics.add_to(&mut page);
    add_queues(&mut page, shared);
    let slow = shared.node.slow_work().into_iter();
    page.counters(
        "lictor.slow_operations_total",
        "Operations that took longer than slow_operation_threshold.",
        "operation",
        slow.chain([("request", shared.metrics.slow.get())]),
    );
    page.gauge(
        "consul.runtime.alloc_bytes",
        "Memory that the process holds.",
        process.resident_bytes,
    );
    process.add_to(&mut page);
    let build = page.family(
        Kind::Gauge,
        "lictor.build_info",
        "1, with the version of this server.",
    );
    build.count(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page
}

/// What the state holds and where consensus stands.
fn add_state(page: &mut Page, shared: &Shared) {
    let (status, view) = (shared.node.status(), shared.node.view());
    let count = |count: usize| count as u64;
    let keys = count(view.kv_len());
    let gauges = [
        ("consul.kv.entries", "Keys.", keys),
        (
            "consul.state.kv_entries",
            "Keys, by the name that Consul has for it.",
            keys,
        ),
        (
            "consul.raft.appliedIndex",
            "Index of the last entry that was applied.",
            status.applied.0,
        ),
        (
            "consul.raft.applied_index",
            "The same, by the name that Consul has for it.",
            status.applied.0,
        ),
        (
            "consul.raft.commitIndex",
            "Index of the last entry that is committed.",
            status.commit.0,
        ),
        (
            "consul.raft.lastIndex",
            "Index of the last entry in the log.",
            status.last.0,
        ),
        (
            "consul.raft.last_index",
            "The same, by the name that Consul has for it.",
            status.last.0,
        ),
        ("consul.raft.term", "Term of the Raft log.", status.term.0),
        (
            "consul.server.isLeader",
            "1 if this server leads.",
            status.is_leader.into(),
        ),
        (
            "consul.state.checks",
            "Checks in the catalog.",
            count(view.checks().count()),
        ),
        (
            "consul.state.nodes",
            "Nodes in the catalog.",
            count(view.nodes().count()),
        ),
        (
            "consul.state.service_instances",
            "Services in the catalog.",
            count(view.services().count()),
        ),
        (
            "consul.state.services.index",
            "Index of the last change of services.",
            view.area_index(Area::Services).0,
        ),
        (
            "consul.state.sessions",
            "Sessions.",
            count(view.sessions().count()),
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value);
    }
}

fn add_watches(page: &mut Page, shared: &Shared) {
    let watches = shared.node.watches();
    let waiting = watches.waiters() as u64;
    page.gauge("consul.watches.waiting", "Blocking queries that wait.", waiting);
    page.gauge(
        "consul.rpc.queries_blocking",
        "The same, by the name that Consul has for it.",
        waiting,
    );
    page.counter(
        "lictor.watches.woken_total",
        "Times that a blocking query was woken by a change.",
        watches.woken_total(),
    );
}

/// Every queue in one metric.
fn add_queues(page: &mut Page, shared: &Shared) {
    let (streams, streams_max) = shared.streams.depth();
    let streams = Queue {
        name: "event_streams",
        depth: streams,
        limit: Some(streams_max),
        refused: Some(shared.metrics.streams_refused.get()),
    };
    let queues: Vec<_> = shared.node.queues().into_iter().chain([streams]).collect();
    page.gauges(
        "lictor.queue.depth",
        "How many are in a queue.",
        "queue",
        queues.iter().map(|queue| (queue.name, queue.depth as u64)),
    );
    page.gauges(
        "lictor.queue.capacity",
        "How many may be in a queue. One without has the bound of proposals or of connections.",
        "queue",
        queues
            .iter()
            .filter_map(|queue| Some((queue.name, queue.limit? as u64))),
    );
    page.counters(
        "lictor.queue.refused_total",
        "How many found a queue full and were turned away.",
        "queue",
        queues
            .iter()
            .filter_map(|queue| Some((queue.name, queue.refused?))),
    );
}
