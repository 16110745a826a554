//! The other servers: who they are, what is sent to them, and what they ask of this one.
//!
//! ```text
//! propose, renew ──leads here?──no──> forward ──call──> leader's handler ──> its propose, renew
//! times left ──leads here?──no──call──> leader's handler ──> its timers
//! read ──lease?──no──> gate ──one ReadIndex round for all that wait──> wait until it is applied here
//! raft thread ──messages──> peers <──messages── handler <── other servers
//! compare: digests of all states, as of one entry; who differs from most fetches its state anew
//! wan: servers of other datacenters, which are listed as members and no more
//! snapshots: a view is pinned by apply, streamed in bulk, installed by apply at the other end
//! ```

mod agents;
pub(crate) mod archives;
pub(crate) mod compare;
mod enlist;
mod form;
mod forward;
mod gate;
mod handler;
mod keeper;
mod keyring;
mod operate;
mod roster;
pub(crate) mod snapshots;
mod stall;
mod times;
mod upstream;
mod waits;
mod wan;

use std::collections::BTreeMap;

use lictor_peer::Peers;
use lictor_proto::RaftId;
use lictor_proto::v1::ServerRow;
use parking_lot::Mutex;
use tokio::runtime;

pub(crate) use agents::Agents;
pub use agents::Tunnel;
pub use compare::Comparison;
pub(crate) use compare::{Digests, watch_over};
pub use enlist::{EnlistError, Newcomer};
pub use form::{FormError, Formed, Forming, JoinPace, VowStore};
pub(crate) use forward::Forwarded;
pub(crate) use gate::{Gate, Proof};
pub(crate) use handler::INBOX_MAX;
pub use handler::PeerHandler;
pub use keeper::Autopilot;
pub(crate) use keeper::keep;
pub use keyring::{KeyringChange, Keys, ServerKeys};
pub use roster::Roster;
pub(crate) use roster::address;
pub use times::TIMES_MAX;
pub(crate) use upstream::Upstream;
pub(crate) use waits::report;
pub use wan::Foreigner;
pub(crate) use wan::{Wan, look_abroad};

use crate::node::Shared;

/// Calls and streams between servers.
pub(crate) mod kind {
    /// Body: a log entry's bytes. Answer: `ProposeReply`.
    pub(crate) const PROPOSE: u16 = 1;
    /// As `PROPOSE`, and the outcome is to be explained.
    pub(crate) const PROPOSE_EXPLAINED: u16 = 50;
    /// Body: a session's 16 bytes. Answer: `RenewReply`.
    pub(crate) const RENEW: u16 = 2;
    /// Stream. Head: `SnapshotDescriptor`. The rows come back.
    pub(crate) const SNAPSHOT: u16 = 3;
    /// Body: `Hello`. Answer: `HelloReply`.
    pub(crate) const HELLO: u16 = 4;
    /// Body: `Promise`. Answer: `PromiseReply`.
    pub(crate) const PROMISE: u16 = 5;
    /// Body: `Join`. Answer: `JoinReply`.
    pub(crate) const JOIN: u16 = 6;
    /// Body: `Leave`. Answer: `LeaveReply`.
    pub(crate) const LEAVE: u16 = 7;
    /// Body: anything, for whoever listens in the layer above. Answer: nothing.
    pub(crate) const BROADCAST: u16 = 8;
    /// Body: `Operate`. Answer: `OperateReply`.
    pub(crate) const OPERATE: u16 = 9;
    /// Stream. Head: `ArchiveHead`. An archive to be staged goes there, an `ArchiveReply` comes back.
    pub(crate) const ARCHIVE_STAGE: u16 = 10;
    /// The same, for one that the leader is to restore.
    pub(crate) const ARCHIVE_RESTORE: u16 = 11;
    /// Stream. Head: `ArchiveHead`. A staged archive comes back.
    pub(crate) const ARCHIVE_FETCH: u16 = 12;
    /// Body: `DigestOf`. Answer: `DigestReply`, once the asked server has come to the entry.
    pub(crate) const DIGEST: u16 = 70;
    /// Body: `DigestOf`, with what the state's digest should have been. Answer: nothing.
    pub(crate) const REBUILD: u16 = 71;
    /// Stream. Head: `DigestOf`, with where the state must not end before. The rows come back.
    pub(crate) const STATE: u16 = 72;
    /// Of client agents. Body: `Attend`. Answer: `AttendReply`.
    pub(crate) const ATTEND: u16 = 60;
    /// Of client agents. Body and answer as for `PROPOSE`, but of any server, which finds the leader.
    pub(crate) const PROPOSE_FOR: u16 = 61;
    /// An agent lives. Body: its name. Answer: `DoneReply`.
    pub(crate) const HEARD: u16 = 62;
    /// Of client agents. Body: their `NodeRow`. Answer: `DoneReply`.
    pub(crate) const DEPART: u16 = 63;
    /// An agent has left. Body: its `NodeRow`. Answer: nothing.
    pub(crate) const LEFT: u16 = 64;
    /// Of client agents. Stream of HTTP/2, without chunks.
    pub(crate) const TUNNEL: u16 = 65;
    /// All that client agents ask for.
    pub(crate) const OF_AGENTS: [u16; 4] = [ATTEND, PROPOSE_FOR, DEPART, TUNNEL];
    /// Body: `KeyringOrder`. Answer: `KeyringReply`.
    pub(crate) const KEYRING: u16 = 80;
    /// Of servers of other datacenters too, which may ask nothing else. Body and answer: `WanHello`.
    pub(crate) const WAN: u16 = 81;
    /// Body: `QueueReport`. Answer: `QueueReportReply`.
    pub(crate) const QUEUE_REPORT: u16 = 40;
    /// Body: `TimesOf`. Answer: `TimesReply`.
    pub(crate) const TIMES: u16 = 90;
}

/// Servers to which connections are kept although they are no members; see [`Net::note_stranger`].
const STRANGERS_MAX: usize = 8;

/// The transport, and the runtime that it lives on: the pipeline's threads have none.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) peers: Peers,
    pub(crate) runtime: runtime::Handle,
    moved: Mutex<BTreeMap<RaftId, Moved>>,
}

/// Where a server said it is, when it connected last.
#[derive(Debug)]
struct Moved {
    /// What the roster said then. Once it says something else, that is the newer word.
    from: String,
    to: String,
}

impl Net {
    pub(crate) fn new(peers: Peers) -> Self {
        Self {
            peers,
            runtime: runtime::Handle::current(),
            moved: Mutex::default(),
        }
    }

    /// A server has connected and said where it is.
    pub(crate) fn note_address(&self, roster: &Roster, server: RaftId, address: &str) {
        let Some(known) = roster.get(server).map(self::address) else {
            return;
        };
        let changed = {
            let mut moved = self.moved.lock();
            if known == address {
                moved.remove(&server).is_some()
            } else {
                let to = address.to_owned();
                let before = moved.insert(server, Moved { from: known, to });
                before.is_none_or(|before| before.to != address)
            }
        };
        if changed {
            let _context = self.runtime.enter();
            self.peers.set_address(server, address);
        }
    }

    /// Where a server said it is, if that is not where the roster says: host and port.
    pub(crate) fn moved_to(&self, server: RaftId) -> Option<(String, u32)> {
        let moved = self.moved.lock();
        let (host, port) = moved.get(&server)?.to.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse().ok()?))
    }

    /// A server that is no member here says where it is. This one may have missed that it became one, and must be able to
    /// answer it.
    pub(crate) fn note_stranger(&self, roster: &Roster, server: &ServerRow) {
        let id = RaftId(server.raft_id);
        let known = self.peers.health().len();
        if roster.get(id).is_none() && known < roster.servers().count() + STRANGERS_MAX {
            let _context = self.runtime.enter();
            self.peers.set_address(id, &address(server));
        }
    }

    /// Keeps connections to exactly these servers, beside this one.
    pub(crate) fn follow(&self, shared: &Shared, roster: &Roster) {
        let _context = self.runtime.enter();
        for (known, _) in self.peers.health() {
            if roster.get(known).is_none() {
                self.peers.remove(known);
            }
        }
        for server in roster.servers().filter(|server| server.raft_id != shared.me.0) {
            let id = RaftId(server.raft_id);
            self.peers
                .set_address(id, &self.newest_address(id, address(server)));
        }
    }

    /// Where a server is: where the roster says, unless the server itself has said otherwise since. When all servers
    /// have moved, the roster learns of it one by one, and meanwhile names the old addresses of the rest.
    fn newest_address(&self, server: RaftId, listed: String) -> String {
        let mut moved = self.moved.lock();
        match moved.get(&server) {
            Some(known) if known.from == listed => known.to.clone(),
            _ => {
                moved.remove(&server);
                listed
            }
        }
    }
}
