//! What the leader does for the members: takes servers in, lets them vote once they are caught up, removes those that
//! leave or are replaced, and says of each whether it is alive.
//!
//! All of it goes through the log; a leader that is none any more achieves nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_proto::v1::{
    AutopilotRow, CheckRow, Deregister, Join, JoinReply, Leave, LeaveReply, MembersContext, Register,
    ServerRow, join_reply::Outcome as Joining,
};
use lictor_proto::{Command, RaftId};
use lictor_raft::{MemberChange, PeerProgress};
use lictor_state::State;
use prost::Message as _;

use super::{Forming, Roster, agents, kind};
use crate::node::Shared;
use crate::{Consistency, Node, ProposeError, Survey};

/// How often the leader looks at the members.
const EVERY: Duration = Duration::from_millis(250);
/// A leader that refuses writes for want of room hands over after so long: others may have room. Should none have, the
/// leadership goes round at this pace.
const FULL_LEADS_FOR: Duration = Duration::from_secs(5);
/// A server is taken for dead after so long a silence. Far above an election timeout: its sessions end with it, and a
/// server that is only half reachable for a moment is to be left alone.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(5);
/// A leader that has not looked at the members for so long stood still. What it did not hear meanwhile says nothing.
const STALL: Duration = Duration::from_secs(2);
/// A server that was heard of within this time is alive.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);
/// How long a leave may take before it is answered with an error.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The check that tells whether a node is alive (Consul: its gossip's).
pub(super) const HEALTH_CHECK: &str = "serfHealth";

/// How the group of servers looks after itself (Consul: autopilot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autopilot {
    /// Whether dead servers are removed once others have taken their place.
    pub cleanup_dead_servers: bool,
    /// The longest silence of a healthy server.
    pub last_contact_threshold: Duration,
    /// The most entries that a healthy server lags.
    pub max_trailing_logs: u64,
    /// The fewest voters that are left by removals; 0 for no such bound.
    pub min_quorum: u32,
    /// How long a new server must be healthy before it votes.
    pub server_stabilization_time: Duration,
}

impl Default for Autopilot {
    fn default() -> Self {
        Self {
            cleanup_dead_servers: true,
            last_contact_threshold: Duration::from_millis(200),
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time: Duration::from_secs(10),
        }
    }
}

impl From<&AutopilotRow> for Autopilot {
    fn from(row: &AutopilotRow) -> Self {
        Self {
            cleanup_dead_servers: row.cleanup_dead_servers,
            last_contact_threshold: Duration::from_nanos(row.last_contact_threshold_nanos),
            max_trailing_logs: row.max_trailing_logs,
            min_quorum: row.min_quorum,
            server_stabilization_time: Duration::from_nanos(row.server_stabilization_time_nanos),
        }
    }
}

impl From<&Autopilot> for AutopilotRow {
    fn from(autopilot: &Autopilot) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            cleanup_dead_servers: autopilot.cleanup_dead_servers,
            last_contact_threshold_nanos: nanos(autopilot.last_contact_threshold),
            max_trailing_logs: autopilot.max_trailing_logs,
            min_quorum: autopilot.min_quorum,
            server_stabilization_time_nanos: nanos(autopilot.server_stabilization_time),
            create_index: 0,
            modify_index: 0,
        }
    }
}

/// What a leader remembers between two looks.
#[derive(Debug, Default)]
struct Watched {
    /// Since when each server is healthy without a break.
    healthy_since: BTreeMap<RaftId, Instant>,
    /// Since when this server leads and looks after the members without a break.
    leads_since: Option<Instant>,
    /// When it looked last.
    looked: Option<Instant>,
}

/// Looks after the members while this server leads; ends with the node.
pub(crate) async fn keep(shared: Weak<Shared>) {
    let mut watched = Watched::default();
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(node) = shared.upgrade().map(Node::of) else {
            return;
        };
        if node.shared().progress.is_stopping() {
            return;
        }
        if !node.shared().progress.is_serving() {
            watched = Watched::default();
            node.shared().healthy_since.lock().clear();
            node.shared().agents.clear();
            continue;
        }
        // It may have slept and been replaced, and believe all others dead: what it knows counts once a majority has
        // answered it.
        if node.read(Consistency::Default).await.is_err() {
            continue;
        }
        let Some(survey) = node.survey().await else {
            continue;
        };
        if let Err(error) = look(&node, &survey, &mut watched).await {
            tracing::debug!(%error, "the members could not be looked after");
        }
    }
}

async fn look(node: &Node, survey: &Survey, watched: &mut Watched) -> Result<(), ProposeError> {
    let now = Instant::now();
    if watched
        .looked
        .is_some_and(|looked| now.duration_since(looked) > STALL)
    {
        *watched = Watched::default();
    }
    watched.looked = Some(now);
    let leads_since = *watched.leads_since.get_or_insert(now);
    let term = survey.status.term;
    if node.shared().progress.is_disk_full() && now.duration_since(leads_since) > FULL_LEADS_FOR {
        tracing::warn!("the disk is nearly full: handing over the leadership");
        node.transfer_leadership(None);
        return Ok(());
    }
    let roster = node.roster();
    let autopilot = node.autopilot();
    let is_peer = |id: &RaftId| *id == node.raft_id() || survey.peers.iter().any(|peer| peer.id == *id);
    watched.healthy_since.retain(|id, _| is_peer(id));
    for peer in &survey.peers {
        if is_healthy(peer, survey, &autopilot) {
            watched.healthy_since.entry(peer.id).or_insert(now);
        } else {
            watched.healthy_since.remove(&peer.id);
        }
    }
    watched.healthy_since.entry(node.raft_id()).or_insert(leads_since);
    node.shared()
        .healthy_since
        .lock()
        .clone_from(&watched.healthy_since);
    for register in health_changes(node, survey, &roster, leads_since, now) {
        node.propose_in(term, Command::Register(register)).await?;
    }
    for change in agents::health_changes(node, &roster, leads_since, now) {
        node.propose_in(term, change).await?;
    }
    // One change at a time; the next look sees what it made of the members.
    if let Some(change) = due(node, survey, &roster, watched, &autopilot, now) {
        tracing::info!(change = ?change.changes, why = change.why, "changing the members");
        let context = MembersContext {
            servers: change.servers,
            autopilot: None,
        };
        node.change_members_with(Some(term), change.changes, &context)
            .await?;
    }
    Ok(())
}

/// How long a server has been silent; `None` if it was never heard of by this leader.
pub(super) fn silence(peer: &PeerProgress, survey: &Survey) -> Option<Duration> {
    let contact = peer.last_contact?;
    Some(Duration::from_millis(survey.now.0.saturating_sub(contact.0)))
}

pub(super) fn is_healthy(peer: &PeerProgress, survey: &Survey, autopilot: &Autopilot) -> bool {
    let in_touch = silence(peer, survey).is_some_and(|silence| silence <= autopilot.last_contact_threshold);
    in_touch && survey.status.commit.0.saturating_sub(peer.matched.0) <= autopilot.max_trailing_logs
}

fn is_alive(peer: &PeerProgress, survey: &Survey) -> bool {
    silence(peer, survey).is_some_and(|silence| silence < ALIVE_WITHIN)
}

fn is_dead(peer: &PeerProgress, survey: &Survey, leads_since: Instant, now: Instant) -> bool {
    let listened = now.duration_since(leads_since);
    silence(peer, survey).map_or(listened, |silence| silence.min(listened)) > DEAD_AFTER
}

struct Change {
    changes: Vec<MemberChange>,
    servers: Vec<ServerRow>,
    why: &'static str,
}

/// The next change that the members need.
fn due(
    node: &Node,
    survey: &Survey,
    roster: &Roster,
    watched: &Watched,
    autopilot: &Autopilot,
    now: Instant,
) -> Option<Change> {
    let is_stable = |id: RaftId| {
        let since = watched.healthy_since.get(&id);
        since.is_some_and(|since| now.duration_since(*since) >= autopilot.server_stabilization_time)
    };
    if let Some(peer) = survey
        .peers
        .iter()
        .find(|peer| peer.is_learner && is_stable(peer.id))
    {
        return Some(Change {
            changes: vec![MemberChange::AddVoter(peer.id)],
            servers: Vec::new(),
            why: "it is caught up",
        });
    }
    let voters: Vec<RaftId> = roster.members().voters().collect();
    if let Some(server) = voters.iter().find_map(|voter| moved(node, roster.get(*voter)?)) {
        return Some(Change {
            changes: vec![MemberChange::AddVoter(RaftId(server.raft_id))],
            servers: vec![server],
            why: "its address is another now",
        });
    }
    let leads_since = watched.leads_since.unwrap_or(now);
    let is_gone = |peer: &&PeerProgress| !peer.is_learner && is_dead(peer, survey, leads_since, now);
    let mut dead = survey.peers.iter().filter(is_gone).map(|peer| peer.id);
    let first = dead.next()?;
    let may =
        autopilot.cleanup_dead_servers && may_clean_up(voters.len(), 1 + dead.count(), autopilot.min_quorum);
    may.then(|| Change {
        changes: vec![MemberChange::Remove(first)],
        servers: Vec::new(),
        why: "it is dead and has been replaced",
    })
}

/// A server as it should stand in the roster, if that has an old address.
fn moved(node: &Node, server: &ServerRow) -> Option<ServerRow> {
    let id = RaftId(server.raft_id);
    if id == node.raft_id() {
        return renewed(server, &node.identity().server(id));
    }
    let (address, port) = node.shared().net.get()?.moved_to(id)?;
    let new = ServerRow {
        address,
        port,
        ..server.clone()
    };
    (new != *server).then_some(new)
}

/// A member as it should stand in the roster after it has said where it is, if that is news.
pub(super) fn renewed(listed: &ServerRow, said: &ServerRow) -> Option<ServerRow> {
    let mut new = ServerRow {
        address: said.address.clone(),
        port: said.port,
        ..listed.clone()
    };
    if said.http_address_given || !listed.http_address_given {
        new.http_address.clone_from(&said.http_address);
        new.http_address_given = said.http_address_given;
    }
    (new != *listed).then_some(new)
}

/// Whether a dead voter may go: only when those that live are as many as three (or the configured least), and more than
/// half by far. A cluster of three keeps its dead third, since without it the next death would cost the quorum.
fn may_clean_up(voters: usize, dead: usize, min_quorum: u32) -> bool {
    let least = usize::try_from(min_quorum).unwrap_or(usize::MAX).max(3);
    dead > 0 && voters.saturating_sub(dead) >= least && dead * 2 < voters
}

/// What must be written of the servers' health.
fn health_changes(
    node: &Node,
    survey: &Survey,
    roster: &Roster,
    leads_since: Instant,
    now: Instant,
) -> Vec<Register> {
    let state = node.view();
    let change = |peer: &PeerProgress| {
        let dead = is_dead(peer, survey, leads_since, now);
        health_change(&state, &roster.get(peer.id)?.name, dead, is_alive(peer, survey))
    };
    survey.peers.iter().filter_map(change).collect()
}

/// What must be written of the health of a node whose agent is dead, or alive, or neither for sure.
pub(super) fn health_change(state: &State, node: &str, dead: bool, alive: bool) -> Option<Register> {
    let check = state.check(node, HEALTH_CHECK)?;
    let (status, output) = match check.status.as_str() {
        "passing" if dead => ("critical", "Agent not live or unreachable"),
        "critical" if alive => ("passing", "Agent alive and reachable"),
        _ => return None,
    };
    tracing::warn!(node, status, "the health of a node changed");
    let check = CheckRow {
        status: status.to_owned(),
        output: output.to_owned(),
        ..(**check).clone()
    };
    Some(Register {
        node: Some((**state.node(node)?).clone()),
        checks: vec![check],
        ..Register::default()
    })
}

/// Answers a server that wants to join.
pub(super) async fn join(node: &Node, forming: &Forming, body: Bytes) -> Bytes {
    let reply = match Join::decode(body).ok().and_then(|join| join.server) {
        Some(server) => take_in(node, forming, server).await,
        None => refused("the request cannot be read".to_owned()),
    };
    reply.encode_to_vec().into()
}

fn refused(text: String) -> JoinReply {
    JoinReply {
        outcome: Joining::Refused.into(),
        text,
        ..JoinReply::default()
    }
}

async fn take_in(node: &Node, forming: &Forming, server: ServerRow) -> JoinReply {
    let Some(formed) = forming.formed() else {
        return refused("this server belongs to no cluster itself".to_owned());
    };
    if server.raft_id == 0 || server.name.is_empty() {
        return refused("it says nothing of itself".to_owned());
    }
    match take_in_here(node, server).await {
        Ok(()) => JoinReply {
            outcome: Joining::Joined.into(),
            cluster_id: formed.cluster_id().to_owned(),
            servers: node.roster().servers().cloned().collect(),
            ..JoinReply::default()
        },
        Err(NotTakenIn::Refused(text)) => refused(text),
        Err(NotTakenIn::Later(ProposeError::NoLeader)) => JoinReply {
            outcome: Joining::NotLeader.into(),
            leader: node
                .leader()
                .and_then(|leader| node.roster().get(leader).cloned()),
            ..JoinReply::default()
        },
        Err(NotTakenIn::Later(error)) => JoinReply {
            outcome: Joining::Later.into(),
            text: error.to_string(),
            ..JoinReply::default()
        },
    }
}

/// Why a server was not made a member.
#[derive(Debug)]
pub(super) enum NotTakenIn {
    /// Not now: the change was not made, or this server does not lead.
    Later(ProposeError),
    /// Somebody else is in its place.
    Refused(String),
}

/// Makes a server a learner, if this one leads. Of one that is a member already, takes over where it says it is.
pub(super) async fn take_in_here(node: &Node, server: ServerRow) -> Result<(), NotTakenIn> {
    if !node.shared().progress.is_serving() {
        return Err(NotTakenIn::Later(ProposeError::NoLeader));
    }
    let roster = node.roster();
    let id = RaftId(server.raft_id);
    let (changes, server) = if roster.members().names(id) {
        let Some(new) = roster.get(id).and_then(|listed| renewed(listed, &server)) else {
            return Ok(());
        };
        let votes = roster.members().voters().any(|voter| voter == id);
        let stays = if votes {
            MemberChange::AddVoter(id)
        } else {
            MemberChange::AddLearner(id)
        };
        (vec![stays], new)
    } else {
        let gone = predecessor(node, &roster, &server).await;
        let gone = gone.map_err(NotTakenIn::Refused)?.map(MemberChange::Remove);
        let changes = gone.into_iter().chain([MemberChange::AddLearner(id)]);
        (changes.collect(), server)
    };
    tracing::info!(server = server.name, ?changes, "a server joins, or has moved");
    let changed = node.change_members(changes, vec![server]).await;
    changed.map_err(NotTakenIn::Later)
}

/// The member whose place a new server takes: one of the same name or node id that is silent (rule R18). One that lives
/// makes the join refused.
async fn predecessor(node: &Node, roster: &Roster, server: &ServerRow) -> Result<Option<RaftId>, String> {
    let same = |other: &&ServerRow| other.name == server.name || other.node_id == server.node_id;
    let Some(other) = roster.servers().find(same) else {
        return Ok(None);
    };
    let id = RaftId(other.raft_id);
    let lives = id == node.raft_id()
        || node.survey().await.is_none_or(|survey| {
            let peer = survey.peers.iter().find(|peer| peer.id == id);
            peer.is_some_and(|peer| is_alive(peer, &survey))
        });
    if lives {
        let what = if other.name == server.name {
            "name"
        } else {
            "node id"
        };
        return Err(format!(
            "a living member has the same {what} ({}); give this server another, or stop that one",
            other.name
        ));
    }
    Ok(Some(id))
}

/// Answers a request to remove a member.
pub(super) async fn leave(node: &Node, body: Bytes) -> Bytes {
    let reply = match Leave::decode(body) {
        Ok(leave) => match node.remove_here(RaftId(leave.raft_id)).await {
            Ok(()) => LeaveReply {
                left: true,
                ..LeaveReply::default()
            },
            Err(error) => LeaveReply {
                not_leader: matches!(error, ProposeError::NoLeader),
                text: error.to_string(),
                ..LeaveReply::default()
            },
        },
        Err(_) => LeaveReply {
            text: "the request cannot be read".to_owned(),
            ..LeaveReply::default()
        },
    };
    reply.encode_to_vec().into()
}

impl Node {
    /// Removes a member, whoever leads, and its node from the catalog. Nothing to do for one that is none.
    ///
    /// # Errors
    /// As for [`Node::change_members`]; [`ProposeError::NoLeader`] when it could not be done in time.
    pub async fn remove_member(&self, id: RaftId) -> Result<(), ProposeError> {
        let removed = tokio::time::timeout(LEAVE_TIMEOUT, self.remove_wherever(id));
        removed.await.unwrap_or(Err(ProposeError::NoLeader))
    }

    async fn remove_wherever(&self, id: RaftId) -> Result<(), ProposeError> {
        loop {
            let leader = self.leader();
            match leader {
                Some(leader) if leader == self.raft_id() && leader == id => {
                    if self.shared().progress.is_alone() {
                        let text = "the last server of a cluster cannot leave it".to_owned();
                        return Err(ProposeError::Storage(text));
                    }
                    // Whoever leads next removes this one.
                    self.transfer_leadership(None);
                }
                Some(leader) if leader == self.raft_id() => match self.remove_here(id).await {
                    Err(ProposeError::NoLeader | ProposeError::ChangePending) => {}
                    done => return done,
                },
                Some(leader) => match self.ask_to_remove(leader, id).await {
                    Some(reply) if reply.left => return Ok(()),
                    Some(reply) if !reply.not_leader => return Err(ProposeError::Storage(reply.text)),
                    _ => {}
                },
                None => {}
            }
            // Waiting is cut short by a change of the leader; that none came is no error.
            let _ = tokio::time::timeout(EVERY, self.leader_changed(leader)).await;
        }
    }

    async fn ask_to_remove(&self, leader: RaftId, id: RaftId) -> Option<LeaveReply> {
        let peers = self.peers()?;
        let body = Leave { raft_id: id.0 }.encode_to_vec().into();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let answer = peers.call(leader, kind::LEAVE, body, deadline).await.ok()?;
        LeaveReply::decode(answer).ok()
    }

    /// Removes a member, if this server leads.
    async fn remove_here(&self, id: RaftId) -> Result<(), ProposeError> {
        let roster = self.roster();
        if !self.shared().progress.is_serving() {
            return Err(ProposeError::NoLeader);
        }
        let Some(server) = roster.get(id) else {
            return Ok(());
        };
        self.change_members(vec![MemberChange::Remove(id)], Vec::new())
            .await?;
        let gone = Deregister {
            node: server.name.clone(),
            ..Deregister::default()
        };
        self.propose(Command::Deregister(gone)).await.map(|_| ())
    }

    /// How the group of servers looks after itself.
    pub fn autopilot(&self) -> Arc<Autopilot> {
        match self.roster().autopilot() {
            Some(row) => Arc::new(row.into()),
            None => self.shared().autopilot.load_full(),
        }
    }

    /// How the group of servers is to look after itself until that is set for all of them, by
    /// [`Self::set_autopilot`]: this server's configuration.
    pub fn configure_autopilot(&self, autopilot: Autopilot) {
        self.shared().autopilot.store(Arc::new(autopilot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_up_never_costs_the_quorum() {
        assert!(
            !may_clean_up(3, 1, 0),
            "two of three are left: one more death is the end"
        );
        assert!(may_clean_up(4, 1, 0));
        assert!(may_clean_up(5, 2, 0));
        assert!(!may_clean_up(5, 3, 0));
        assert!(!may_clean_up(5, 1, 5));
        assert!(!may_clean_up(5, 0, 0));
    }
}
