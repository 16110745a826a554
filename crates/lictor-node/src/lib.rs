//! The runtime of a Lictor server: pipeline threads, read gate, watch registry and session timers.
//!
//! It speaks to its disk through the `LogStore` of `lictor-raft` and the [`Checkpoint`] trait, so that it builds
//! and tests without RocksDB; the binary plugs `lictor-store` in.

mod watch;

pub use watch::{Registry, TooManyWaiters, Topic, Waiter};

use std::sync::Arc;

use lictor_proto::v1::SessionRow;
use lictor_proto::{Command, LogIndex, SessionId, Term};
use lictor_state::{Outcome, State, Write};

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
    /// A lock verb met a lock-delay before anything was proposed; for a transaction the failed operations.
    #[error("lock-delay")]
    LockDelay(Vec<usize>),
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
    /// The last entry of the batch.
    pub applied: (LogIndex, Term),
    /// Encoded raft ConfState, if it changed.
    pub conf_state: Option<Vec<u8>>,
    /// Table indexes after the batch.
    pub indexes: lictor_proto::v1::TableIndexes,
    /// Rows, in order.
    pub writes: Vec<Write>,
}

/// The durable copy of the state. All writes of a set and its applied index become durable together.
pub trait Checkpoint: Send + 'static {
    /// Takes a batch in; it need not be durable yet.
    ///
    /// # Errors
    /// A text that says what failed; the caller stops the process, since the copy may not be trusted.
    fn write(&mut self, set: &WriteSet) -> Result<(), String>;

    /// Makes all that was taken in durable and answers the applied index that a restart will find at least.
    ///
    /// # Errors
    /// As for [`Self::write`].
    fn flush(&mut self) -> Result<LogIndex, String>;
}

/// A running server. Cloning shares it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {}

impl Node {
    /// The state as last published by apply: a consistent snapshot.
    pub fn view(&self) -> Arc<State> {
        todo!()
    }

    /// Proposes a command and waits until it is committed, durable and applied here. Leader-only checks
    /// (lock-delays) happen on the way.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let _ = (command, &self.inner);
        todo!()
    }

    /// Answers at once where no waiting is needed, which is the usual case.
    pub fn try_read(&self, consistency: Consistency) -> Option<ReadMeta> {
        let _ = consistency;
        todo!()
    }

    /// Waits until a [`Self::view`] taken afterwards is fresh enough.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, consistency: Consistency) -> Result<ReadMeta, ReadError> {
        let _ = consistency;
        todo!()
    }

    /// Where blocking queries wait.
    pub fn watches(&self) -> &Registry {
        todo!()
    }

    /// Renews a session; `None` for an unknown one. Not logged.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] when no leader can vouch for it.
    pub async fn renew_session(&self, id: SessionId) -> Result<Option<Arc<SessionRow>>, ProposeError> {
        let _ = id;
        todo!()
    }

    /// Who this server is.
    pub fn identity(&self) -> &Identity {
        todo!()
    }

    /// Where consensus stands.
    pub fn status(&self) -> Status {
        todo!()
    }
}
