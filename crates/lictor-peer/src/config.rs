//! Who a server is, and the bounds of its transport.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use lictor_proto::RaftId;
use uuid::Uuid;

use crate::security::Security;

/// The identity of a cluster, drawn when it begins. Servers of different clusters talk by
/// [`Peers::call_abroad`](crate::Peers::call_abroad) alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub Uuid);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node id that clients see.
    pub node_id: Uuid,
    /// The member id inside the cluster; not zero.
    pub raft_id: RaftId,
    /// The node's name, at most 256 bytes.
    pub name: String,
    /// Where other servers reach it, as `host:port`.
    pub address: String,
    /// Its datacenter. Servers of different datacenters talk by [`Peers::call_abroad`](crate::Peers::call_abroad) alone.
    pub datacenter: String,
    /// Its release, for people; nothing is decided by it.
    pub version: String,
}

/// The server at the other end of a connection, as it said itself. With certificates or a cluster key only servers
/// that hold one can say anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Who it is.
    pub identity: Identity,
    /// Its cluster; none while it has not joined one.
    pub cluster: Option<ClusterId>,
    /// What it may do. Only certificates tell agents from servers.
    pub role: Role,
    /// Where the connection comes from or goes to.
    pub socket: SocketAddr,
}

/// What somebody has proved to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A server, which may ask anything.
    Server,
    /// A client agent, which takes no part in raft.
    Agent,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.identity.name, self.socket)
    }
}

/// Everything that [`Peers::new`](crate::Peers::new) wants to know.
#[derive(Debug)]
pub struct Config {
    /// This server.
    pub identity: Identity,
    /// Its cluster; none while it has not joined one, see [`Peers::set_cluster`](crate::Peers::set_cluster).
    pub cluster: Option<ClusterId>,
    /// How connections are protected.
    pub security: Security,
    /// The bounds.
    pub limits: Limits,
}

/// The bounds of the transport. Every queue has one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest raft message. Must hold the largest log entry.
    pub raft_message_max_bytes: usize,
    /// Most raft messages that wait for one peer, for each of the two lanes.
    pub raft_queue_max_len: usize,
    /// Most bytes of raft messages that wait for one peer, for each of the two lanes.
    pub raft_queue_max_bytes: usize,
    /// Largest body of a call and of its answer.
    pub call_max_bytes: usize,
    /// Most calls to one peer that wait for an answer; as many again may wait to be sent. Also the most calls of one
    /// peer that are handled at a time.
    pub calls_max: usize,
    /// Most bytes of calls that wait to be sent to one peer.
    pub call_queue_max_bytes: usize,
    /// Most bulk streams from one peer at a time.
    pub bulk_streams_max: usize,
    /// Most connections that have not yet said who they are.
    pub strangers_max: usize,
    /// The same, from one IP address.
    pub strangers_max_per_address: usize,
    /// Most accepted connections in all.
    pub connections_max: usize,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long the two sides may take to accept each other, on a connection that is made.
    pub handshake_timeout: Duration,
    /// How often each peer is asked for a sign of life.
    pub ping_interval: Duration,
    /// How long a connected peer may be silent before its connections are cut and made anew.
    pub silence_max: Duration,
    /// How long a stop waits for calls that other servers have made, so that they get their answers.
    pub drain_max: Duration,
    /// The first and the longest pause between two attempts to connect. Pauses double, and are jittered downwards.
    pub backoff: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            raft_message_max_bytes: 8 * MIB,
            raft_queue_max_len: 4096,
            raft_queue_max_bytes: 32 * MIB,
            call_max_bytes: 16 * MIB,
            calls_max: 4096,
            call_queue_max_bytes: 32 * MIB,
            bulk_streams_max: 4,
            strangers_max: 128,
            strangers_max_per_address: 32,
            connections_max: 4096,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_millis(500),
            silence_max: Duration::from_secs(3),
            drain_max: Duration::from_secs(2),
            backoff: (Duration::from_millis(10), Duration::from_secs(1)),
        }
    }
}
