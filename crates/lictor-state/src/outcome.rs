//! What `apply` answers, and what it asks of the node around it.

mod wire;

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::SessionId;
use lictor_proto::v1::{
    CheckRow, KvTtlRow, LockDelayRow, LockWaitRow, NodeRow, PreparedQueryRow, QueueEntryRow, ServiceRow,
    SessionRow,
};

use crate::{Explained, KvRow, QueueAnswer, QueueLease};

/// The answer of one command. A refused cas or lock is an answer, not an error.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// `true`: done (or nothing to do). `false`: refused by cas, by the holder of a lock, or by a lock-delay.
    Bool(bool),
    /// A transaction's results or errors.
    Txn(TxnOutcome),
    /// What became of a fair queue.
    Queue(QueueAnswer),
    /// The command cannot be carried out; nothing changed.
    Failed(ApplyError),
    /// As `Bool`, with more for whoever asked for it; see [`State::explained`](crate::State::explained).
    Explained(Explained),
}

/// Why a command was refused by the state machine. The texts are Consul's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A lock verb without a session.
    #[error("missing session")]
    MissingSession,
    /// A lock verb with a session that does not exist.
    #[error("invalid session {}", crate::quote::quote(.0.as_bytes()))]
    InvalidSession(String),
    /// A session or service on a node that is not registered.
    #[error("Missing node registration")]
    MissingNode,
    /// A session bound to an unknown check.
    #[error("Missing check '{0}' registration")]
    MissingCheck(String),
    /// A session bound to a critical check.
    #[error("Check '{0}' is in critical state")]
    CriticalCheck(String),
    /// Any other refusal, in Consul's words.
    #[error("{0}")]
    Other(String),
}

/// The outcome of a transaction: `errors` empty means that it was committed.
#[derive(Debug, Clone, Default)]
pub struct TxnOutcome {
    /// One entry per operation that answers with a row.
    pub results: Vec<TxnResult>,
    /// One entry per failed operation.
    pub errors: Vec<TxnError>,
}

/// One row in a transaction's answer.
#[derive(Debug, Clone)]
pub enum TxnResult {
    /// A KV row; its value is shown for the get verbs only. For get-or-empty on a missing key the operation itself as a row.
    Kv {
        /// The row after the operation.
        row: KvRow,
        /// Whether the value is part of the answer.
        with_value: bool,
    },
    /// A node row.
    Node(Arc<NodeRow>),
    /// A service row.
    Service(Arc<ServiceRow>),
    /// A check row.
    Check(Arc<CheckRow>),
}

/// A failed operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnError {
    /// Position of the operation.
    pub op_index: usize,
    /// Consul's text.
    pub what: String,
}

/// What one or more applied commands ask of the node. The caller clears and reuses it.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the leader's timers, in log order.
    pub events: Vec<Effect>,
    /// For the watch registry.
    pub dirty: Vec<Dirty>,
    /// For the durable copy, in order.
    pub writes: Vec<Write>,
}

impl Effects {
    /// Forgets everything; keeps the room.
    pub fn clear(&mut self) {
        self.events.clear();
        self.dirty.clear();
        self.writes.clear();
    }
}

/// A change that the leader's session manager turns into timers; followers drop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A session began; `ttl_ms` 0 means that it does not expire.
    SessionCreated {
        /// The session.
        id: SessionId,
        /// Its TTL in milliseconds.
        ttl_ms: u64,
        /// Whether it ends one TTL after its last renewal, and not two.
        ttl_exact: bool,
    },
    /// A session ended, for whatever reason.
    SessionGone {
        /// The session.
        id: SessionId,
    },
    /// A key may not be acquired for a while.
    LockDelay {
        /// The key.
        key: Bytes,
        /// The visible index at which the delay was set.
        set_index: u64,
        /// Its length in milliseconds, already capped.
        delay_ms: u64,
    },
    /// A lock-delay row was removed.
    LockDelayGone {
        /// The key.
        key: Bytes,
        /// The index that the removed delay was set at.
        set_index: u64,
    },
    /// A key is to be deleted after a while.
    KvTtl {
        /// The key.
        key: Bytes,
        /// The visible index at which the TTL was set.
        set_index: u64,
        /// Its length in milliseconds.
        ttl_ms: u64,
    },
    /// A key has its TTL no more.
    KvTtlGone {
        /// The key.
        key: Bytes,
        /// The index that the TTL was set at.
        set_index: u64,
    },
    /// A tombstone was written at this index.
    Tombstone {
        /// The visible index.
        index: u64,
    },
    /// The lease of an entry of a fair queue begins.
    QueueLease(QueueLease),
    /// An entry left its queue.
    QueueGone {
        /// The entry.
        index: u64,
    },
    /// A request that may have stood in line for the lock of a key has it.
    LockGranted {
        /// The request.
        request: Bytes,
        /// Its place in the line; absent if it had the lock at once.
        place: Option<u64>,
        /// What there is to say of the key.
        granted: Explained,
    },
    /// Nobody stands in line for some fair lock since this index.
    QueueFree {
        /// The visible index.
        index: u64,
    },
}

/// Parts of the state beside KV that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// One session: its 16 bytes.
    Session,
    /// The sessions of a node: its lower-case name.
    SessionsOfNode,
    /// The whole session table.
    Sessions,
    /// One node, its services and checks: its lower-case name.
    Node,
    /// The node table.
    Nodes,
    /// The instances of a service with their nodes and checks: its lower-case name.
    Service,
    /// The service table.
    Services,
    /// The check table.
    Checks,
    /// The table of prepared queries.
    PreparedQueries,
    /// One entry of a fair queue, granted or gone, or one place in a line for a key's lock: the 8 bytes of its index.
    Queue,
    /// All fair queues.
    Queues,
    /// All lines for the locks of keys.
    LockWaits,
}

/// What changed, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dirty {
    /// One key: wakes waiters of the key and of every prefix of it.
    Key(Bytes),
    /// All keys below a prefix: wakes waiters of keys and prefixes below it and of every prefix of it.
    Tree(Bytes),
    /// One row, or for the table areas the table itself (key empty).
    Row(Area, Bytes),
    /// Everything, after a restore.
    All,
}

/// One row to write to, or remove from, the durable copy.
#[derive(Debug, Clone)]
pub enum Write {
    /// A KV row, keyed by its key.
    Kv(KvRow),
    /// Removes a KV row.
    KvGone(Bytes),
    /// Removes the KV rows below a prefix (rule R12).
    KvTreeGone(Bytes),
    /// A tombstone of one key.
    Tombstone {
        /// The deleted key.
        key: Bytes,
        /// The visible index of the delete.
        index: u64,
    },
    /// The mark of a recursive delete.
    TreeMark {
        /// The prefix.
        prefix: Bytes,
        /// The visible index of the delete.
        index: u64,
    },
    /// Removes a tombstone.
    TombstoneGone(Bytes),
    /// Removes the tombstones below a prefix.
    TombstoneTreeGone(Bytes),
    /// Removes a tree mark.
    TreeMarkGone(Bytes),
    /// Removes the tree marks below a prefix.
    TreeMarkTreeGone(Bytes),
    /// A session.
    Session(Arc<SessionRow>),
    /// Removes a session.
    SessionGone(SessionId),
    /// A lock-delay.
    LockDelay(LockDelayRow),
    /// Removes a lock-delay.
    LockDelayGone(Bytes),
    /// A node.
    Node(Arc<NodeRow>),
    /// Removes a node.
    NodeGone(String),
    /// A service.
    Service(Arc<ServiceRow>),
    /// Removes a service: node, id.
    ServiceGone(String, String),
    /// A check.
    Check(Arc<CheckRow>),
    /// Removes a check: node, check id.
    CheckGone(String, String),
    /// A prepared query.
    PreparedQuery(Arc<PreparedQueryRow>),
    /// Removes a prepared query: its id.
    PreparedQueryGone(Bytes),
    /// An entry of a fair queue.
    Queue(Arc<QueueEntryRow>),
    /// Removes an entry of a fair queue: name, index.
    QueueGone(Bytes, u64),
    /// The name of a fair lock that nobody stands in line for.
    QueueFree {
        /// The name.
        name: Bytes,
        /// The visible index since when.
        index: u64,
    },
    /// Removes the name of a fair lock from those.
    QueueFreeGone(Bytes),
    /// The TTL of a key.
    KvTtl(KvTtlRow),
    /// Removes the TTL of a key.
    KvTtlGone(Bytes),
    /// Removes the TTLs of all keys below a prefix.
    KvTtlTreeGone(Bytes),
    /// A place in the line for a key's lock.
    LockWait(Arc<LockWaitRow>),
    /// Removes such a place: key, index.
    LockWaitGone(Bytes, u64),
}
