//! The transport as its owner sees it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use lictor_proto::RaftId;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::accept::{Incoming, listen};
use crate::bulk::{self, BULK_HEAD_MAX_BYTES, BulkStream};
use crate::config::{ClusterId, Config, Identity, Remote};
use crate::contact::{Contact, PeerHealth};
use crate::error::{CallError, Dropped, HandshakeError, NotSent, SecurityError};
use crate::handler::Handler;
use crate::handshake::{Lane, Local, dial};
use crate::keyring::Keyring;
use crate::lane::{KEPT, Peer, keep};
use crate::outbox::NotTaken;
use crate::rpc;
use crate::security::Mode;

/// What goes to a peer. Queues have their length and the most that it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Raft messages that were taken since the start. Some of them may have been lost on the way.
    pub sent: u64,
    /// Raft messages that found their queue full.
    pub dropped_full: u64,
    /// Raft messages that found no connection.
    pub dropped_unreachable: u64,
    /// Small raft messages that wait.
    pub urgent: (usize, usize),
    /// Other raft messages that wait.
    pub append: (usize, usize),
    /// Calls that wait to be sent.
    pub calls: (usize, usize),
}

/// The connections to and from the other servers. A clone is the same transport.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) local: Arc<Local>,
    pub(crate) incoming: Incoming,
    peers: RwLock<HashMap<RaftId, Arc<Peer>>>,
    tasks: TaskTracker,
    /// The connections on which calls are answered.
    pub(crate) answering: TaskTracker,
    /// Cancelled when no more calls are taken.
    pub(crate) closing: CancellationToken,
    stop: CancellationToken,
}

impl Shared {
    pub(crate) fn peer(&self, id: RaftId) -> Option<Arc<Peer>> {
        self.peers.read().get(&id).cloned()
    }

    /// Runs `work` until it is done or the transport stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            // Nothing is left to do when it was stopped.
            let _ = stop.run_until_cancelled_owned(work).await;
        });
    }
}

impl Peers {
    /// A transport without connections. Everything after this runs on the tokio runtime that it is called from.
    pub fn new(config: Config, handler: Arc<dyn Handler>) -> Self {
        let Config {
            identity,
            cluster,
            security,
            limits,
        } = config;
        if security.mode() == Mode::Open {
            warn!(
                "the port for other servers is open: whoever reaches it can join and change everything; \
                 set a cluster key (encrypt) to protect it"
            );
        }
        let local = Local {
            identity,
            cluster: RwLock::new(cluster),
            security,
            limits,
            handler,
        };
        Self(Arc::new(Shared {
            local: Arc::new(local),
            incoming: Incoming::default(),
            peers: RwLock::new(HashMap::new()),
            tasks: TaskTracker::new(),
            answering: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Accepts connections of other servers, until [`stop`](Self::stop). May be called for several sockets.
    pub fn serve(&self, listener: TcpListener) {
        let listen = listen(Arc::clone(&self.0), listener);
        let closing = self.0.closing.clone();
        self.0.spawn(async move {
            // The end of the transport is all that ends it.
            let _ = closing.run_until_cancelled_owned(listen).await;
        });
    }

    /// This server.
    pub fn identity(&self) -> &Identity {
        &self.0.local.identity
    }

    /// This server's cluster.
    pub fn cluster(&self) -> Option<ClusterId> {
        *self.0.local.cluster.read()
    }

    /// The keys that the servers share, the primary first; none where they are protected otherwise, or not at all.
    pub fn keys(&self) -> Option<Vec<Vec<u8>>> {
        let keyring = self.0.local.security.keys()?;
        Some(keyring.now().secrets())
    }

    /// Tells apart what keys there are: their digest, empty where there are none.
    pub fn keys_digest(&self) -> Vec<u8> {
        let keyring = self.0.local.security.keys();
        keyring.map_or_else(Vec::new, |keyring| keyring.now().digest())
    }

    /// Counts the primary keys there were: what was connected in another era shows another key.
    pub fn key_era(&self) -> u64 {
        self.0.local.security.keys().map_or(0, Keyring::era)
    }

    /// Changes the keys that the servers share as `change` says, which gets them with the primary first. Connections are
    /// made anew, in good order, when the primary changes; those are cut whose other side has shown a key that is
    /// removed. Does nothing where there are no keys.
    ///
    /// # Errors
    /// That of `change`; a ring that cannot be, or not be kept. The keys are then what they were.
    pub fn change_keys<E: From<SecurityError>>(
        &self,
        change: impl FnOnce(&mut Vec<Vec<u8>>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.0.local.security.keys() {
            Some(keyring) => keyring.change(change),
            None => Ok(()),
        }
    }

    /// Names the cluster that this server has joined. Until then it can only ask, and be asked, single questions
    /// ([`call_address`](Self::call_address)). Connections that exist are not asked again.
    pub fn set_cluster(&self, cluster: ClusterId) {
        *self.0.local.cluster.write() = Some(cluster);
        for peer in self.0.peers.read().values() {
            peer.retry_now();
        }
    }

    /// Keeps connections to a peer at `address` (`host:port`) from now on; moves them if it had another address.
    pub fn set_address(&self, peer: RaftId, address: &str) {
        self.keep(peer, address, &KEPT);
    }

    /// The same for a server that is only called, and sent no raft messages.
    pub fn set_called(&self, peer: RaftId, address: &str) {
        self.keep(peer, address, &[Lane::Rpc]);
    }

    fn keep(&self, peer: RaftId, address: &str, lanes: &[Lane]) {
        let mut peers = self.0.peers.write();
        if let Some(known) = peers.get(&peer) {
            known.set_address(address);
            return;
        }
        let local = &self.0.local;
        let new = Arc::new(Peer::new(peer, address, &local.limits));
        for lane in lanes {
            self.0.spawn(keep(Arc::clone(local), Arc::clone(&new), *lane));
        }
        peers.insert(peer, new);
    }

    /// Closes the connections to a peer and forgets it. Those that it made to this server stay.
    pub fn remove(&self, peer: RaftId) {
        if let Some(peer) = self.0.peers.write().remove(&peer) {
            peer.remove();
        }
    }

    /// The peers, and what is known of their life.
    pub fn health(&self) -> Vec<(RaftId, PeerHealth)> {
        let peers = self.0.peers.read();
        peers
            .iter()
            .map(|(id, peer)| (*id, peer.contact.health()))
            .collect()
    }

    /// What is known of the life of one peer.
    pub fn health_of(&self, peer: RaftId) -> Option<PeerHealth> {
        self.0.peer(peer).map(|peer| peer.contact.health())
    }

    /// How much goes to each peer.
    pub fn traffic(&self) -> Vec<(RaftId, PeerTraffic)> {
        let peers = self.0.peers.read();
        let of = |peer: &Peer| PeerTraffic {
            sent: peer.sent.taken.load(Ordering::Relaxed),
            dropped_full: peer.sent.full.load(Ordering::Relaxed),
            dropped_unreachable: peer.sent.unreachable.load(Ordering::Relaxed),
            urgent: peer.urgent.depth(),
            append: peer.append.depth(),
            calls: peer.caller.outbox.depth(),
        };
        peers.iter().map(|(id, peer)| (*id, of(peer))).collect()
    }

    /// Queues a raft message; never waits. Messages of one kind stay in order; `urgent` ones, which should be small,
    /// have a connection of their own and so overtake the others.
    ///
    /// # Errors
    /// The message was not taken, and never will be sent. One that was taken may still get lost.
    pub fn send_raft(&self, to: RaftId, urgent: bool, message: Bytes) -> Result<(), Dropped> {
        if message.len() > self.0.local.limits.raft_message_max_bytes {
            return Err(Dropped::TooLarge);
        }
        let peers = self.0.peers.read();
        let peer = peers.get(&to).ok_or(Dropped::UnknownPeer)?;
        let outbox = if urgent { &peer.urgent } else { &peer.append };
        let (counted, outcome) = match outbox.send(message) {
            Ok(()) => (&peer.sent.taken, Ok(())),
            Err(NotTaken::Closed) => (&peer.sent.unreachable, Err(Dropped::Unreachable)),
            Err(NotTaken::Full) => (&peer.sent.full, Err(Dropped::Full)),
        };
        counted.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    /// Asks a peer. `kind` and `body` mean what the two [`Handler`]s say. The other side is told when the future is
    /// dropped, and by when nobody waits any more. Deadlines are kept to some 25 ms.
    ///
    /// # Errors
    /// [`CallError::NotSent`] if it had no effect and never will, so that it may be made again elsewhere;
    /// [`CallError::OutcomeUnknown`] otherwise. While the peer cannot be reached it fails at once.
    pub async fn call(
        &self,
        to: RaftId,
        kind: u16,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let peer = self.0.peer(to).ok_or(NotSent::UnknownPeer)?;
        peer.caller
            .call(kind, body, deadline.into(), || peer.problem())
            .await
    }

    /// Asks whatever server is at `address` (`host:port`), over a connection of its own; also before either belongs to
    /// a cluster. Says who answered.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`NotSent::Itself`] if this server is there.
    pub async fn call_address(
        &self,
        address: &str,
        kind: u16,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(Remote, Bytes), CallError> {
        self.ask(Lane::Ask, address, kind, body, deadline).await
    }

    /// The same for a server of whatever datacenter and cluster. What it may ask for is the [`Handler`]'s to decide,
    /// which sees where it is from.
    ///
    /// # Errors
    /// As [`call_address`](Self::call_address).
    pub async fn call_abroad(
        &self,
        address: &str,
        kind: u16,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(Remote, Bytes), CallError> {
        self.ask(Lane::Abroad, address, kind, body, deadline).await
    }

    async fn ask(
        &self,
        lane: Lane,
        address: &str,
        kind: u16,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(Remote, Bytes), CallError> {
        let local = &self.0.local;
        let dialed = tokio::time::timeout_at(deadline.into(), dial(local, address, lane, None));
        let (stream, remote) = dialed
            .await
            .map_err(|_| NotSent::Deadline)?
            .map_err(NotSent::from)?;
        let caller = rpc::Caller::new(&local.limits);
        let contact = Arc::new(Contact::new());
        let answer = {
            let call = caller.call(
                kind,
                body,
                deadline.into(),
                || NotSent::Unreachable(String::new()),
            );
            let drive = rpc::drive(stream, &caller, &contact, &local.limits, false);
            tokio::pin!(call, drive);
            tokio::select! {
                answer = &mut call => answer,
                _ = &mut drive => {
                    // It has answered what it took; if it took nothing, nothing was sent.
                    let lost = NotSent::Unreachable("the connection was closed".to_owned());
                    for order in caller.outbox.close() {
                        order.fail(lost.clone());
                    }
                    call.await
                }
            }
        };
        answer.map(|answer| (remote, answer))
    }

    /// Opens a stream of bytes to a peer, over a connection of its own. `kind` and `head` go to the other
    /// [`Handler::bulk`].
    ///
    /// # Errors
    /// The stream could not be opened.
    pub async fn bulk(&self, to: RaftId, kind: u16, head: &[u8]) -> Result<BulkStream, NotSent> {
        let peer = self.0.peer(to).ok_or(NotSent::UnknownPeer)?;
        if head.len() > BULK_HEAD_MAX_BYTES {
            return Err(NotSent::TooLarge {
                len_bytes: head.len(),
                max_bytes: BULK_HEAD_MAX_BYTES,
            });
        }
        let (stream, _) = dial(&self.0.local, &peer.address(), Lane::Bulk, Some(to)).await?;
        let opened = bulk::open(stream, kind, head).await;
        opened.map_err(|error| HandshakeError::from(error).into())
    }

    /// Closes everything, and waits until it is closed. Calls of other servers are answered first, as far as their
    /// handlers end within [`Limits::drain_max`](crate::Limits::drain_max); those that come too late are not taken, and
    /// their callers know it. Calls of this server that wait are answered with an error.
    pub async fn stop(&self) {
        self.0.closing.cancel();
        self.0.answering.close();
        // What is not answered by then is cut.
        let _ = tokio::time::timeout(self.0.local.limits.drain_max, self.0.answering.wait()).await;
        self.0.stop.cancel();
        for (_, peer) in self.0.peers.write().drain() {
            peer.remove();
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}
