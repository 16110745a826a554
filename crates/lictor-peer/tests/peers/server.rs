//! A server for tests: it echoes, waits or blocks as it is asked, and records what happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lictor_peer::{
    BulkStream, CallError, ClusterId, Config, Handler, Identity, Limits, NotSent, Peers, Remote, Role,
    Security,
};
use lictor_proto::RaftId;
use parking_lot::{Condvar, Mutex};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

/// Answers what it is asked.
pub(crate) const ECHO: u16 = 1;
/// Never answers.
pub(crate) const NEVER: u16 = 2;
/// Answers what it is asked, once it is told to.
pub(crate) const LATER: u16 = 4;
/// Answers with more than it may.
pub(crate) const TOO_MUCH: u16 = 3;

/// Long enough for any machine; nothing waits so long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Raft(RaftId, Bytes),
    Began(u16),
    /// A call that never answers was dropped.
    Dropped,
    Connected(RaftId),
    Unreachable(RaftId),
}

pub(crate) struct Recorder {
    events: UnboundedSender<Happened>,
    /// Appends are taken only while it is open. To close it takes a runtime of several threads.
    gate: (Mutex<bool>, Condvar),
    /// Lets one call of kind [`LATER`] end.
    pub(crate) later: Arc<Notify>,
    pub(crate) bulk: UnboundedSender<(u16, Bytes, BulkStream)>,
    refused_name: Option<&'static str>,
    /// Who called last.
    role: Mutex<Option<Role>>,
}

impl Recorder {
    pub(crate) fn last_role(&self) -> Option<Role> {
        *self.role.lock()
    }

    pub(crate) fn open_gate(&self, open: bool) {
        *self.gate.0.lock() = open;
        self.gate.1.notify_all();
    }

    fn tell(&self, event: Happened) {
        let _ = self.events.send(event);
    }
}

struct OnDrop(UnboundedSender<Happened>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Happened::Dropped);
    }
}

impl Handler for Recorder {
    fn admit(&self, remote: &Remote) -> Result<(), String> {
        if self.refused_name == Some(&remote.identity.name) {
            return Err(format!("the name {} is taken", remote.identity.name));
        }
        Ok(())
    }

    fn raft(&self, from: RaftId, message: Bytes) {
        if message.starts_with(b"append") && !*self.gate.0.lock() {
            // A worker that just stood still could be the one that sockets and timers of all tasks wait for.
            tokio::task::block_in_place(|| {
                let mut open = self.gate.0.lock();
                self.gate.1.wait_while(&mut open, |open| !*open);
            });
        }
        self.tell(Happened::Raft(from, message));
    }

    fn call(&self, from: &Arc<Remote>, kind: u16, body: Bytes) -> BoxFuture<'static, Bytes> {
        *self.role.lock() = Some(from.role);
        self.tell(Happened::Began(kind));
        let dropped = OnDrop(self.events.clone());
        let later = Arc::clone(&self.later);
        Box::pin(async move {
            match kind {
                LATER => {
                    std::mem::forget(dropped);
                    later.notified().await;
                    body
                }
                NEVER => {
                    let _dropped = dropped;
                    std::future::pending().await
                }
                TOO_MUCH => {
                    std::mem::forget(dropped);
                    Bytes::from(vec![0; Limits::default().call_max_bytes + 1])
                }
                _ => {
                    std::mem::forget(dropped);
                    body
                }
            }
        })
    }

    fn bulk(&self, _: &Arc<Remote>, kind: u16, head: Bytes, stream: BulkStream) -> BoxFuture<'static, ()> {
        let _ = self.bulk.send((kind, head, stream));
        Box::pin(std::future::ready(()))
    }

    fn connected(&self, peer: RaftId) {
        self.tell(Happened::Connected(peer));
    }

    fn unreachable(&self, peer: RaftId) {
        self.tell(Happened::Unreachable(peer));
    }
}

pub(crate) struct Server {
    pub(crate) peers: Peers,
    pub(crate) id: RaftId,
    pub(crate) address: SocketAddr,
    pub(crate) handler: Arc<Recorder>,
    events: UnboundedReceiver<Happened>,
    pub(crate) bulk: UnboundedReceiver<(u16, Bytes, BulkStream)>,
}

/// How a server is to be.
pub(crate) struct Plan {
    pub(crate) id: u64,
    pub(crate) security: Security,
    pub(crate) cluster: Option<u128>,
    pub(crate) datacenter: &'static str,
    pub(crate) limits: Limits,
    pub(crate) refused_name: Option<&'static str>,
}

impl Plan {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            security: Security::open(),
            cluster: Some(1),
            datacenter: "dc1",
            limits: Limits::default(),
            refused_name: None,
        }
    }

    pub(crate) fn secured(id: u64, security: Security) -> Self {
        Self {
            security,
            ..Self::new(id)
        }
    }

    pub(crate) async fn start(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (events, received) = unbounded_channel();
        let (bulk, streams) = unbounded_channel();
        let handler = Arc::new(Recorder {
            events,
            gate: (Mutex::new(true), Condvar::new()),
            later: Arc::default(),
            bulk,
            refused_name: self.refused_name,
            role: Mutex::default(),
        });
        let config = Config {
            identity: Identity {
                node_id: Uuid::from_u64_pair(9, self.id),
                raft_id: RaftId(self.id),
                name: format!("lictor-{}", self.id),
                address: address.to_string(),
                datacenter: self.datacenter.to_owned(),
                version: "0.0.0".to_owned(),
            },
            cluster: self.cluster.map(|id| ClusterId(Uuid::from_u128(id))),
            security: self.security,
            limits: self.limits,
        };
        let peers = Peers::new(config, Arc::clone(&handler) as Arc<dyn Handler>);
        peers.serve(listener);
        Server {
            peers,
            id: RaftId(self.id),
            address,
            handler,
            events: received,
            bulk: streams,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A runtime does not end while somebody stands at the gate: a test that fails is to end too.
        self.handler.open_gate(true);
    }
}

impl Server {
    pub(crate) fn knows(&self, other: &Self) {
        self.peers.set_address(other.id, &other.address.to_string());
    }

    /// The next event that `wanted` makes something of.
    pub(crate) async fn event<T>(&mut self, wanted: impl Fn(Happened) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the handler lives");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .expect("what the test waits for happens")
    }

    pub(crate) async fn raft_message(&mut self) -> (RaftId, Bytes) {
        self.event(|event| match event {
            Happened::Raft(from, message) => Some((from, message)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn call(&self, to: RaftId, kind: u16, body: &'static [u8]) -> Result<Bytes, CallError> {
        let deadline = Instant::now() + PATIENCE;
        self.peers
            .call(to, kind, Bytes::from_static(body), deadline)
            .await
    }

    /// Calls until the peer can be reached.
    pub(crate) async fn call_until_reached(&self, to: RaftId) -> Bytes {
        let began = Instant::now();
        loop {
            match self.call(to, ECHO, b"there?").await {
                Ok(answer) => return answer,
                // An echo may be asked for twice, so one that was lost with an old connection does not matter.
                Err(CallError::NotSent(_) | CallError::OutcomeUnknown(_)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Asks whoever is at an address to echo.
    pub(crate) async fn ask(&self, address: SocketAddr) -> Result<(Remote, Bytes), CallError> {
        let deadline = Instant::now() + PATIENCE;
        let hello = Bytes::from_static(b"hello");
        self.peers
            .call_address(&address.to_string(), ECHO, hello, deadline)
            .await
    }

    /// Why asking does not work.
    pub(crate) async fn ask_refused(&self, address: SocketAddr) -> String {
        match self.ask(address).await {
            Err(CallError::NotSent(NotSent::Refused(why))) => why,
            other => panic!("not refused: {other:?}"),
        }
    }
}
