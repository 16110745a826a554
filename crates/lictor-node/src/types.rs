//! What a node tells the layers above it, and the seam to its disk.

use lictor_proto::v1::{MetaRow, ServerRow};
use lictor_proto::{LogIndex, RaftId, Term};
use lictor_state::{State, Write};

/// How fresh a read must be (Consul: consistency modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Local, of any age.
    Stale,
    /// The leader under a lease, else a ReadIndex round.
    #[default]
    Default,
    /// Always linearizable, without a clock assumption.
    Consistent,
}

/// What a read may say about its freshness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMeta {
    /// Whether a leader is known.
    pub known_leader: bool,
    /// Milliseconds since this server last heard from the leader; 0 on the leader.
    pub last_contact_ms: u64,
}

/// Why a proposal did not produce an applied entry.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Nobody leads, and nobody did within the bounded wait.
    #[error("No cluster leader")]
    NoLeader,
    /// The queue is at its bound; nothing was proposed.
    #[error("too many proposals in flight")]
    Overloaded,
    /// The entry may or may not be committed. Never retried on the caller's behalf.
    #[error("outcome unknown: leadership changed")]
    OutcomeUnknown,
    /// The disk is full or failing; nothing was proposed.
    #[error("{0}")]
    Storage(String),
    /// The encoded command is over its bound.
    #[error("command of {0} bytes is over the limit")]
    TooLarge(usize),
    /// The transaction was carried out, but its results, of about so many bytes, cannot be sent from the leader to here.
    #[error(
        "the transaction was carried out, but its results of {0} bytes are too large to be sent from the leader: read \
         the keys"
    )]
    ResultsTooLarge(usize),
    /// The leader does not take this command, in Consul's words; nothing was proposed.
    #[error("{0}")]
    Refused(String),
    /// A lock verb met a lock-delay before anything was proposed; for a transaction the failed operations.
    #[error("lock-delay")]
    LockDelay(Vec<usize>),
    /// Another change of the members is under way; nothing was proposed.
    #[error("another change of the members is under way; try again")]
    ChangePending,
    /// The node is stopping.
    #[error("the server is shutting down")]
    Stopping,
}

/// Why a read cannot be served now.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nobody leads, and nobody did within the bounded wait.
    #[error("No cluster leader")]
    NoLeader,
    /// The state of this server was not that of the others, and it has not been fetched anew yet.
    #[error("this server rebuilds its state: ask another")]
    Rebuilding,
    /// The node is stopping.
    #[error("the server is shutting down")]
    Stopping,
}

/// Who this server is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Node name.
    pub node: String,
    /// Node id, a uuid as text.
    pub node_id: String,
    /// Datacenter name.
    pub datacenter: String,
    /// Advertised IP address.
    pub address: String,
    /// The server port that is shown in `/v1/status/leader`.
    pub server_port: u16,
    /// Where clients of the other servers are sent to for this one, `host:port`; empty where they are never sent.
    pub http_address: String,
}

#[cfg(test)]
impl Identity {
    pub(crate) fn of_a_test() -> Self {
        Self {
            node: "n".to_owned(),
            node_id: "11111111-2222-3333-4444-555555555555".to_owned(),
            datacenter: "dc1".to_owned(),
            address: "127.0.0.1".to_owned(),
            server_port: 8300,
            http_address: String::new(),
        }
    }
}

impl Identity {
    /// This server as a member of a cluster.
    pub fn server(&self, raft_id: RaftId) -> ServerRow {
        ServerRow {
            raft_id: raft_id.0,
            node_id: self.node_id.clone(),
            name: self.node.clone(),
            address: self.address.clone(),
            port: self.server_port.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http_address: self.http_address.clone(),
            http_address_given: false,
        }
    }
}

/// Where consensus stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// `address:port` of the leader, "" when unknown.
    pub leader: String,
    /// Whether this server leads.
    pub is_leader: bool,
    /// `address:port` of all voters.
    pub peers: Vec<String>,
    /// The current term.
    pub term: Term,
    /// Commit index.
    pub commit: LogIndex,
    /// Applied index.
    pub applied: LogIndex,
    /// Last index of the log.
    pub last: LogIndex,
}

/// One applied batch on its way to the durable copy of the state.
#[derive(Debug)]
pub struct WriteSet {
    /// Where the state stands after the batch; what the state does not know is left empty.
    pub meta: MetaRow,
    /// The encoded [`lictor_raft::Membership`], if it changed.
    pub members: Option<Vec<u8>>,
    /// Rows, in order.
    pub writes: Vec<Write>,
}

/// Why the durable copy of the state could not take a batch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The disk is full. Nothing is lost, since the raft log has it all; the same call may be made again later.
    #[error("{0}")]
    Full(String),
    /// The copy may not be trusted any more: the process must end and recover from the log.
    #[error("{0}")]
    Failed(String),
}

/// The durable copy of the state. All writes of a set and its applied index become durable together.
pub trait Checkpoint: Send + 'static {
    /// Takes a batch in; it need not be durable yet.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    fn write(&mut self, set: &WriteSet) -> Result<(), CheckpointError>;

    /// Replaces the whole copy by `state`, durably and all at once: a crash leaves the old copy or the new one. Without
    /// `members` those of the old one stay. Answers as for [`Self::flush`].
    ///
    /// # Errors
    /// See [`CheckpointError`].
    fn install(&mut self, state: &State, members: Option<&[u8]>) -> Result<LogIndex, CheckpointError>;

    /// Makes all that was taken in durable and answers the applied index that a restart will find at least.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    fn flush(&mut self) -> Result<LogIndex, CheckpointError>;

    /// Free bytes on the file system of the data directory, and the bytes it has in all.
    ///
    /// # Errors
    /// The operating system's error, as text.
    fn space(&self) -> Result<(u64, u64), String>;
}
