//! What operators ask of the group of servers, at any of them: the leader answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::CallError;
use lictor_proto::v1::operate::Order;
use lictor_proto::v1::operate_reply::Result as Done;
use lictor_proto::v1::{Census, MembersContext, Operate, OperateReply, ServerHealth, SetAutopilot};
use lictor_proto::{LogIndex, RaftId};
use lictor_raft::MemberChange;
use lictor_state::Outcome;
use prost::Message as _;

use super::{Autopilot, keeper, kind};
use crate::{Node, ProposeError};

/// How long a leader waits until another has taken over.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

impl Node {
    /// The members as the leader knows them, whoever leads.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] when none could be asked in time.
    pub async fn census(&self) -> Result<Census, ProposeError> {
        match self.order(Order::Census(true)).await? {
            Done::Census(census) => Ok(census),
            _ => Err(ProposeError::NoLeader),
        }
    }

    /// Hands the leadership over, whoever leads: to `to`, or to the most caught-up voter. Waits until the leader has
    /// let go of it.
    ///
    /// # Errors
    /// [`ProposeError::Storage`] with the leader's words when it was not possible; [`ProposeError::OutcomeUnknown`].
    pub async fn hand_over(&self, to: Option<RaftId>) -> Result<(), ProposeError> {
        let to = to.map_or(0, |to| to.0);
        self.order(Order::TransferTo(to)).await.map(|_| ())
    }

    /// Sets how the group of servers looks after itself, for all of them; with `cas` only if that was set last by the
    /// entry of this index (0: never). Answers whether it did.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub async fn set_autopilot(&self, autopilot: &Autopilot, cas: Option<u64>) -> Result<bool, ProposeError> {
        let set = SetAutopilot {
            autopilot: Some(autopilot.into()),
            cas,
        };
        let done = self.order(Order::SetAutopilot(set)).await?;
        Ok(matches!(done, Done::Done(true)))
    }

    /// Has the leader carry out an order.
    async fn order(&self, order: Order) -> Result<Done, ProposeError> {
        let mut seeking = self.seek_leader();
        loop {
            let done = match seeking.next().await? {
                None => self.carry_out(order).await,
                Some(leader) => self.order_at(leader, order, seeking.deadline).await?,
            };
            match done {
                Done::NotNow(_) => {}
                Done::Refused(text) => return Err(ProposeError::Storage(text)),
                done => return Ok(done),
            }
        }
    }

    async fn order_at(&self, leader: RaftId, order: Order, deadline: Instant) -> Result<Done, ProposeError> {
        const NOT_NOW: Done = Done::NotNow(true);
        let Some(peers) = self.peers() else {
            return Ok(NOT_NOW);
        };
        let changes_something = !matches!(order, Order::Census(_));
        let body = Operate { order: Some(order) }.encode_to_vec().into();
        let answer = match peers.call(leader, kind::OPERATE, body, deadline).await {
            Ok(answer) => answer,
            Err(CallError::OutcomeUnknown(_)) if changes_something => {
                return Err(ProposeError::OutcomeUnknown);
            }
            Err(_) => return Ok(NOT_NOW),
        };
        match OperateReply::decode(answer) {
            Ok(OperateReply {
                result: Some(done),
                applied,
            }) => {
                // Where it cannot be waited for what was done stands all the same.
                let _ = self.caught_up(LogIndex(applied), deadline).await;
                Ok(done)
            }
            _ => Err(ProposeError::OutcomeUnknown),
        }
    }

    /// Answers [`Self::order`] of another server.
    pub(super) async fn take_order(&self, body: Bytes) -> Bytes {
        let order = Operate::decode(body).ok().and_then(|operate| operate.order);
        let done = match order {
            Some(order) => self.carry_out(order).await,
            None => Done::Refused("the request cannot be read".to_owned()),
        };
        OperateReply {
            applied: self.shared().progress.applied_index().0,
            result: Some(done),
        }
        .encode_to_vec()
        .into()
    }

    /// Carries out an order, if this server leads.
    async fn carry_out(&self, order: Order) -> Done {
        if !self.shared().progress.is_serving() {
            return Done::NotNow(true);
        }
        match order {
            Order::Census(_) => self.census_here().await.map_or(Done::NotNow(true), Done::Census),
            Order::TransferTo(to) => self.transfer(RaftId(to)).await,
            Order::SetAutopilot(set) => self.set_autopilot_here(set).await,
        }
    }

    async fn census_here(&self) -> Option<Census> {
        let survey = self.survey().await?;
        let autopilot = self.autopilot();
        let healthy_since = self.shared().healthy_since.lock().clone();
        let stable_ms = |id| healthy_since.get(&id).map_or(0, |since| ms(since.elapsed()));
        let me = ServerHealth {
            raft_id: self.raft_id().0,
            alive: true,
            healthy: true,
            stable_ms: stable_ms(self.raft_id()),
            silence_ms: Some(0),
            last_index: survey.status.last.0,
        };
        let others = survey.peers.iter().map(|peer| {
            let silence = keeper::silence(peer, &survey);
            ServerHealth {
                raft_id: peer.id.0,
                alive: silence.is_some_and(|silence| silence <= keeper::DEAD_AFTER),
                healthy: keeper::is_healthy(peer, &survey, &autopilot),
                stable_ms: stable_ms(peer.id),
                silence_ms: silence.map(ms),
                last_index: peer.matched.0,
            }
        });
        Some(Census {
            leader: self.raft_id().0,
            term: survey.status.term.0,
            servers: std::iter::once(me).chain(others).collect(),
        })
    }

    async fn transfer(&self, to: RaftId) -> Done {
        let me = self.raft_id();
        let to = (to.0 != 0).then_some(to);
        let refused = |text: &str| Done::Refused(text.to_owned());
        let roster = self.roster();
        if to == Some(me) {
            return refused("cannot transfer leadership to itself");
        }
        if to.is_some_and(|to| !roster.members().voters().any(|voter| voter == to)) {
            return refused("the server is no voter");
        }
        if roster.members().is_sole_voter(me) {
            return refused("cannot find peer");
        }
        self.transfer_leadership(to);
        match tokio::time::timeout(TRANSFER_TIMEOUT, self.leader_changed(Some(me))).await {
            Ok(()) => Done::Done(true),
            Err(_) => refused("leadership transfer timeout"),
        }
    }

    async fn set_autopilot_here(&self, set: SetAutopilot) -> Done {
        let context = MembersContext {
            servers: Vec::new(),
            autopilot: Some(set),
        };
        // The members stay as they are: the leader votes already.
        let changes = vec![MemberChange::AddVoter(self.raft_id())];
        match self.change_members_with(None, changes, &context).await {
            Ok(outcome) => Done::Done(matches!(outcome, Outcome::Bool(true))),
            Err(ProposeError::NoLeader | ProposeError::ChangePending) => Done::NotNow(true),
            Err(error) => Done::Refused(error.to_string()),
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
