//! The configuration as the rest of the program sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use lictor_proto::HostPort;
use serde_json::Value;

use super::addr::Listen;

/// The configuration of one agent, complete and valid.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in Consul's configuration"
)]
pub struct RuntimeConfig {
    /// Development mode.
    pub dev: bool,
    /// Whether this agent is a server.
    pub server: bool,
    /// Whether this server may form a cluster of its own.
    pub bootstrap: bool,
    /// How many servers form the cluster; 0 when not given, 1 with [`Self::bootstrap`].
    pub bootstrap_expect: u32,
    /// The node's name.
    pub node_name: String,
    /// The node's id, a uuid in lower case; `None`: the one kept in the data directory, or a new one.
    pub node_id: Option<String>,
    /// Free key-value pairs of the node.
    pub node_meta: BTreeMap<String, String>,
    /// The datacenter's name, in lower case.
    pub datacenter: String,
    /// The datacenter that ACLs come from; [`Self::datacenter`] unless given.
    pub primary_datacenter: String,
    /// Where everything durable lives.
    pub data_dir: DataDir,
    /// Where peers are listened for.
    pub bind_addr: IpAddr,
    /// What peers and clients are told to reach this node at.
    pub advertise_addr: IpAddr,
    /// Where plain HTTP is served.
    pub http: Vec<Listen>,
    /// Where HTTPS is served.
    pub https: Vec<Listen>,
    /// All ports.
    pub ports: Ports,
    /// Permission bits of Unix sockets, `None` for what the umask gives.
    pub unix_socket_mode: Option<u32>,
    /// Certificate and key of HTTPS; present whenever [`Self::https`] is not empty.
    pub tls: Option<TlsFiles>,
    /// How servers prove to each other what they are, if by certificates.
    pub peer_tls: Option<PeerTls>,
    /// Headers of every HTTP answer.
    pub response_headers: HeaderMap,
    /// Paths that begin with one of these are refused.
    pub block_endpoints: Vec<String>,
    /// Networks that may write over HTTP; an empty list means all.
    pub allow_write_http_from: Vec<IpNet>,
    /// Origins whose pages may read answers; `*` stands for all.
    pub cors: Vec<HeaderValue>,
    /// Whether the web page is served.
    pub ui: bool,
    /// Set for a node of Raft-KV-Demo; no configuration key says so.
    pub demo: Option<Demo>,
    /// Bounds.
    pub limits: Limits,
    /// Access control.
    pub acl: Acl,
    /// 1 to 10; stretches the consensus timeouts.
    pub raft_multiplier: u32,
    /// Health of the group of servers.
    pub autopilot: Autopilot,
    /// Servers to join.
    pub retry_join: RetryJoin,
    /// Cluster key in base64.
    pub encrypt: Option<String>,
    /// Whether checks registered over HTTP may run scripts.
    pub enable_script_checks: bool,
    /// Whether checks from configuration files may run scripts; true with [`Self::enable_script_checks`].
    pub enable_local_script_checks: bool,
    /// SIGINT stops without leaving the cluster. Default: true for servers.
    pub skip_leave_on_interrupt: bool,
    /// SIGTERM leaves the cluster before it stops. Default: false for servers.
    pub leave_on_terminate: bool,
    /// Service definitions, as written.
    pub services: Vec<Value>,
    /// Check definitions, as written.
    pub checks: Vec<Value>,
    /// Logging.
    pub log: LogSettings,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// Keys that were set but belong to parts that Lictor does not have.
    pub absent_keys: Vec<String>,
}

/// Where everything durable lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// A folder that outlives the process.
    Kept(PathBuf),
    /// A new folder under the system's temporary one, removed at the end (development mode).
    Temporary,
}

/// Ports; `None` is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Plain HTTP.
    pub http: Option<u16>,
    /// HTTPS.
    pub https: Option<u16>,
    /// What peers and clients know the servers by.
    pub server: u16,
    /// Consul's gossip port; other servers' configurations name it in `retry_join`.
    pub serf_lan: Option<u16>,
    /// Where servers of other datacenters may join this one; nothing is configured at first.
    pub serf_wan: Option<u16>,
}

/// PEM files of the HTTPS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
    /// Authorities that client certificates are checked against.
    pub ca_file: Option<PathBuf>,
    /// Whether clients must present a certificate.
    pub verify_incoming: bool,
}

/// PEM files of the connections between servers, all of which show a certificate and check the other's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// Authorities that the servers' certificates come from.
    pub ca_file: PathBuf,
    /// This server's certificate chain.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// What servers' certificates are named below: each must have the name `server.<datacenter>.<domain>`.
    pub domain: String,
}

/// Bounds that an operator may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// HTTP connections of one client address; 0 for no limit.
    pub http_max_conns_per_client: usize,
    /// How long a TLS handshake may take.
    pub https_handshake_timeout: Duration,
    /// Bytes of one value.
    pub kv_max_value_size: usize,
    /// Operations of a transaction.
    pub txn_max_ops: usize,
    /// Bytes of a transaction's body.
    pub txn_max_req_len: usize,
    /// How long requests may take to finish when the server stops.
    pub leave_drain_time: Duration,
    /// Bytes of a request's head; `None` for the server's default.
    pub max_header_bytes: Option<usize>,
    /// Shortest session TTL.
    pub session_ttl_min: Duration,
    /// How long a blocking query waits that does not say.
    pub default_query_time: Duration,
    /// How long a blocking query waits at most.
    pub max_query_time: Duration,
    /// Bytes of a check's output that are kept.
    pub check_output_max_size: usize,
}

/// Access control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Whether tokens are looked at.
    pub enabled: bool,
    /// Whether what no rule names is allowed.
    pub default_allow: bool,
    /// What an agent does when it cannot reach a server to resolve a token.
    pub down_policy: String,
    /// How long a resolved token, policy and role are kept.
    pub ttl: Duration,
    /// The token that is created with all rights at the first start.
    pub initial_management: Option<String>,
    /// The token of requests that bring none.
    pub default: Option<String>,
    /// The token of the agent's own requests.
    pub agent: Option<String>,
    /// The token that works on this agent when no server is reachable.
    pub agent_recovery: Option<String>,
}

/// Health of the group of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autopilot {
    /// Whether failed servers are removed when a new one joins.
    pub cleanup_dead_servers: bool,
    /// Longest silence of a healthy server.
    pub last_contact_threshold: Duration,
    /// Most entries that a healthy server lags.
    pub max_trailing_logs: u64,
    /// Fewest servers that are left by removals.
    pub min_quorum: u32,
    /// How long a new server must be healthy before it votes.
    pub server_stabilization_time: Duration,
}

/// How a node of Raft-KV-Demo finds other nodes, and they it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demo {
    /// Where other nodes reach this one.
    pub raddr: HostPort,
    /// Where clients reach it.
    pub haddr: HostPort,
    /// Where clients reach a member of the cluster to join.
    pub join: Option<HostPort>,
    /// How long to try.
    pub join_timeout: Duration,
}

/// Servers to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryJoin {
    /// `ADDRESS` or `ADDRESS:PORT`.
    pub addresses: Vec<String>,
    /// Pause between two attempts, if one was asked for.
    pub interval: Option<Duration>,
    /// Most attempts without an answer of anybody; 0 is no end.
    pub max: u32,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The lowest level that is written.
    pub level: tracing::level_filters::LevelFilter,
    /// One JSON object a line.
    pub json: bool,
    /// A file to append to, besides standard error.
    pub file: Option<PathBuf>,
    /// Operations that take so long are told of; zero stands for none.
    pub slow_after: Duration,
}
