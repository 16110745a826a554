//! The search for a leader.

use std::time::{Duration, Instant};

use lictor_proto::RaftId;
use lictor_telemetry::journey;
use tokio::sync::watch;

use crate::ProposeError;
use crate::node::{LEADER_WAIT, RETRY_PAUSE};
use crate::progress::Role;

/// The search for a leader that takes something.
pub(crate) struct Seeking {
    roles: watch::Receiver<Role>,
    /// When it is given up.
    pub(crate) deadline: Instant,
    tried: bool,
}

impl Seeking {
    /// A search that is given up after `wait`. One that has been tried begins with a pause.
    pub(crate) fn new(roles: watch::Receiver<Role>, wait: Duration, tried: bool) -> Self {
        Self {
            roles,
            deadline: Instant::now() + wait,
            tried,
        }
    }

    /// Where to try next: at another server, or here (`None`). Waits if there is nobody to try, and before it names
    /// the same once more.
    pub(crate) async fn next(&mut self) -> Result<Option<RaftId>, ProposeError> {
        loop {
            let leader = match *self.roles.borrow_and_update() {
                Role::Stopping => return Err(ProposeError::Stopping),
                Role::NoLeader => None,
                Role::Leads => Some(None),
                Role::Follows(leader) => Some(Some(leader)),
            };
            if let Some(leader) = leader
                && !std::mem::replace(&mut self.tried, true)
            {
                return Ok(leader);
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Err(ProposeError::NoLeader);
            }
            // Where nobody leads only a change of the role helps. Else the leader may only have been out of reach.
            let pause = if leader.is_some() {
                RETRY_PAUSE
            } else {
                LEADER_WAIT
            };
            // Neither outcome matters: it is looked at anew.
            let _ = tokio::time::timeout(pause.min(self.deadline - now), self.roles.changed()).await;
            journey::add(journey::Stage::Leader, now.elapsed());
            self.tried = false;
        }
    }
}
