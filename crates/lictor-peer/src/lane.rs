//! The outgoing side: for each peer one task a lane, which keeps a connection.
//!
//! A queue is open while there is a connection, and before the first attempt to make one has failed: what comes in
//! between a loss and the next connection is refused at once, so that nothing old is sent late.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use lictor_proto::RaftId;
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::config::{Limits, Remote};
use crate::contact::Contact;
use crate::error::{HandshakeError, NotSent};
use crate::handshake::{Lane, Local, dial};
use crate::outbox::Outbox;
use crate::stream::{Ended, Stream};
use crate::{raft, rpc};

/// The lanes that are kept connected.
pub(crate) const KEPT: [Lane; 3] = [Lane::Urgent, Lane::Append, Lane::Rpc];

/// A server that this one talks to.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) raft_id: RaftId,
    aim: watch::Sender<Aim>,
    pub(crate) urgent: Outbox<Bytes>,
    pub(crate) append: Outbox<Bytes>,
    pub(crate) caller: rpc::Caller,
    pub(crate) contact: Arc<Contact>,
    pub(crate) sent: Sent,
    /// Ends the pause before the next attempt; one for each of [`KEPT`].
    retry: [Notify; KEPT.len()],
    /// Why there is no connection.
    problem: Mutex<Option<NotSent>>,
}

/// What became of the raft messages to a peer since the start.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) taken: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) unreachable: AtomicU64,
}

/// Where the connections of a peer go. Each change ends those there are.
#[derive(Debug, Clone)]
struct Aim {
    address: Arc<str>,
    /// Counts the times that the connections were found to be dead.
    cuts: u64,
    removed: bool,
}

impl Peer {
    pub(crate) fn new(raft_id: RaftId, address: &str, limits: &Limits) -> Self {
        let aim = Aim {
            address: address.into(),
            cuts: 0,
            removed: false,
        };
        let queue = || Outbox::new(limits.raft_queue_max_len, limits.raft_queue_max_bytes);
        Self {
            raft_id,
            aim: watch::Sender::new(aim),
            urgent: queue(),
            append: queue(),
            caller: rpc::Caller::new(limits),
            contact: Arc::new(Contact::new()),
            sent: Sent::default(),
            retry: Default::default(),
            problem: Mutex::new(None),
        }
    }

    pub(crate) fn address(&self) -> Arc<str> {
        Arc::clone(&self.aim.borrow().address)
    }

    /// The connections move to `address` if it is another.
    pub(crate) fn set_address(&self, address: &str) {
        self.aim.send_if_modified(|aim| {
            let moves = *aim.address != *address;
            if moves {
                aim.address = address.into();
            }
            moves
        });
    }

    /// Ends all lanes.
    pub(crate) fn remove(&self) {
        self.aim.send_modify(|aim| aim.removed = true);
    }

    /// The peer is there: no need to wait for the next attempt.
    pub(crate) fn retry_now(&self) {
        self.retry.iter().for_each(Notify::notify_one);
    }

    /// Why a call cannot leave.
    pub(crate) fn problem(&self) -> NotSent {
        if self.aim.borrow().removed {
            return NotSent::UnknownPeer;
        }
        let problem = self.problem.lock().clone();
        problem.unwrap_or_else(|| NotSent::Unreachable("not connected".to_owned()))
    }

    fn open(&self, lane: Lane) {
        match lane {
            Lane::Urgent => self.urgent.open(),
            Lane::Append => self.append.open(),
            _ => self.caller.outbox.open(),
        }
    }
}

/// Keeps one lane of a peer connected until the peer is removed.
pub(crate) async fn keep(local: Arc<Local>, peer: Arc<Peer>, lane: Lane) {
    let mut aim = peer.aim.subscribe();
    let mut backoff = Backoff::new(local.limits.backoff);
    let retry = KEPT
        .iter()
        .position(|kept| *kept == lane)
        .map_or(&peer.retry[0], |at| &peer.retry[at]);
    let mut last = peer.address();
    loop {
        let Aim { address, removed, .. } = aim.borrow_and_update().clone();
        if removed {
            break;
        }
        if address != last {
            backoff.reset();
            peer.open(lane);
            last = Arc::clone(&address);
        }
        tokio::select! {
            ended = connect_once(&local, &peer, lane, &address, &mut backoff) => {
                if ended == Some(Ended::Outdated) {
                    // What comes meanwhile waits for the next connection.
                    continue;
                }
            }
            // The owner of the sender is held above, so this is a change.
            _ = aim.changed() => {}
        }
        close(&local, &peer, lane);
        let now = aim.borrow_and_update().clone();
        if !now.removed && now.address == address {
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = retry.notified() => {}
                _ = aim.changed() => {}
            }
        }
    }
}

/// One attempt, and the connection that comes of it until it ends. Says how that ended, if there was one.
async fn connect_once(
    local: &Local,
    peer: &Peer,
    lane: Lane,
    address: &str,
    backoff: &mut Backoff,
) -> Option<Ended> {
    match dial_for(local, peer, lane, address).await {
        Ok((stream, remote)) => {
            peer.open(lane);
            let began = Instant::now();
            let ended = run(local, peer, lane, stream, &remote).await;
            // Not one that is closed as soon as it is made, again and again.
            if began.elapsed() > backoff.longest {
                backoff.reset();
            }
            Some(ended)
        }
        Err(error) => {
            let text = error.to_string();
            let problem = NotSent::from(error);
            // Once for all lanes and attempts.
            let known = peer.problem.lock().replace(problem.clone());
            if known != Some(problem) {
                warn!(
                    raft_id = peer.raft_id.0,
                    "cannot connect to the server at {address}: {text}"
                );
            }
            None
        }
    }
}

/// Dials, and meanwhile ends the calls that cannot wait so long.
async fn dial_for(
    local: &Local,
    peer: &Peer,
    lane: Lane,
    address: &str,
) -> Result<(Stream, Remote), HandshakeError> {
    let dialing = dial(local, address, lane, Some(peer.raft_id));
    if lane != Lane::Rpc {
        return dialing.await;
    }
    tokio::pin!(dialing);
    loop {
        tokio::select! {
            done = &mut dialing => return done,
            () = sleep(rpc::SWEEP_INTERVAL) => rpc::expire(&peer.caller.outbox, Instant::now()),
        }
    }
}

async fn run(local: &Local, peer: &Peer, lane: Lane, stream: Stream, remote: &Remote) -> Ended {
    if lane == Lane::Rpc {
        *peer.problem.lock() = None;
        peer.contact.set_connected(true);
        info!(raft_id = peer.raft_id.0, "connected to {remote}");
        let ended = rpc::drive(stream, &peer.caller, &peer.contact, &local.limits, true).await;
        let Ended::Lost(why) = &ended else {
            return ended;
        };
        peer.contact.set_connected(false);
        warn!(raft_id = peer.raft_id.0, "lost the connection to {remote}: {why}");
        *peer.problem.lock() = Some(NotSent::Unreachable(why.clone()));
        // A peer that is gone for calls is gone for raft too, though its other sockets may not have noticed.
        peer.aim.send_modify(|aim| aim.cuts += 1);
        return ended;
    }
    local.handler.connected(peer.raft_id);
    let outbox = if lane == Lane::Urgent {
        &peer.urgent
    } else {
        &peer.append
    };
    let ended = raft::drive(stream, outbox).await;
    debug!(
        raft_id = peer.raft_id.0,
        ?lane,
        ?ended,
        "the connection to {remote} ended"
    );
    ended
}

/// Refuses all that waits, and what comes until there is a connection again.
fn close(local: &Local, peer: &Peer, lane: Lane) {
    if lane == Lane::Rpc {
        peer.contact.set_connected(false);
        let problem = peer.problem();
        for order in peer.caller.outbox.close() {
            order.fail(problem.clone());
        }
        return;
    }
    let outbox = if lane == Lane::Urgent {
        &peer.urgent
    } else {
        &peer.append
    };
    if !outbox.close().is_empty() {
        local.handler.unreachable(peer.raft_id);
    }
}

/// Pauses that double up to a bound, each shortened by up to a half, so that servers do not retry in step.
#[derive(Debug)]
struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    fn new((first, longest): (Duration, Duration)) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new((ms(10), ms(50)));

        for longest in [10, 20, 40, 50, 50] {
            let pause = backoff.next();
            assert!(pause <= ms(longest) && pause >= ms(longest) / 2, "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= ms(10));
    }
}
