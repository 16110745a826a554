//! A client agent's way to the servers: it attends one of them, proposes what it registers through it, and goes to
//! another when that one is gone. See `agents` for the other side.
//!
//! There is no log and no state here. The published view holds the agent's own node alone, as the catalog had it when the
//! server was asked last, so that the agent can tell what is to be registered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lictor_peer::{
    BulkStream, CallError, ClusterId, Handler, NotSent, Peers, RawStream, Remote, SecurityError,
};
use lictor_proto::v1::{Attend, AttendReply, DoneReply, NodeRow, NodeRows, Register, ServerRow};
use lictor_proto::{Command, LogIndex, RaftId, Term};
use lictor_state::{Dirty, Effects, Outcome, State};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::forward::read_reply;
use super::{address, kind};
use crate::node::LEADER_WAIT;
use crate::{Node, ProposeError};

/// How often the server is told that this agent lives.
const ATTEND_EVERY: Duration = Duration::from_secs(1);
/// How long a server may take to answer that.
const ATTEND_TIMEOUT: Duration = Duration::from_millis(1500);
/// A server that did not answer so many times in a row is left for another.
const MISSES_MAX: u32 = 2;
/// The same for one that answers, but does not reach the leader.
const UNHEARD_MAX: u32 = 3;
/// The pause after all known servers were tried.
const ROUND: Duration = Duration::from_millis(500);
/// A problem is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// The pause before a proposal is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a join or a departure may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// More than the time from when a server answers until that is noted here, so that no event is missed.
const EVENTS_OVERLAP: Duration = Duration::from_secs(3);
/// User events that are told apart: more than one answer has.
const EVENTS_KNOWN_MAX: usize = 512;
/// Addresses to ask that are kept, those of the configuration included.
const CONTACTS_MAX: usize = 256;

/// The servers, as a client agent sees them.
#[derive(Debug)]
pub(crate) struct Upstream {
    peers: Peers,
    /// This agent's node as it is registered.
    me: Mutex<NodeRow>,
    /// Where servers may be, as configured and as asked for by joins.
    contacts: Mutex<Vec<String>>,
    /// The servers that were heard of last.
    servers: Mutex<BTreeMap<u64, ServerRow>>,
    /// The server that is attended.
    current: watch::Sender<Option<RaftId>>,
    /// Another server is to be looked for.
    elsewhere: Notify,
    own: Mutex<Own>,
    events: Mutex<Events>,
    departed: watch::Sender<bool>,
}

/// The agent's node in the catalog.
#[derive(Debug, Default)]
struct Own {
    state: State,
    node_index: u64,
    replaced_at: Option<u64>,
}

/// The user events that were told by one server or another.
#[derive(Debug, Default)]
struct Events {
    /// When a server was asked first.
    began: Option<Instant>,
    /// When a server told last; none before the first.
    told: Option<Instant>,
    /// The last ones, so that each is heard once.
    known: VecDeque<Bytes>,
}

impl Events {
    /// How far back the next answer must reach, in milliseconds. What was before this agent began is not asked for.
    fn window_ms(&mut self, now: Instant) -> u32 {
        let began = *self.began.get_or_insert(now);
        self.told.map_or(0, |told| {
            let window = now.duration_since(told) + EVENTS_OVERLAP;
            let window = window.min(now.duration_since(began));
            u32::try_from(window.as_millis()).unwrap_or(u32::MAX)
        })
    }

    /// What is new of what a server tells.
    fn news(&mut self, told: Vec<Bytes>, now: Instant) -> Vec<Bytes> {
        self.told = Some(now);
        let mut news = Vec::new();
        for event in told {
            if self.known.contains(&event) {
                continue;
            }
            if self.known.len() == EVENTS_KNOWN_MAX {
                self.known.pop_front();
            }
            self.known.push_back(event.clone());
            news.push(event);
        }
        news
    }
}

/// Nobody asks an agent anything.
struct NoServer;

impl Handler for NoServer {
    fn admit(&self, _: &Remote) -> Result<(), String> {
        Err("this agent is no server".to_owned())
    }

    fn raft(&self, _: RaftId, _: Bytes) {}

    fn call(&self, _: &Arc<Remote>, _: u16, _: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(Bytes::new()))
    }

    fn bulk(&self, _: &Arc<Remote>, _: u16, _: Bytes, _: BulkStream) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn connected(&self, _: RaftId) {}

    fn unreachable(&self, _: RaftId) {}
}

impl Node {
    /// Makes this the node of a client agent, which never begins: `me` is registered through whatever server is found at
    /// `contacts` (`host:port`). `peers` makes the transport.
    pub fn attach(
        &self,
        me: NodeRow,
        contacts: Vec<String>,
        peers: impl FnOnce(Arc<dyn Handler>) -> Peers,
    ) -> Peers {
        let peers = peers(Arc::new(NoServer));
        let upstream = Upstream {
            peers: peers.clone(),
            me: Mutex::new(me),
            contacts: Mutex::new(contacts),
            servers: Mutex::default(),
            current: watch::Sender::new(None),
            elsewhere: Notify::new(),
            own: Mutex::default(),
            events: Mutex::default(),
            departed: watch::Sender::new(false),
        };
        let upstream = Arc::new(upstream);
        // A second one is never used.
        let _ = self.shared().upstream.set(Arc::clone(&upstream));
        let node = self.clone();
        tokio::spawn(async move {
            let mut departed = upstream.departed.subscribe();
            tokio::select! {
                () = upstream.attend(&node) => {}
                // Ends with an error only when the node is dropped.
                _ = departed.wait_for(|departed| *departed) => {}
            }
        });
        peers
    }

    /// Whether this is the node of a client agent.
    pub fn is_client(&self) -> bool {
        self.shared().upstream.get().is_some()
    }

    /// The server that this client agent attends; `None` while it knows of none.
    pub fn attended(&self) -> Option<RaftId> {
        *self.shared().upstream.get()?.current.borrow()
    }

    /// The servers that this client agent knows of.
    pub fn known_servers(&self) -> Vec<ServerRow> {
        let Some(upstream) = self.shared().upstream.get() else {
            return Vec::new();
        };
        upstream.servers.lock().values().cloned().collect()
    }

    /// Counts the primary keys that this client agent has had: a tunnel of another era rests on an old one.
    pub fn key_era(&self) -> u64 {
        self.shared()
            .upstream
            .get()
            .map_or(0, |upstream| upstream.peers.key_era())
    }

    /// Resolves when this client agent attends another server than `known`.
    pub async fn attends_another(&self, known: RaftId) {
        let Some(upstream) = self.shared().upstream.get() else {
            return std::future::pending().await;
        };
        let mut current = upstream.current.subscribe();
        // Ends with an error only when the node is dropped.
        let _ = current.wait_for(|current| *current != Some(known)).await;
    }

    /// A way to the HTTP API of the server that this client agent attends, and who it is. Waits for one unless none was
    /// ever known.
    ///
    /// # Errors
    /// No server was found in time.
    pub async fn open_tunnel(&self) -> Result<(RaftId, RawStream), NotSent> {
        let Some(upstream) = self.shared().upstream.get() else {
            return Err(NotSent::UnknownPeer);
        };
        let wait = if upstream.servers.lock().is_empty() {
            Duration::ZERO
        } else {
            LEADER_WAIT
        };
        let mut current = upstream.current.subscribe();
        let found = tokio::time::timeout(wait, current.wait_for(Option::is_some)).await;
        let found = found.ok().and_then(Result::ok).and_then(|server| *server);
        let unknown = || NotSent::Unreachable("No known Consul servers".to_owned());
        let server = found.ok_or_else(unknown)?;
        match upstream.peers.bulk(server, kind::TUNNEL, &[]).await {
            Ok(stream) => Ok((server, stream.into_raw())),
            Err(error) => {
                self.avoid(server);
                Err(error)
            }
        }
    }

    /// This client agent had trouble with a server: it looks for another, if it still attends that one.
    pub fn avoid(&self, server: RaftId) {
        if let Some(upstream) = self.shared().upstream.get()
            && *upstream.current.borrow() == Some(server)
        {
            upstream.elsewhere.notify_one();
        }
    }

    /// Makes sure that there is a server at `contact` (`host:port`), which from now on is asked too, and that one is
    /// attended.
    ///
    /// # Errors
    /// None is there, or none was found in time.
    pub async fn join_at(&self, contact: &str) -> Result<(), String> {
        let Some(upstream) = self.shared().upstream.get() else {
            return Err("this agent is a server".to_owned());
        };
        let deadline = Instant::now() + ATTEND_TIMEOUT;
        let asked = upstream
            .peers
            .call_address(contact, kind::ATTEND, upstream.attendance(), deadline);
        asked.await.map_err(|error| error.to_string())?;
        {
            let mut contacts = upstream.contacts.lock();
            if !contacts.iter().any(|known| known == contact) {
                if contacts.len() >= CONTACTS_MAX {
                    return Err("too many addresses are known already".to_owned());
                }
                contacts.push(contact.to_owned());
            }
        }
        if upstream.current.borrow().is_none() {
            upstream.elsewhere.notify_one();
        }
        let mut current = upstream.current.subscribe();
        let found = tokio::time::timeout(ORDER_TIMEOUT, current.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(_)) => Ok(()),
            _ => Err("no server answers there".to_owned()),
        }
    }

    /// Takes this client agent's node out of the catalog, with all that is registered on it, and registers nothing more.
    /// Nothing to do for one that never met a server.
    ///
    /// # Errors
    /// Why the servers did not do it; in time they find out by themselves that it is gone.
    pub async fn depart(&self) -> Result<(), String> {
        let Some(upstream) = self.shared().upstream.get() else {
            return Ok(());
        };
        let server = *upstream.current.borrow();
        if upstream.departed.send_replace(true) {
            return Ok(());
        }
        let Some(server) = server else { return Ok(()) };
        let body = upstream.me.lock().encode_to_vec().into();
        let deadline = Instant::now() + ORDER_TIMEOUT;
        let answer = upstream.peers.call(server, kind::DEPART, body, deadline).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match DoneReply::decode(answer) {
            Ok(reply) if reply.done => Ok(()),
            Ok(reply) => Err(reply.text),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Upstream {
    /// Finds a server, attends it as long as it is there, and goes to the next.
    async fn attend(&self, node: &Node) {
        let mut told = None;
        // Agents begin at different servers.
        let mut turn = usize::try_from(self.peers.identity().raft_id.0 % 64).unwrap_or_default();
        while !node.shared().progress.is_stopping() {
            let found = self.find(node, turn).await;
            turn = turn.wrapping_add(1);
            match found {
                Ok(server) => {
                    tracing::info!(%server, "attending a server");
                    told = None;
                    self.stay_with(node, server).await;
                    tracing::warn!(%server, "looking for another server");
                    self.current.send_replace(None);
                    self.peers.remove(server);
                }
                Err(why) => {
                    if told.is_none_or(|at: Instant| at.elapsed() > TELL_AGAIN) {
                        tracing::warn!(why, "no server was found; trying on");
                        told = Some(Instant::now());
                    }
                    // Neither outcome matters: all are asked again.
                    let _ = tokio::time::timeout(ROUND, self.elsewhere.notified()).await;
                }
            }
        }
    }

    /// Asks one address after the other; the first that answers for a cluster is it.
    async fn find(&self, node: &Node, turn: usize) -> Result<RaftId, String> {
        let mut addresses: Vec<String> = self.servers.lock().values().map(address).collect();
        for contact in self.contacts.lock().iter() {
            if !addresses.contains(contact) {
                addresses.push(contact.clone());
            }
        }
        let mut why = "no address of a server is known; give one with -retry-join".to_owned();
        let count = addresses.len().max(1);
        addresses.rotate_left(turn % count);
        for at in addresses {
            let deadline = Instant::now() + ATTEND_TIMEOUT;
            let asked = self
                .peers
                .call_address(&at, kind::ATTEND, self.attendance(), deadline);
            match asked.await {
                Ok((remote, body)) => {
                    let reply = AttendReply::decode(body).unwrap_or_default();
                    if let Ok(cluster) = Uuid::parse_str(&reply.cluster_id) {
                        self.peers.set_cluster(ClusterId(cluster));
                        let server = remote.identity.raft_id;
                        self.peers.set_called(server, &at);
                        self.take(node, reply).await;
                        self.current.send_replace(Some(server));
                        return Ok(server);
                    }
                    why = format!("{at}: that server belongs to no cluster yet");
                }
                Err(error) => why = format!("{at}: {error}"),
            }
        }
        Err(why)
    }

    /// Attends a server until it is gone, or another is to be found.
    async fn stay_with(&self, node: &Node, server: RaftId) {
        let (mut misses, mut unheard) = (0, 0);
        while misses < MISSES_MAX && unheard < UNHEARD_MAX {
            let deadline = Instant::now() + ATTEND_TIMEOUT;
            let asked = self.peers.call(server, kind::ATTEND, self.attendance(), deadline);
            let pause = if let Ok(Ok(reply)) = asked.await.map(AttendReply::decode) {
                misses = 0;
                unheard = if reply.heard { 0 } else { unheard + 1 };
                self.take(node, reply).await;
                ATTEND_EVERY
            } else {
                misses += 1;
                RETRY_PAUSE
            };
            let is_alone = self.servers.lock().len() <= 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.elsewhere.notified() => {
                    if !is_alone || misses > 0 {
                        return;
                    }
                }
            }
        }
    }

    fn attendance(&self) -> Bytes {
        let attend = Attend {
            node: Some(self.me.lock().clone()),
            node_index: self.own.lock().node_index,
            keys_digest: self.peers.keys_digest().into(),
            events_within_ms: self.events.lock().window_ms(Instant::now()),
        };
        attend.encode_to_vec().into()
    }

    /// Takes over the cluster keys of the server, which this agent needs to stay connected.
    async fn take_keys(&self, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        let peers = self.peers.clone();
        let changed = tokio::task::spawn_blocking(move || {
            peers.change_keys::<SecurityError>(|known| {
                *known = keys.into_iter().map(Vec::from).collect();
                Ok(())
            })
        });
        match changed.await {
            Ok(Ok(())) => tracing::info!("the cluster keys have changed"),
            Ok(Err(error)) => tracing::warn!(%error, "the cluster keys have changed, but not here"),
            // The process ends.
            Err(_) => {}
        }
    }

    /// Takes in what a server says.
    async fn take(&self, node: &Node, mut reply: AttendReply) {
        self.take_keys(std::mem::take(&mut reply.keys)).await;
        let told = std::mem::take(&mut reply.events);
        for event in self.events.lock().news(told, Instant::now()) {
            // Nobody may listen.
            let _ = node.shared().heard.send(event);
        }
        if !reply.servers.is_empty() {
            let servers = reply.servers.into_iter();
            *self.servers.lock() = servers.map(|server| (server.raft_id, server)).collect();
        }
        let mut own = self.own.lock();
        let applied = LogIndex(reply.applied);
        let was_replaced = own
            .replaced_at
            .replace(reply.replaced_at)
            .is_some_and(|before| before < reply.replaced_at);
        // A server that lags must not hide what was registered since.
        if let Some(rows) = reply.rows
            && (applied >= own.state.applied().0 || was_replaced)
        {
            own.state = state_of(rows, applied);
            own.node_index = reply.node_index;
            node.shared().view.store(Arc::new(own.state.clone()));
        }
        drop(own);
        if was_replaced {
            // Nothing of this agent may be in the catalog now.
            node.watches().wake(&[Dirty::All]);
        }
    }

    /// Proposes a command through the attended server, and waits until it is committed and applied there.
    ///
    /// # Errors
    /// As for [`Node::propose`].
    pub(crate) async fn propose(&self, node: &Node, command: &Command) -> Result<Outcome, ProposeError> {
        let entry = Bytes::from(command.clone().to_entry_bytes());
        if !Command::fits(entry.len()) {
            return Err(ProposeError::TooLarge(entry.len()));
        }
        let deadline = Instant::now() + LEADER_WAIT;
        let mut current = self.current.subscribe();
        loop {
            if *self.departed.borrow() {
                return Err(ProposeError::Stopping);
            }
            let server = *current.borrow_and_update();
            if let Some(server) = server {
                let call = self
                    .peers
                    .call(server, kind::PROPOSE_FOR, entry.clone(), deadline);
                match call.await {
                    Ok(body) => match read_reply(body) {
                        Err(ProposeError::NoLeader) => {}
                        Ok((applied, outcome)) => {
                            self.note(node, applied.index, command);
                            return Ok(outcome);
                        }
                        Err(error) => return Err(error),
                    },
                    Err(CallError::NotSent(_)) => {}
                    Err(CallError::OutcomeUnknown(_)) => return Err(ProposeError::OutcomeUnknown),
                }
            }
            if Instant::now() >= deadline {
                return Err(ProposeError::NoLeader);
            }
            let pause = if server.is_some() {
                RETRY_PAUSE
            } else {
                LEADER_WAIT
            };
            let left = deadline.saturating_duration_since(Instant::now());
            // It is looked at anew in any case.
            let _ = tokio::time::timeout(pause.min(left), current.changed()).await;
        }
    }

    /// What was registered shows in the view at once, not only when the server is asked next.
    fn note(&self, node: &Node, applied: LogIndex, command: &Command) {
        let mut own = self.own.lock();
        let at = applied.max(own.state.applied().0);
        own.state.apply(at, Term(0), command, &mut Effects::default());
        node.shared().view.store(Arc::new(own.state.clone()));
    }
}

/// A state with one node and all on it.
fn state_of(rows: NodeRows, applied: LogIndex) -> State {
    let mut state = State::default();
    state.apply_empty(applied, Term(0));
    let Some(node) = rows.node else { return state };
    let mut register = |service, checks| {
        let register = Register {
            node: Some(node.clone()),
            service,
            checks,
            skip_node_update: false,
        };
        state.apply(
            applied,
            Term(0),
            &Command::Register(register),
            &mut Effects::default(),
        );
    };
    for service in rows.services {
        register(Some(service), Vec::new());
    }
    // Last: a check is refused without its service.
    register(None, rows.checks);
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_heard_once_whoever_tells_it_and_few_are_remembered() {
        let event = |number: usize| Bytes::from(number.to_string());
        let mut events = Events::default();
        let began = Instant::now();
        let later = |secs| began + Duration::from_secs(secs);
        assert_eq!(events.window_ms(began), 0);

        let news = events.news(vec![event(1), event(2)], began);
        assert_eq!(news, [event(1), event(2)]);
        assert_eq!(events.news(vec![event(2), event(3)], later(1)), [event(3)]);
        assert_eq!(
            events.window_ms(later(2)),
            2000,
            "what was before it began is not asked for"
        );
        for number in 0..2 * EVENTS_KNOWN_MAX {
            events.news(vec![event(number)], later(20));
        }
        assert_eq!(events.window_ms(later(21)), 4000);

        assert_eq!(events.known.len(), EVENTS_KNOWN_MAX);
    }
}
