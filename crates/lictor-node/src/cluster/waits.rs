//! Tells the leader for whom this server keeps places in fair queues. Nothing of it is logged.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_proto::RaftId;
use lictor_proto::v1::{QueueReport, QueueReportReply};
use prost::Message as _;

use super::kind;
use crate::node::Shared;
use crate::progress::Role;

/// How long a report may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after one that failed.
const AGAIN: Duration = Duration::from_millis(100);
/// While there is nothing to say. Whatever there is ends the pause.
const IDLE: Duration = Duration::from_secs(3600);

/// Reports whenever there is something new, when somebody else leads, and before a wait would lapse; ends with the node.
pub(crate) async fn report(weak: Weak<Shared>) {
    let Some((changed, mut roles)) = weak
        .upgrade()
        .map(|shared| (shared.callers.changed(), shared.progress.roles()))
    else {
        return;
    };
    loop {
        let role = *roles.borrow_and_update();
        let pause = match (role, weak.upgrade()) {
            (Role::Stopping, _) | (_, None) => return,
            (Role::NoLeader, _) => IDLE,
            (Role::Leads, Some(shared)) => {
                let report = shared.callers.report(&shared.view.load());
                let going = shared.take_queue_report(shared.me, &report);
                noted(&shared, &report, going)
            }
            (Role::Follows(leader), Some(shared)) => {
                let report = shared.callers.report(&shared.view.load());
                let going = send(&shared, leader, &report).await;
                noted(&shared, &report, going)
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
            role = roles.changed() => {
                if role.is_err() {
                    return;
                }
                if let Some(shared) = weak.upgrade() {
                    shared.callers.leader_changed();
                }
            }
        }
    }
}

/// What became of a report; answers when the next one is due.
fn noted(shared: &Arc<Shared>, report: &QueueReport, going: Option<Vec<u64>>) -> Duration {
    let Some(going) = going else { return AGAIN };
    let reply = QueueReportReply { leads: true, going };
    shared.callers.reported(report, &reply);
    shared.callers.next_report().unwrap_or(IDLE)
}

/// The entries that the leader takes out; `None` if it was not reached, or leads no more.
async fn send(shared: &Arc<Shared>, leader: RaftId, report: &QueueReport) -> Option<Vec<u64>> {
    if report.waiting.is_empty() && report.left.is_empty() {
        return Some(Vec::new());
    }
    let net = shared.net.get()?;
    let body = Bytes::from(report.encode_to_vec());
    let deadline = Instant::now() + REPORT_TIMEOUT;
    let reply = net.peers.call(leader, kind::QUEUE_REPORT, body, deadline).await;
    let reply = QueueReportReply::decode(reply.ok()?).ok()?;
    reply.leads.then_some(reply.going)
}

/// Answers [`send`] of another server.
pub(super) fn take(shared: &Shared, from: RaftId, body: Bytes) -> Bytes {
    let Ok(report) = QueueReport::decode(body) else {
        return Bytes::new();
    };
    let going = shared.take_queue_report(from, &report);
    QueueReportReply {
        leads: going.is_some(),
        going: going.unwrap_or_default(),
    }
    .encode_to_vec()
    .into()
}
