//! How a cluster begins (rule R17), and how a server finds its way into one.
//!
//! ```text
//! fresh ──hello to all known addresses──┬─ enough fresh servers, and this one is the first of them: coordinator
//!                                       │     vow(n servers) kept ──promise?──> the others keep it
//!                                       │     all n have promised: formed ──> begin as one of n voters
//!                                       ├─ bound by a vow, and its cluster exists ──> formed ──> begin
//!                                       └─ a cluster exists already ──join──> its leader adds a learner ──> begin
//! ```
//! # Why two clusters cannot come out of it
//! A cluster begins only when all its founders are bound by the same vow, and a server is bound by one vow at a time,
//! durably. Only the coordinator of a vow declares it formed, so it may give its vow up before that: each attempt has an
//! id of its own, and one that was given up is never taken up again. A founder is released when its coordinator, asked
//! directly, is bound by something else. Of two coordinators that are in each other's way the one with the higher id
//! gives up.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::{CallError, NotSent, Peers};
use lictor_proto::v1::{
    Hello, HelloReply, Join, JoinReply, Promise, PromiseReply, ServerRow, Vow, join_reply,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;

use super::{address, kind};

/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two rounds, as long as there is something to find out.
const ROUND: Duration = Duration::from_millis(200);
/// A problem is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Servers that are remembered while a cluster is formed.
const KNOWN_MAX: usize = 256;

/// Where a vow is kept.
pub trait VowStore: Send + Sync + 'static {
    /// What was kept last.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(&self) -> io::Result<Option<Vow>>;

    /// Keeps a vow, or none; durable when it returns.
    ///
    /// # Errors
    /// It is not kept.
    fn save(&self, vow: Option<&Vow>) -> io::Result<()>;
}

/// What this server is bound by, and what it has learned of others before there is a cluster.
pub struct Forming {
    me: ServerRow,
    expect: u32,
    store: Box<dyn VowStore>,
    state: Mutex<State>,
    /// Told when another server has said hello: it is there, and need not be waited for.
    greeted: Notify,
}

/// How often servers are looked for that do not answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinPace {
    /// The pause between two attempts that nobody answered; a short one if absent.
    pub pause: Option<Duration>,
    /// After so many attempts in a row that nobody answered it is given up.
    pub attempts_max: Option<u32>,
}

/// Why a server did not become a member.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// What must be durable could not be kept.
    #[error("cannot write CLUSTER in the data directory: {0}")]
    Io(#[from] io::Error),
    /// See [`JoinPace::attempts_max`].
    #[error("no other server answered in {0} attempts to join (retry_max)")]
    Silence(u32),
}

#[derive(Debug, Default)]
struct State {
    vow: Option<Vow>,
    /// Servers that were met, by raft id.
    known: BTreeMap<u64, Met>,
}

/// A server as it was when it said so.
#[derive(Debug)]
struct Met {
    server: ServerRow,
    /// When that was; `None`, long ago.
    heard: Option<Instant>,
}

impl fmt::Debug for Forming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forming")
            .field("me", &self.me)
            .field("expect", &self.expect)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// How a server became a member.
#[derive(Debug, Clone)]
pub enum Formed {
    /// As a founder: all of them vote, and this one begins with the others.
    Founder {
        /// The cluster's uuid as text.
        cluster_id: String,
        /// All founders.
        servers: Vec<ServerRow>,
    },
    /// By joining: the leader sends the state.
    Joined {
        /// The cluster's uuid as text.
        cluster_id: String,
        /// The servers it knew of when it joined.
        servers: Vec<ServerRow>,
    },
}

impl Formed {
    fn of(vow: &Vow) -> Option<Self> {
        let (cluster_id, servers) = (vow.cluster_id.clone(), vow.servers.clone());
        Some(match vow.coordinator {
            _ if !vow.formed => return None,
            0 => Self::Joined { cluster_id, servers },
            _ => Self::Founder { cluster_id, servers },
        })
    }

    /// The cluster's uuid as text.
    pub fn cluster_id(&self) -> &str {
        match self {
            Self::Founder { cluster_id, .. } | Self::Joined { cluster_id, .. } => cluster_id,
        }
    }
}

impl Forming {
    /// Takes up what was kept. `expect` servers are to form the cluster; 0: this one only joins.
    ///
    /// # Errors
    /// What was kept cannot be read.
    pub fn new(me: ServerRow, expect: u32, store: impl VowStore) -> io::Result<Self> {
        let vow = store.load()?;
        let state = Mutex::new(State {
            vow,
            known: BTreeMap::new(),
        });
        Ok(Self {
            me,
            expect,
            store: Box::new(store),
            state,
            greeted: Notify::new(),
        })
    }

    /// How this server became a member, if it has.
    pub fn formed(&self) -> Option<Formed> {
        self.state.lock().vow.as_ref().and_then(Formed::of)
    }

    /// Notes that this server belongs to a cluster of which it learned in another way: its state says so.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn note_alone(&self, cluster_id: &str) -> io::Result<()> {
        let vow = Vow {
            cluster_id: cluster_id.to_owned(),
            coordinator: self.me.raft_id,
            servers: vec![self.me.clone()],
            formed: true,
        };
        self.keep(&mut self.state.lock(), Some(vow))
    }

    fn keep(&self, state: &mut State, vow: Option<Vow>) -> io::Result<()> {
        self.store.save(vow.as_ref())?;
        state.vow = vow;
        Ok(())
    }

    /// Answers another server's hello.
    pub(super) fn hello(&self, hello: Hello) -> HelloReply {
        let mut state = self.state.lock();
        if let Some(server) = hello.server {
            self.meet(&mut state, server);
            self.greeted.notify_one();
        }
        let age_ms = |met: &Met| {
            let age = met.heard.map(|heard| heard.elapsed().as_millis());
            age.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(u64::MAX)
        };
        HelloReply {
            server: Some(self.me.clone()),
            expect: self.expect,
            vow: state.vow.clone(),
            known: state.known.values().map(|met| met.server.clone()).collect(),
            known_age_ms: state.known.values().map(age_ms).collect(),
        }
    }

    /// A server has said where it is.
    fn meet(&self, state: &mut State, server: ServerRow) {
        let heard = Some(Instant::now());
        self.keep_met(state, Met { server, heard });
    }

    fn keep_met(&self, state: &mut State, met: Met) {
        let id = met.server.raft_id;
        let has_room = state.known.len() < KNOWN_MAX || state.known.contains_key(&id);
        if id != self.me.raft_id && has_room {
            state.known.insert(id, met);
        }
    }

    /// Takes in what another server answered to a hello of that time. What it tells of others counts if it is newer than
    /// what is known: for those who have not heard of it, one that moved is still where it was.
    fn take_in(&self, state: &mut State, reply: &HelloReply, asked: Instant) {
        if let Some(server) = &reply.server {
            self.meet(state, server.clone());
        }
        let mut ages = reply.known_age_ms.iter().copied();
        for server in &reply.known {
            let age = ages.next().map(Duration::from_millis);
            let heard = age.and_then(|age| asked.checked_sub(age));
            let known = state.known.get(&server.raft_id);
            if known.is_none_or(|known| known.server != *server && known.heard < heard) {
                let server = server.clone();
                self.keep_met(state, Met { server, heard });
            }
        }
    }

    /// Answers a coordinator.
    pub(super) fn promise(&self, promise: Promise) -> PromiseReply {
        let mut state = self.state.lock();
        let wanted = promise.vow.unwrap_or_default();
        let names_me = wanted
            .servers
            .iter()
            .any(|server| server.raft_id == self.me.raft_id);
        let fits = wanted.servers.len() == self.expect as usize && names_me && !wanted.formed;
        if state.vow.is_none()
            && fits
            && let Err(error) = self.keep(&mut state, Some(wanted.clone()))
        {
            tracing::error!(%error, "a promise could not be kept in the data directory");
        }
        PromiseReply {
            promised: state
                .vow
                .as_ref()
                .is_some_and(|vow| vow.cluster_id == wanted.cluster_id),
            vow: state.vow.clone(),
        }
    }

    /// Works until this server is a member. `contacts` are addresses (`host:port`) to begin with.
    ///
    /// # Errors
    /// See [`FormError`].
    pub async fn form(
        &self,
        peers: &Peers,
        contacts: &[String],
        pace: JoinPace,
    ) -> Result<Formed, FormError> {
        let mut complaints = Complaints::default();
        let mut in_vain = 0;
        loop {
            if let Some(formed) = self.formed() {
                return Ok(formed);
            }
            let met = self.meet_all(peers, contacts, &mut complaints).await;
            self.settle(peers, &met, &mut complaints).await?;
            if self.formed().is_some() {
                continue;
            }
            in_vain = if met.is_empty() && !contacts.is_empty() {
                in_vain + 1
            } else {
                0
            };
            if pace.attempts_max.is_some_and(|max| in_vain >= max) {
                return Err(FormError::Silence(in_vain));
            }
            let pause = pace.pause.filter(|_| met.is_empty()).unwrap_or(ROUND);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.greeted.notified(), if pause > ROUND => {}
            }
        }
    }

    /// Tells servers at these addresses where this one is, and learns the same of them.
    pub async fn announce(&self, peers: &Peers, contacts: &[String]) {
        let mut unheard = Complaints {
            is_unheard: true,
            ..Complaints::default()
        };
        self.meet_all(peers, contacts, &mut unheard).await;
    }

    /// Says hello to everybody there is.
    async fn meet_all(
        &self,
        peers: &Peers,
        contacts: &[String],
        complaints: &mut Complaints,
    ) -> Vec<HelloReply> {
        let mut addresses = contacts.to_vec();
        {
            let state = self.state.lock();
            let vowed = state.vow.iter().flat_map(|vow| &vow.servers);
            let others = state.known.values().map(|met| &met.server).chain(vowed);
            addresses.extend(
                others
                    .filter(|server| server.raft_id != self.me.raft_id)
                    .map(address),
            );
        }
        addresses.sort_unstable();
        addresses.dedup();
        let hello = Hello {
            server: Some(self.me.clone()),
            expect: self.expect,
        };
        let from = Instant::now();
        let asked = addresses
            .iter()
            .map(|to| ask::<HelloReply>(peers, to, kind::HELLO, &hello));
        let mut met: BTreeMap<u64, HelloReply> = BTreeMap::new();
        for (address, answer) in addresses.iter().zip(futures_util::future::join_all(asked).await) {
            match answer {
                Ok(reply) => {
                    self.take_in(&mut self.state.lock(), &reply, from);
                    if let Some(id) = reply.server.as_ref().map(|server| server.raft_id) {
                        met.insert(id, reply);
                    }
                }
                Err(CallError::NotSent(NotSent::Itself)) => {}
                Err(error) => complaints.tell(&format!("{address}: {error}")),
            }
        }
        met.into_values().collect()
    }

    /// Draws conclusions from one round.
    async fn settle(&self, peers: &Peers, met: &[HelloReply], complaints: &mut Complaints) -> io::Result<()> {
        let vow = self.state.lock().vow.clone();
        match vow {
            Some(vow) if Self::exists(&vow, met) => {
                self.keep(&mut self.state.lock(), Some(Vow { formed: true, ..vow }))
            }
            Some(vow) if vow.coordinator == self.me.raft_id => self.gather(peers, vow, met).await,
            Some(vow) => self.look_after(&vow, met, complaints),
            None => {
                if let Some(member) = met
                    .iter()
                    .find(|reply| reply.vow.as_ref().is_some_and(|vow| vow.formed))
                {
                    return self.join(peers, member, complaints).await;
                }
                self.found(met)
            }
        }
    }

    fn exists(vow: &Vow, met: &[HelloReply]) -> bool {
        let is_it = |other: &Vow| other.formed && other.cluster_id == vow.cluster_id;
        met.iter().any(|reply| reply.vow.as_ref().is_some_and(is_it))
    }

    /// Becomes the coordinator, if enough fresh servers are there and this is the first of them.
    fn found(&self, met: &[HelloReply]) -> io::Result<()> {
        let fresh = met
            .iter()
            .filter(|reply| reply.expect == self.expect && reply.vow.is_none())
            .filter_map(|reply| reply.server.clone());
        let mut servers: Vec<ServerRow> = fresh.chain([self.me.clone()]).collect();
        servers.sort_unstable_by_key(|server| server.raft_id);
        let enough = self.expect > 0 && servers.len() >= self.expect as usize;
        if !enough || servers[0].raft_id != self.me.raft_id {
            return Ok(());
        }
        servers.truncate(self.expect as usize);
        let vow = Vow {
            cluster_id: uuid::Uuid::new_v4().to_string(),
            coordinator: self.me.raft_id,
            servers,
            formed: false,
        };
        tracing::info!(servers = ?names(&vow.servers), "asking servers to form a cluster");
        let mut state = self.state.lock();
        // Another coordinator may have asked meanwhile.
        if state.vow.is_none() {
            self.keep(&mut state, Some(vow))?;
        }
        Ok(())
    }

    /// The coordinator asks the founders for their promises.
    async fn gather(&self, peers: &Peers, vow: Vow, met: &[HelloReply]) -> io::Result<()> {
        if met
            .iter()
            .any(|reply| reply.vow.as_ref().is_some_and(|other| other.formed))
        {
            tracing::info!("a cluster exists already: giving up the attempt to form one");
            return self.keep(&mut self.state.lock(), None);
        }
        let promise = Promise {
            vow: Some(vow.clone()),
        };
        let others = vow
            .servers
            .iter()
            .filter(|server| server.raft_id != self.me.raft_id);
        let asked = others.map(|server| {
            let promise = &promise;
            async move { ask::<PromiseReply>(peers, &address(server), kind::PROMISE, promise).await }
        });
        let mut all = true;
        for answer in futures_util::future::join_all(asked).await {
            let Ok(reply) = answer else {
                all = false;
                continue;
            };
            all &= reply.promised;
            let other = reply.vow.filter(|other| other.cluster_id != vow.cluster_id);
            // Somebody who is bound to a coordinator that is not to yield, or belongs to a cluster.
            if other.is_some_and(|other| other.formed || other.coordinator < self.me.raft_id) {
                tracing::info!("another server forms a cluster: giving up the attempt");
                return self.keep(&mut self.state.lock(), None);
            }
        }
        if all {
            tracing::info!(servers = ?names(&vow.servers), "the cluster is formed");
            return self.keep(&mut self.state.lock(), Some(Vow { formed: true, ..vow }));
        }
        Ok(())
    }

    /// A founder that has promised waits for its coordinator, and is released if that has given up.
    fn look_after(&self, vow: &Vow, met: &[HelloReply], complaints: &mut Complaints) -> io::Result<()> {
        let is_coordinator = |reply: &&HelloReply| {
            reply
                .server
                .as_ref()
                .is_some_and(|server| server.raft_id == vow.coordinator)
        };
        let Some(reply) = met.iter().find(is_coordinator) else {
            complaints.tell(&format!(
                "this server has promised to form a cluster with {:?} and waits for one of them; if that will never \
                 come back, stop this server and empty its data directory, which holds no data yet",
                names(&vow.servers)
            ));
            return Ok(());
        };
        let is_it = |other: &Vow| other.cluster_id == vow.cluster_id;
        if reply.vow.as_ref().is_some_and(is_it) {
            return Ok(());
        }
        tracing::info!("the coordinator has given up: released from the promise");
        self.keep(&mut self.state.lock(), None)
    }

    /// Asks a cluster to take this server in.
    async fn join(&self, peers: &Peers, member: &HelloReply, complaints: &mut Complaints) -> io::Result<()> {
        let Some(mut to) = member.server.as_ref().map(address) else {
            return Ok(());
        };
        let join = Join {
            server: Some(self.me.clone()),
        };
        // The member that was met, and the leader it names.
        for _ in 0..2 {
            let reply = match ask::<JoinReply>(peers, &to, kind::JOIN, &join).await {
                Ok(reply) => reply,
                Err(error) => {
                    complaints.tell(&format!("{to}: {error}"));
                    return Ok(());
                }
            };
            match reply.outcome() {
                join_reply::Outcome::Joined => {
                    tracing::info!(servers = ?names(&reply.servers), "joined the cluster");
                    let vow = Vow {
                        cluster_id: reply.cluster_id,
                        coordinator: 0,
                        servers: reply.servers,
                        formed: true,
                    };
                    let mut state = self.state.lock();
                    return if state.vow.is_none() {
                        self.keep(&mut state, Some(vow))
                    } else {
                        Ok(())
                    };
                }
                join_reply::Outcome::NotLeader => match reply.leader {
                    Some(leader) => to = address(&leader),
                    None => return Ok(()),
                },
                join_reply::Outcome::Refused
                | join_reply::Outcome::Later
                | join_reply::Outcome::Unspecified => {
                    complaints.tell(&format!("{to} does not let this server join: {}", reply.text));
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Asks whatever server is at an address (`host:port`).
pub(super) async fn ask<R: Message + Default>(
    peers: &Peers,
    to: &str,
    kind: u16,
    question: &impl Message,
) -> Result<R, CallError> {
    let body = Bytes::from(question.encode_to_vec());
    let deadline = Instant::now() + ASK_TIMEOUT;
    let (_, answer) = peers.call_address(to, kind, body, deadline).await?;
    let unreadable = |_| NotSent::Unreachable("it gave an answer that this release does not know".to_owned());
    Ok(R::decode(answer).map_err(unreadable)?)
}

fn names(servers: &[ServerRow]) -> Vec<&str> {
    servers.iter().map(|server| server.name.as_str()).collect()
}

/// Tells each problem once, and again after a while.
#[derive(Default)]
struct Complaints {
    told: BTreeMap<String, Instant>,
    /// They keep nobody out of a cluster, and are of interest for a closer look only.
    is_unheard: bool,
}

impl Complaints {
    fn tell(&mut self, problem: &str) {
        if self.is_unheard {
            tracing::debug!("looking for the leader: {problem}");
            return;
        }
        let now = Instant::now();
        self.told.retain(|_, told| now.duration_since(*told) < TELL_AGAIN);
        if !self.told.contains_key(problem) {
            tracing::warn!("no cluster yet: {problem}");
            self.told.insert(problem.to_owned(), now);
        }
    }
}

/// A server that belongs to no cluster, and one that does, share the answers of [`Forming`].
pub(super) fn answer(forming: &Forming, kind: u16, body: Bytes) -> Bytes {
    let answer = match kind {
        kind::HELLO => Hello::decode(body).map(|hello| forming.hello(hello).encode_to_vec()),
        kind::PROMISE => Promise::decode(body).map(|promise| forming.promise(promise).encode_to_vec()),
        _ => return Bytes::new(),
    };
    answer.map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoVows;

    impl VowStore for NoVows {
        fn load(&self) -> io::Result<Option<Vow>> {
            Ok(None)
        }

        fn save(&self, _: Option<&Vow>) -> io::Result<()> {
            Ok(())
        }
    }

    fn server(raft_id: u64, port: u32) -> ServerRow {
        ServerRow {
            raft_id,
            port,
            ..ServerRow::default()
        }
    }

    fn port_of(forming: &Forming, id: u64) -> Option<u32> {
        forming.state.lock().known.get(&id).map(|met| met.server.port)
    }

    fn a_second_passes(forming: &Forming) {
        for met in forming.state.lock().known.values_mut() {
            met.heard = met
                .heard
                .and_then(|heard| heard.checked_sub(Duration::from_secs(1)));
        }
    }

    #[test]
    fn who_was_told_where_a_server_was_before_it_moved_makes_nobody_forget_where_it_is() {
        let hello = |of: ServerRow| Hello {
            server: Some(of),
            expect: 3,
        };
        let [stays, late] = [1, 2].map(|id| Forming::new(server(id, 1), 3, NoVows).unwrap());
        let ask = |from: &Forming, to: &Forming| {
            let asked = Instant::now();
            let reply = to.hello(hello(from.me.clone()));
            from.take_in(&mut from.state.lock(), &reply, asked);
        };
        stays.hello(hello(server(3, 30)));
        ask(&late, &stays);
        assert_eq!(port_of(&late, 3), Some(30));
        for forming in [&stays, &late] {
            a_second_passes(forming);
        }

        stays.hello(hello(server(3, 31)));
        ask(&stays, &late);

        assert_eq!(port_of(&stays, 3), Some(31));
        ask(&late, &stays);
        assert_eq!(port_of(&late, 3), Some(31));
        // A release that does not tell how old its words are.
        let old = HelloReply {
            known: vec![server(3, 30), server(4, 40)],
            ..HelloReply::default()
        };
        late.take_in(&mut late.state.lock(), &old, Instant::now());
        assert_eq!((port_of(&late, 3), port_of(&late, 4)), (Some(31), Some(40)));
    }
}
