//! `GET /v1/agent/monitor`: the log of this server as it is written.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use lictor_node::{Topic, Waiter};
use lictor_state::Area;
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;

use crate::acl::{Access, Resource};
use crate::answer::Flow;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::server::Shared;

/// `?loglevel=` names the lowest level, `?logjson` asks for JSON. Ends when the client goes or the server stops.
pub(crate) async fn monitor(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.authorize(Resource::Agent(&ctx.shared.node.identity().node), Access::Read)?;
    let name = ctx.query().text("loglevel").filter(|name| !name.is_empty());
    let name = name.as_deref().unwrap_or("INFO");
    let level = level(name).ok_or_else(|| ApiError::bad_request(format!("Unknown log level: {name}")))?;
    let is_json = ctx.query().has("logjson");
    let Some(monitor) = &ctx.shared.options.monitor else {
        return Err(ApiError::internal("Streaming not supported"));
    };
    // No node has this name, so that only a stop or a restore wakes it.
    let stop = ctx
        .shared
        .node
        .watches()
        .register(&[Topic::Row(Area::Node, b"\0")])?;
    let lines = monitor.watch(level, is_json).ok_or_else(|| {
        let text = "too many clients watch the log of this server";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, text)
    })?;
    let (sender, body) = mpsc::channel(1);
    tokio::spawn(pass_on(Arc::clone(&ctx.shared), lines, sender, stop));
    Ok(Reply::flow(Flow::new(body)))
}

/// Consul's names of levels.
fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_uppercase().as_str() {
        "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARN" => LevelFilter::WARN,
        "ERR" | "ERROR" => LevelFilter::ERROR,
        _ => return None,
    })
}

async fn pass_on(
    shared: Arc<Shared>,
    mut lines: mpsc::Receiver<Bytes>,
    body: mpsc::Sender<std::io::Result<Bytes>>,
    mut stop: Waiter,
) {
    while !shared.is_stopping() {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return };
                if body.send(Ok(line)).await.is_err() {
                    return;
                }
            }
            () = body.closed() => return,
            () = stop.changed() => {}
        }
    }
}
