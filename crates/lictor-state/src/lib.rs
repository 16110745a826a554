//! The replicated state machine: KV rows, locks, sessions, transactions and the catalog rows that sessions need.
//!
//! It is a pure function of (state, index, command): no clock, no randomness, no I/O, no map with a random order.
//! The rows stand in ordered, persistent (copy-on-write) tables in memory, so a [`State`] clones in constant time
//! and a clone is a consistent snapshot; `lictor-store` keeps the durable copy behind it.

mod outcome;
mod row;

pub use outcome::{ApplyError, Area, Dirty, Effect, Effects, Outcome, TxnError, TxnOutcome, TxnResult, Write};
pub use row::KvRow;

use std::sync::Arc;

use lictor_proto::v1::{CheckRow, NodeRow, ServiceRow, SessionRow};
use lictor_proto::{Command, ConsulIndex, LogIndex, SessionId, Term, v1};

/// All replicated state at one applied index. Cloning is cheap and gives a snapshot.
#[derive(Clone, Debug, Default)]
pub struct State {}

impl State {
    /// Applies one committed command. Deterministic: the same log gives the same state on every node.
    pub fn apply(&mut self, at: LogIndex, term: Term, command: &Command, out: &mut Effects) -> Outcome {
        let _ = (at, term, command, out);
        todo!()
    }

    /// Advances the applied index over an entry that carries no command (a new leader's no-op, a skipped kind).
    pub fn apply_empty(&mut self, at: LogIndex, term: Term) {
        let _ = (at, term);
        todo!()
    }

    /// The last applied entry.
    pub fn applied(&self) -> (LogIndex, Term) {
        todo!()
    }

    /// One key.
    pub fn kv_get(&self, key: &[u8]) -> Option<&KvRow> {
        let _ = key;
        todo!()
    }

    /// The rows below a prefix in byte order.
    pub fn kv_list<'a>(&'a self, prefix: &'a [u8]) -> Box<dyn Iterator<Item = &'a KvRow> + 'a> {
        let _ = prefix;
        todo!()
    }

    /// The keys below a prefix, folded after the first `separator` beyond it; seeks past folded keys.
    /// An empty separator folds nothing. Calls `each` once per name, in order.
    pub fn kv_keys(&self, prefix: &[u8], separator: &[u8], each: &mut dyn FnMut(&[u8])) {
        let _ = (prefix, separator, each);
        todo!()
    }

    /// X-Consul-Index of a list below `prefix`: rules R10 and R11 (rows, tombstones, tree-delete marks at any
    /// ancestor, the tombstone horizon); the table's index for "" and where nothing was ever found.
    pub fn kv_list_index(&self, prefix: &[u8]) -> ConsulIndex {
        let _ = prefix;
        todo!()
    }

    /// X-Consul-Index of a missing key: the highest index of the KV table and its tombstones, at least 1.
    pub fn kv_table_index(&self) -> ConsulIndex {
        todo!()
    }

    /// Evaluates a transaction that writes nothing.
    pub fn txn_read(&self, txn: &v1::Txn) -> TxnOutcome {
        let _ = txn;
        todo!()
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<&Arc<SessionRow>> {
        let _ = id;
        todo!()
    }

    /// All sessions in the order of their ids.
    pub fn sessions(&self) -> Box<dyn Iterator<Item = &Arc<SessionRow>> + '_> {
        todo!()
    }

    /// The sessions of one node (name as registered, compared without regard to case as Consul does).
    pub fn sessions_of_node<'a>(&'a self, node: &str) -> Box<dyn Iterator<Item = &'a Arc<SessionRow>> + 'a> {
        let _ = node;
        todo!()
    }

    /// The index of the session table, at least 1.
    pub fn sessions_index(&self) -> ConsulIndex {
        todo!()
    }

    /// One node by name.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeRow>> {
        let _ = name;
        todo!()
    }

    /// All nodes by name.
    pub fn nodes(&self) -> Box<dyn Iterator<Item = &Arc<NodeRow>> + '_> {
        todo!()
    }

    /// One service instance.
    pub fn service(&self, node: &str, id: &str) -> Option<&Arc<ServiceRow>> {
        let _ = (node, id);
        todo!()
    }

    /// All service instances, ordered by node and id.
    pub fn services(&self) -> Box<dyn Iterator<Item = &Arc<ServiceRow>> + '_> {
        todo!()
    }

    /// The instances of one service, by node and id.
    pub fn services_named<'a>(&'a self, name: &str) -> Box<dyn Iterator<Item = &'a Arc<ServiceRow>> + 'a> {
        let _ = name;
        todo!()
    }

    /// The services on one node, by id.
    pub fn services_of_node<'a>(&'a self, node: &str) -> Box<dyn Iterator<Item = &'a Arc<ServiceRow>> + 'a> {
        let _ = node;
        todo!()
    }

    /// One check.
    pub fn check(&self, node: &str, check_id: &str) -> Option<&Arc<CheckRow>> {
        let _ = (node, check_id);
        todo!()
    }

    /// All checks, by node and check id.
    pub fn checks(&self) -> Box<dyn Iterator<Item = &Arc<CheckRow>> + '_> {
        todo!()
    }

    /// The checks on one node, by check id, those of services included.
    pub fn checks_of_node<'a>(&'a self, node: &str) -> Box<dyn Iterator<Item = &'a Arc<CheckRow>> + 'a> {
        let _ = node;
        todo!()
    }

    /// The index of one catalog area as a whole (Nodes, Services or Checks), at least 1.
    pub fn area_index(&self, area: Area) -> ConsulIndex {
        let _ = area;
        todo!()
    }
}
