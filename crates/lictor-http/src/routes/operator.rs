//! `/v1/operator`: the servers of the cluster as the leader knows them, and what may be done with them.

mod autopilot;
pub(crate) mod keyring;
mod raft;

pub(crate) use autopilot::{configuration as autopilot_configuration, health, state};
pub(crate) use raft::{configuration, remove_peer, transfer_leader};

use std::sync::Arc;

use lictor_node::Roster;
use lictor_proto::RaftId;
use lictor_proto::v1::{Census, ServerHealth, ServerRow};

use crate::ctx::Ctx;
use crate::error::ApiError;

/// Everybody in the roster, with what the leader knows of them.
struct Servers {
    roster: Arc<Roster>,
    census: Census,
}

/// One server.
struct Seen<'a> {
    row: &'a ServerRow,
    health: ServerHealth,
    /// Host and port.
    address: String,
    leads: bool,
    votes: bool,
}

impl Servers {
    async fn ask(ctx: &Ctx) -> Result<Self, ApiError> {
        let census = ctx.shared.node.census().await?;
        Ok(Self {
            roster: ctx.shared.node.roster(),
            census,
        })
    }

    fn iter(&self) -> impl Iterator<Item = Seen<'_>> {
        self.roster.servers().map(|row| Seen {
            row,
            // Nothing is known of who has just come.
            health: self
                .census
                .servers
                .iter()
                .find(|health| health.raft_id == row.raft_id)
                .copied()
                .unwrap_or_default(),
            address: self.roster.address(RaftId(row.raft_id)).unwrap_or_default(),
            leads: self.census.leader == row.raft_id,
            votes: self
                .roster
                .members()
                .voters()
                .any(|voter| voter == RaftId(row.raft_id)),
        })
    }
}
