//! The way of a node of Raft-KV-Demo into its cluster.

use std::time::Duration;

use anyhow::bail;
use lictor_cli::ask_to_join;
use lictor_cli::config::{Demo, RuntimeConfig};
use lictor_node::{Node, Roster};
use tokio::time::{Instant, sleep, timeout_at};

/// The first and the longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Whether what was asked for goes with the data that the node has: `members` as they are stored, if it has any.
pub(super) fn check(config: &RuntimeConfig, node: &Node, members: Option<&[u8]>) -> anyhow::Result<()> {
    let Some(demo) = &config.demo else { return Ok(()) };
    let Some(members) = members else {
        if config.bootstrap && demo.join.is_some() {
            bail!("-bootstrap forms a new cluster, and -join joins one: give one of them");
        }
        return Ok(());
    };
    if config.bootstrap {
        tracing::info!("-bootstrap does nothing: this node has data already, and goes on from there");
    }
    let roster = Roster::decode(members);
    let listed = roster.as_ref().and_then(|roster| roster.get(node.raft_id()));
    match listed.filter(|listed| listed.name != config.node_name) {
        Some(listed) => bail!(
            "the data is that of {}; start it with -id {0}, or another -data-dir",
            listed.name
        ),
        None => Ok(()),
    }
}

/// Has this node taken in by the member that it is told to ask, if there is one. Ends with an error when that fails and it
/// has no place in a cluster.
pub(super) async fn join(demo: Option<Demo>, node: Node) -> anyhow::Result<()> {
    let Some(demo) = demo else { return Ok(()) };
    let Some(member) = &demo.join else { return Ok(()) };
    let deadline = Instant::now() + demo.join_timeout;
    let mut pause = PAUSE.0;
    loop {
        let asked = ask_to_join(member, &node.identity().node, &demo.raddr);
        let why = match timeout_at(deadline, asked).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => format!("{member} gave no answer in time"),
        };
        if Instant::now() + pause < deadline {
            tracing::info!(why, "not joined yet; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            continue;
        }
        if node.roster().get(node.raft_id()).is_none() {
            bail!("cannot join through {member}: {why}");
        }
        tracing::warn!(
            why,
            "nobody was told that this node is there; it is a member all the same"
        );
        return Ok(());
    }
}
