//! The incoming side: connections are counted, made to say who they are, and handed to their lane.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_proto::RaftId;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::{Limits, Remote};
use crate::error::HandshakeError;
use crate::handshake::{Lane, accept};
use crate::peers::Shared;
use crate::stream::Stream;
use crate::{bulk, raft, rpc};

/// How long a connection for a single call may live.
const ASK_MAX: Duration = Duration::from_secs(60);
/// The same complaint about the same address is logged again after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(30);
/// How many complaints are remembered for that.
const REMEMBERED_MAX: usize = 64;
/// How long to wait when the system gives no connection, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is known of the accepted connections.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    counts: Mutex<Counts>,
    /// The connection of each lane of each server; a newer one takes its place.
    lanes: Mutex<HashMap<(RaftId, Lane), (u64, CancellationToken)>>,
    complaints: Mutex<VecDeque<(IpAddr, String, Instant)>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    strangers: usize,
    strangers_of: HashMap<IpAddr, usize>,
    bulk_of: HashMap<RaftId, usize>,
    /// How many connections ever got a lane.
    lanes_ever: u64,
}

/// A place among the connections, given back when it is dropped.
struct Place<'a> {
    incoming: &'a Incoming,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Any,
    Stranger(IpAddr),
    Bulk(RaftId),
}

impl Incoming {
    /// A place, unless all of its kind are taken.
    fn place(&self, kind: Kind, limits: &Limits) -> Option<Place<'_>> {
        let mut counts = self.counts.lock();
        match kind {
            Kind::Any => counts.all = below(counts.all, limits.connections_max)?,
            Kind::Stranger(from) => {
                let total = below(counts.strangers, limits.strangers_max)?;
                let of = counts.strangers_of.get(&from).copied().unwrap_or(0);
                let of = below(of, limits.strangers_max_per_address)?;
                counts.strangers_of.insert(from, of);
                counts.strangers = total;
            }
            Kind::Bulk(from) => {
                let of = counts.bulk_of.get(&from).copied().unwrap_or(0);
                let of = below(of, limits.bulk_streams_max)?;
                counts.bulk_of.insert(from, of);
            }
        }
        Some(Place { incoming: self, kind })
    }

    /// Whether this has not been said lately.
    fn is_news(&self, from: IpAddr, text: &str) -> bool {
        let mut said = self.complaints.lock();
        let now = Instant::now();
        said.retain(|(_, _, when)| now.duration_since(*when) < REPEAT_AFTER);
        if said
            .iter()
            .any(|(address, words, _)| *address == from && words == text)
        {
            return false;
        }
        if said.len() >= REMEMBERED_MAX {
            said.pop_front();
        }
        said.push_back((from, text.to_owned(), now));
        true
    }
}

fn below(count: usize, max: usize) -> Option<usize> {
    (count < max).then_some(count + 1)
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        let mut counts = self.incoming.counts.lock();
        match self.kind {
            Kind::Any => counts.all -= 1,
            Kind::Stranger(from) => {
                counts.strangers -= 1;
                less(&mut counts.strangers_of, &from);
            }
            Kind::Bulk(from) => less(&mut counts.bulk_of, &from),
        }
    }
}

/// Accepts until the transport is stopped.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                let take = take(Arc::clone(&shared), socket, from);
                shared.spawn(take);
            }
            // The connection was gone before it was taken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!("cannot accept connections of other servers: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn take(shared: Arc<Shared>, socket: TcpStream, from: SocketAddr) {
    let (local, incoming) = (&shared.local, &shared.incoming);
    let limits = &local.limits;
    let (Some(_place), Some(stranger)) = (
        incoming.place(Kind::Any, limits),
        incoming.place(Kind::Stranger(from.ip()), limits),
    ) else {
        refused(incoming, from, "too many connections");
        return;
    };
    let accepted = timeout(limits.handshake_timeout, accept(local, socket, from)).await;
    drop(stranger);
    match accepted.unwrap_or(Err(HandshakeError::Timeout)) {
        Ok((stream, lane, remote)) => {
            let removed = stream.hold().removed;
            let served = serve(&shared, stream, lane, Arc::new(remote));
            if removed.run_until_cancelled(served).await.is_none() {
                debug!("cut a connection from {from}: its cluster key was removed");
            }
        }
        // A server that looks for others finds itself too.
        Err(HandshakeError::Itself) => {}
        Err(error) => refused(incoming, from, &error.to_string()),
    }
}

fn refused(incoming: &Incoming, from: SocketAddr, why: &str) {
    if incoming.is_news(from.ip(), why) {
        warn!("refused a connection of another server from {from}: {why}");
    } else {
        debug!("refused a connection of another server from {from}: {why}");
    }
}

async fn serve(shared: &Shared, stream: Stream, lane: Lane, remote: Arc<Remote>) {
    let (local, from) = (&shared.local, remote.identity.raft_id);
    debug!(raft_id = from.0, ?lane, "accepted a connection of {remote}");
    if lane == Lane::Bulk {
        let Some(_place) = shared.incoming.place(Kind::Bulk(from), &local.limits) else {
            refused(&shared.incoming, remote.socket, "too many bulk streams");
            return;
        };
        if let Ok(Ok((kind, head, stream))) =
            timeout(local.limits.handshake_timeout, bulk::accept(stream)).await
        {
            local.handler.bulk(&remote, kind, head, stream).await;
        }
        return;
    }
    // One of another cluster is no sign of life of a peer.
    let peer = shared.peer(from).filter(|_| lane != Lane::Abroad);
    if let Some(peer) = &peer {
        peer.retry_now();
    }
    let heard = || {
        if let Some(peer) = &peer {
            peer.contact.heard();
        }
    };
    let handler = &*local.handler;
    let _answering = matches!(lane, Lane::Ask | Lane::Abroad | Lane::Rpc).then(|| shared.answering.token());
    if matches!(lane, Lane::Ask | Lane::Abroad) {
        // The caller knows of the bound only by the end of the connection.
        let _ = timeout(
            ASK_MAX,
            rpc::serve(stream, handler, &remote, &local.limits, heard, &shared.closing),
        )
        .await;
        return;
    }

    let place = LanePlace::new(&shared.incoming, (from, lane));
    let served = async {
        if lane == Lane::Rpc {
            return rpc::serve(stream, handler, &remote, &local.limits, heard, &shared.closing).await;
        }
        let take = |message| {
            heard();
            handler.raft(from, message);
        };
        raft::receive(stream, &local.limits, take).await
    };
    let why = place.replaced.run_until_cancelled(served).await;
    let why = why.map_or_else(|| "replaced by a newer one".to_owned(), |error| error.to_string());
    debug!(raft_id = from.0, ?lane, "the connection of {remote} ended: {why}");
}

/// Holds the one place that a server has on a lane, and gives it back unless somebody else has it by then.
struct LanePlace<'a> {
    incoming: &'a Incoming,
    key: (RaftId, Lane),
    number: u64,
    replaced: CancellationToken,
}

impl<'a> LanePlace<'a> {
    fn new(incoming: &'a Incoming, key: (RaftId, Lane)) -> Self {
        let number = {
            let mut counts = incoming.counts.lock();
            counts.lanes_ever += 1;
            counts.lanes_ever
        };
        let replaced = CancellationToken::new();
        let older = incoming.lanes.lock().insert(key, (number, replaced.clone()));
        if let Some((_, older)) = older {
            older.cancel();
        }
        Self {
            incoming,
            key,
            number,
            replaced,
        }
    }
}

impl Drop for LanePlace<'_> {
    fn drop(&mut self) {
        let mut lanes = self.incoming.lanes.lock();
        if lanes
            .get(&self.key)
            .is_some_and(|(number, _)| *number == self.number)
        {
            lanes.remove(&self.key);
        }
    }
}
