//! Client agents as servers see them: hosts that run no server, and register their services through one.
//!
//! An agent tells the server of its choice every second that it lives ([`kind::ATTEND`]); that server tells the leader,
//! which alone judges. An agent that the leader has not heard of for [`DEAD_AFTER`] gets a critical `serfHealth`, which
//! ends the sessions of its node; a new leader gives everybody as long before it judges. What is known of an agent beyond
//! its life is its node's row in the catalog.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::RawStream;
use lictor_proto::v1::{Attend, AttendReply, Deregister, DoneReply, NodeRow, NodeRows};
use lictor_proto::{Command, RaftId};
use lictor_state::{State, fold_name};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::keeper::{HEALTH_CHECK, health_change};
use super::keyring::AgentKeys;
use super::{Forming, Roster, kind};
use crate::{Node, ProposeError};

/// An agent is taken for dead after so long a silence. Longer than for servers: an agent whose server is gone needs some
/// seconds to find another, and its sessions are not to end for that.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// An agent that was heard of within this time is alive.
const ALIVE_WITHIN: Duration = Duration::from_secs(3);
/// The node of an agent that is gone for so long is removed (Consul: `reconnect_timeout`).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(72 * 60 * 60);
/// How long the leader may take to hear of an agent.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Agents that the leader keeps apart; further ones are not heard of.
const AGENTS_MAX: usize = 16 * 1024;
/// Agents that left which are remembered, to be shown among the members.
const LEFT_MAX: usize = 256;
/// Broadcasts that are remembered for agents, as many as agents remember events.
const EVENTS_MAX: usize = 256;
/// Tunnels that may wait to be served.
const TUNNELS_WAITING_MAX: usize = 64;

/// What a server knows of client agents, beside the catalog.
#[derive(Debug)]
pub(crate) struct Agents {
    /// While this server leads: when it heard of each agent last, by lower-case name.
    heard: Mutex<BTreeMap<Bytes, Instant>>,
    /// Those that left in order, oldest first.
    left: Mutex<VecDeque<NodeRow>>,
    /// The cluster keys of those that attend this server.
    pub(super) keys: AgentKeys,
    /// What servers have broadcast of late, for agents to hear it too, oldest first.
    events: Mutex<VecDeque<(Instant, Bytes)>>,
    tunnels: mpsc::Sender<Tunnel>,
    /// Taken by whoever serves them.
    to_serve: Mutex<Option<mpsc::Receiver<Tunnel>>>,
}

/// A connection of a client agent on which it asks the HTTP API.
#[derive(Debug)]
pub struct Tunnel {
    /// The name of the agent's node.
    pub agent: Arc<str>,
    /// HTTP/2, the agent being the client.
    pub stream: RawStream,
    /// Held while the stream is served, so that it counts against the agent's streams.
    pub open: oneshot::Sender<()>,
}

impl Default for Agents {
    fn default() -> Self {
        let (tunnels, to_serve) = mpsc::channel(TUNNELS_WAITING_MAX);
        Self {
            heard: Mutex::default(),
            left: Mutex::default(),
            keys: AgentKeys::default(),
            events: Mutex::default(),
            tunnels,
            to_serve: Mutex::new(Some(to_serve)),
        }
    }
}

impl Agents {
    /// Forgets who was heard of: this server does not lead.
    pub(super) fn clear(&self) {
        self.heard.lock().clear();
    }

    fn hear(&self, name: &str) -> bool {
        let (name, mut heard) = (fold_name(name), self.heard.lock());
        let has_room = heard.len() < AGENTS_MAX || heard.contains_key(&name);
        if has_room {
            heard.insert(name, Instant::now());
        }
        has_room
    }

    /// Something was broadcast, here or by another server.
    pub(crate) fn note_event(&self, event: Bytes) {
        let mut events = self.events.lock();
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back((Instant::now(), event));
    }

    fn events_within(&self, age_ms: u32) -> Vec<Bytes> {
        let age = Duration::from_millis(age_ms.into());
        let events = self.events.lock();
        let events = events.iter().filter(|(at, _)| at.elapsed() < age);
        events.map(|(_, event)| event.clone()).collect()
    }

    fn note_left(&self, node: NodeRow) {
        let mut left = self.left.lock();
        left.retain(|other| !other.node.eq_ignore_ascii_case(&node.node));
        if left.len() == LEFT_MAX {
            left.pop_front();
        }
        left.push_back(node);
    }

    /// Hands a tunnel to whoever serves the HTTP API, and waits until it is closed.
    pub(super) async fn tunnel(&self, agent: &str, stream: RawStream) {
        let (open, closed) = oneshot::channel::<()>();
        let tunnel = Tunnel {
            agent: agent.into(),
            stream,
            open,
        };
        if self.tunnels.try_send(tunnel).is_ok() {
            // Ends with an error, when the other half is dropped.
            let _ = closed.await;
        }
    }
}

impl Node {
    /// The tunnels that client agents open. `None` after the first call.
    pub fn tunnels(&self) -> Option<mpsc::Receiver<Tunnel>> {
        self.shared().agents.to_serve.lock().take()
    }

    /// The client agents that left in order, as they were registered; those that came back are not among them.
    pub fn left_agents(&self) -> Vec<NodeRow> {
        let view = self.view();
        let left = self.shared().agents.left.lock();
        left.iter()
            .filter(|node| view.node(&node.node).is_none())
            .cloned()
            .collect()
    }

    /// Removes the node of a client agent from the catalog, and remembers that it left.
    ///
    /// # Errors
    /// As for [`Node::propose`].
    pub async fn remove_agent(&self, node: NodeRow) -> Result<(), ProposeError> {
        let gone = Deregister {
            node: node.node.clone(),
            ..Deregister::default()
        };
        self.propose(Command::Deregister(gone)).await?;
        let body = node.encode_to_vec().into();
        self.shared().agents.note_left(node);
        self.tell_all(kind::LEFT, &body);
        Ok(())
    }

    /// Answers [`kind::LEFT`].
    pub(super) fn take_left(&self, body: Bytes) {
        if let Ok(node) = NodeRow::decode(body) {
            self.shared().agents.note_left(node);
        }
    }

    /// Answers [`kind::DEPART`].
    pub(super) async fn take_departure(&self, body: Bytes) -> Bytes {
        let done = match NodeRow::decode(body) {
            Ok(node) => self.remove_agent(node).await.map_err(|error| error.to_string()),
            Err(_) => Err("the request cannot be read".to_owned()),
        };
        done_reply(done)
    }

    /// Answers [`kind::HEARD`].
    pub(super) fn take_sign_of_life(&self, name: &[u8]) -> Bytes {
        let name = String::from_utf8_lossy(name);
        let leads = self.shared().progress.is_serving();
        let heard = leads && self.shared().agents.hear(&name);
        done_reply(heard.then_some(()).ok_or_else(String::new))
    }

    /// Answers [`kind::ATTEND`].
    pub(super) async fn take_attendance(&self, forming: &Forming, body: Bytes) -> Bytes {
        let Some(formed) = forming.formed() else {
            return AttendReply::default().encode_to_vec().into();
        };
        let Ok(Attend {
            node: Some(agent),
            node_index,
            keys_digest,
            events_within_ms,
        }) = Attend::decode(body)
        else {
            return Bytes::new();
        };
        let heard = self.tell_leader_of(&agent.node).await;
        let keys = self.keys_for(&agent.node, keys_digest);
        // After the wait: what is told is to be of now.
        let view = self.view();
        let index = view.node_index(&agent.node).0;
        let reply = AttendReply {
            cluster_id: formed.cluster_id().to_owned(),
            servers: self.roster().servers().cloned().collect(),
            heard,
            applied: view.applied().0.0,
            replaced_at: view.replaced_at().0,
            node_index: index,
            rows: (index != node_index).then(|| rows(&view, &agent.node)),
            keys,
            events: self.shared().agents.events_within(events_within_ms),
        };
        reply.encode_to_vec().into()
    }

    /// The cluster keys, unless an agent has them, whose keys' digest this is.
    fn keys_for(&self, agent: &str, digest: Bytes) -> Vec<Bytes> {
        let Some((keys, ours)) = self
            .peers()
            .and_then(|peers| Some((peers.keys()?, peers.keys_digest())))
        else {
            return Vec::new();
        };
        let has_them = digest == ours;
        self.shared().agents.keys.note(agent, digest);
        if has_them {
            return Vec::new();
        }
        keys.into_iter().map(Bytes::from).collect()
    }

    /// Tells the leader that an agent lives; whether it heard.
    async fn tell_leader_of(&self, agent: &str) -> bool {
        if self.shared().progress.is_serving() {
            return self.shared().agents.hear(agent);
        }
        let (Some(leader), Some(peers)) = (self.leader(), self.peers()) else {
            return false;
        };
        let deadline = Instant::now() + TELL_TIMEOUT;
        let name = Bytes::copy_from_slice(agent.as_bytes());
        let answer = peers.call(leader, kind::HEARD, name, deadline).await;
        answer.is_ok_and(|body| DoneReply::decode(body).is_ok_and(|reply| reply.done))
    }
}

fn done_reply(done: Result<(), String>) -> Bytes {
    let reply = DoneReply {
        done: done.is_ok(),
        text: done.err().unwrap_or_default(),
    };
    reply.encode_to_vec().into()
}

fn rows(state: &State, node: &str) -> NodeRows {
    NodeRows {
        node: state.node(node).map(|row| (**row).clone()),
        services: state.services_of_node(node).map(|row| (**row).clone()).collect(),
        checks: state.checks_of_node(node).map(|row| (**row).clone()).collect(),
    }
}

/// The client agents in the catalog.
fn all<'a>(state: &'a State, roster: &Roster) -> impl Iterator<Item = &'a Arc<NodeRow>> {
    let is_server = |node: &NodeRow| {
        let mut servers = roster.servers();
        servers.any(|server| server.name.eq_ignore_ascii_case(&node.node))
    };
    state
        .nodes()
        .filter(move |node| node.client.is_some() && !is_server(node))
}

/// What must be written of the agents' health, by a leader that leads since `leads_since`.
pub(super) fn health_changes(
    node: &Node,
    roster: &Roster,
    leads_since: Instant,
    now: Instant,
) -> Vec<Command> {
    let state = node.view();
    let heard = node.shared().agents.heard.lock();
    let changes = all(&state, roster).filter_map(|agent| {
        let last = heard.get(&fold_name(&agent.node));
        let silence = now.duration_since(*last.unwrap_or(&leads_since));
        // Who did not listen, because it stood still, did not hear silence.
        let listened = now.duration_since(leads_since);
        verdict(&state, agent, silence.min(listened), last.is_some())
    });
    changes.collect()
}

fn verdict(state: &State, agent: &NodeRow, silence: Duration, was_heard: bool) -> Option<Command> {
    if silence > FORGOTTEN_AFTER {
        let gone = Deregister {
            node: agent.node.clone(),
            ..Deregister::default()
        };
        return Some(Command::Deregister(gone));
    }
    state.check(&agent.node, HEALTH_CHECK)?;
    let (dead, alive) = (silence > DEAD_AFTER, was_heard && silence < ALIVE_WITHIN);
    health_change(state, &agent.node, dead, alive).map(Command::Register)
}

impl Node {
    /// The client agents of the catalog that are no servers.
    pub fn client_agents(&self) -> Vec<Arc<NodeRow>> {
        all(&self.view(), &self.roster()).cloned().collect()
    }

    /// Tells all other servers something that needs no answer.
    pub(crate) fn tell_all(&self, kind: u16, body: &Bytes) {
        let Some(net) = self.shared().net.get() else {
            return;
        };
        let deadline = Instant::now() + crate::node::LEADER_WAIT;
        let (me, roster) = (self.raft_id(), self.roster());
        for server in roster.servers().filter(|server| server.raft_id != me.0) {
            let (peers, body, to) = (net.peers.clone(), body.clone(), RaftId(server.raft_id));
            net.runtime.spawn(async move {
                if let Err(error) = peers.call(to, kind, body, deadline).await {
                    tracing::debug!(%to, %error, "a server did not hear a broadcast");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{CheckRow, ClientAgent, Register};
    use lictor_proto::{LogIndex, Term};
    use lictor_state::Effects;

    use super::*;

    fn agent(status: &str) -> (State, NodeRow) {
        let node = NodeRow {
            node: "web-1".to_owned(),
            client: Some(ClientAgent::default()),
            ..NodeRow::default()
        };
        let check = CheckRow {
            node: node.node.clone(),
            check_id: HEALTH_CHECK.to_owned(),
            status: status.to_owned(),
            ..CheckRow::default()
        };
        let register = Register {
            node: Some(node.clone()),
            checks: vec![check],
            ..Register::default()
        };
        let mut state = State::default();
        state.apply(
            LogIndex(1),
            Term(1),
            &Command::Register(register),
            &mut Effects::default(),
        );
        (state, node)
    }

    fn status_after(before: &str, silence_secs: u64, was_heard: bool) -> Option<String> {
        let (state, node) = agent(before);
        match verdict(&state, &node, Duration::from_secs(silence_secs), was_heard)? {
            Command::Register(register) => Some(register.checks[0].status.clone()),
            _ => Some("removed".to_owned()),
        }
    }

    #[test]
    fn an_agent_is_dead_after_its_silence_and_alive_when_it_was_heard() {
        assert_eq!(status_after("passing", 9, true), None);
        assert_eq!(status_after("passing", 11, true).as_deref(), Some("critical"));
        assert_eq!(status_after("passing", 11, false).as_deref(), Some("critical"));
        assert_eq!(status_after("critical", 1, true).as_deref(), Some("passing"));
        assert_eq!(status_after("critical", 1, false), None, "only the leader is new");
        assert_eq!(status_after("critical", 11, true), None);
        assert_eq!(
            status_after("critical", 72 * 3600 + 1, false).as_deref(),
            Some("removed")
        );
    }

    #[test]
    fn few_of_those_who_left_are_remembered_each_once() {
        let agents = Agents::default();
        let named = |name: String| NodeRow {
            node: name,
            ..NodeRow::default()
        };

        for at in 0..LEFT_MAX + 10 {
            agents.note_left(named(format!("n{at}")));
        }
        agents.note_left(named("N20".to_owned()));

        let left = agents.left.lock();
        assert_eq!(left.len(), LEFT_MAX);
        assert_eq!(left[0].node, "n10");
        assert_eq!(left[LEFT_MAX - 1].node, "N20");
    }
}
