//! The replicated state machine: KV rows, locks, sessions, transactions, fair queues, the catalog and prepared queries.
//!
//! It is a pure function of (state, index, command): no clock, no randomness, no I/O, no map with a random order.
//! The rows stand in ordered, persistent (copy-on-write) tables in memory, so a [`State`] clones in constant time
//! and a clone is a consistent snapshot; `lictor-store` keeps the durable copy behind it. It owns no threads.
//!
//! ```text
//!                         ┌──────────── State ────────────┐
//! Command ──apply──>      │ kv      tombstones  tree marks │ ──> Outcome            to the proposer
//!   (index, term)         │ held    lock delays    lines   │ ──> Effects::writes    to the durable copy
//!                         │ sessions (by node, by check)   │ ──> Effects::dirty     to the watch registry
//!  readers <──clone───    │ nodes   services    checks     │ ──> Effects::events    to the leader's timers
//!                         │ fair queues   prepared queries │
//!                         └───────────────────────────────┘
//! ```
//!
//! ```
//! use lictor_proto::{Command, LogIndex, Term, v1::KvSet};
//! use lictor_state::{Effects, Outcome, State};
//!
//! let (mut state, mut effects) = (State::default(), Effects::default());
//! let set = Command::KvSet(KvSet { key: "a/b".into(), value: "1".into(), flags: 0, cas: Some(0) });
//! let before = state.clone();
//!
//! assert!(matches!(state.apply(LogIndex(7), Term(1), &set, &mut effects), Outcome::Bool(true)));
//!
//! assert_eq!(state.kv_get(b"a/b").unwrap().modify_index(), 7);
//! assert!(before.kv_get(b"a/b").is_none());
//! ```
//!
//! All writes of a command carry one index, the *visible index*: its place in the log plus the index offset.
//! A command that changes nothing leaves no trace but the applied index.

mod changes;
mod cmd;
mod codec;
mod digest;
mod explain;
mod key;
mod line;
mod load;
mod outcome;
mod queue;
mod quote;
mod restore;
mod row;
pub mod snapshot;
mod tables;
mod tree;

pub use changes::{Change, Span};
pub use codec::{Action, CodecError, Table};
pub use explain::{Explained, Refused};
pub use key::fold_name;
pub use load::{LoadError, Loader};
pub use outcome::{
    ApplyError, Area, Dirty, Effect, Effects, Outcome, TxnError, TxnOutcome, TxnResult, Write,
};
pub use queue::{QueueAnswer, QueueLease};
pub use restore::ARCHIVE_INDEX_MAX;
pub use row::{KvParts, KvRow};
pub use tree::prefix_end;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use lictor_proto::limits::SESSION_TTL_MIN;
use lictor_proto::v1::{
    CheckRow, KvTtlRow, LockDelayRow, MetaRow, NodeRow, PreparedQueryRow, ServiceRow, SessionRow,
    TableIndexes,
};
use lictor_proto::{Command, ConsulIndex, LogIndex, SessionId, Term, v1};

use key::Key;
use queue::QueueTables;
use tables::{Catalog, KvTables, QueryTables, SessionTables};
use tree::Row;

/// All replicated state at one applied index. Cloning is cheap and gives a snapshot.
#[derive(Clone, Debug, Default)]
pub struct State {
    applied: (LogIndex, Term),
    index_offset: u64,
    /// The entry at which all of it was replaced, if that happened since the start.
    replaced_at: LogIndex,
    /// The visible index at which an archive took the place of all rows; 0 if never. What was before it says nothing
    /// about these rows.
    restored_at: u64,
    /// The shortest TTL of a session in milliseconds, as a leader last set it; 0 if none ever did.
    session_ttl_min_ms: u64,
    indexes: TableIndexes,
    kv: KvTables,
    sessions: SessionTables,
    catalog: Catalog,
    queries: QueryTables,
    queues: QueueTables,
}

impl State {
    /// Applies one committed command. Deterministic: the same log gives the same state on every node.
    pub fn apply(&mut self, at: LogIndex, term: Term, command: &Command, out: &mut Effects) -> Outcome {
        let outcome = cmd::Apply::new(self, at, out).run(command);
        self.applied = (at, term);
        outcome
    }

    /// Advances the applied index over an entry that carries no command (a new leader's no-op, a skipped kind).
    pub fn apply_empty(&mut self, at: LogIndex, term: Term) {
        self.applied = (at, term);
    }

    /// The last applied entry.
    pub fn applied(&self) -> (LogIndex, Term) {
        self.applied
    }

    /// The parts of the meta row that the state knows; the rest is left at its defaults.
    pub fn meta(&self) -> MetaRow {
        MetaRow {
            applied_index: self.applied.0.0,
            applied_term: self.applied.1.0,
            index_offset: self.index_offset,
            indexes: Some(self.indexes),
            restored_index: self.restored_at,
            session_ttl_min_ms: self.session_ttl_min_ms,
            ..MetaRow::default()
        }
    }

    /// The index at which each table last changed.
    pub fn table_indexes(&self) -> TableIndexes {
        self.indexes
    }

    /// The index under which clients see a log entry.
    pub fn visible(&self, at: LogIndex) -> ConsulIndex {
        ConsulIndex(at.0 + self.index_offset)
    }

    /// One key.
    pub fn kv_get(&self, key: &[u8]) -> Option<&KvRow> {
        self.kv.rows.get(key)
    }

    /// How many keys there are.
    pub fn kv_len(&self) -> usize {
        self.kv.rows.len()
    }

    /// The rows below a prefix in byte order.
    pub fn kv_list<'a>(&'a self, prefix: &'a [u8]) -> Box<dyn Iterator<Item = &'a KvRow> + 'a> {
        self.kv_list_from(prefix, prefix)
    }

    /// The same without what comes before `from`, which does not lie before the prefix.
    pub fn kv_list_from<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &[u8],
    ) -> Box<dyn Iterator<Item = &'a KvRow> + 'a> {
        let rows = self.kv.rows.range(from);
        Box::new(rows.take_while(move |row| row.key().starts_with(prefix)))
    }

    /// The rows below a prefix in descending order, without those at or after `before`.
    pub fn kv_list_back<'a>(
        &'a self,
        prefix: &'a [u8],
        before: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = &'a KvRow> + 'a> {
        let end = prefix_end(prefix);
        let low = match (end.as_deref(), before) {
            (Some(end), Some(before)) => Some(end.min(before)),
            (end, before) => end.or(before),
        };
        let rows = self.kv.rows.back(low);
        Box::new(rows.take_while(move |row| row.key().starts_with(prefix)))
    }

    /// The keys below a prefix, folded after the first `separator` beyond it; seeks past folded keys.
    /// An empty separator folds nothing. Calls `each` once per name, in order, from the key `from` on, which does not
    /// lie before the prefix. When `each` breaks, answers the key to go on from; `None` at the end.
    pub fn kv_keys(
        &self,
        prefix: &[u8],
        separator: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Option<Vec<u8>> {
        let mut rows = self.kv.rows.range(from);
        while let Some(row) = rows.next() {
            let key = row.key();
            let rest = key.strip_prefix(prefix)?;
            match find(rest, separator).filter(|_| !separator.is_empty()) {
                None => {
                    if each(key).is_break() {
                        return Some([key, b"\0"].concat());
                    }
                }
                Some(at) => {
                    let name = &key[..prefix.len() + at + separator.len()];
                    let flow = each(name);
                    let end = prefix_end(name)?;
                    if flow.is_break() {
                        return Some(end);
                    }
                    rows.seek(&end);
                }
            }
        }
        None
    }

    /// X-Consul-Index of a list below `prefix`: rules R10 and R11 (rows, tombstones, tree-delete marks at any
    /// ancestor, the tombstone horizon); the table's index for "" and where nothing was ever found.
    ///
    /// It never goes back: reaping replaces tombstones by the horizon, which is not below them, and a recursive
    /// delete replaces what lay below it by its mark; the table's index, which answers for prefixes without a
    /// trace, is below whatever is written there later.
    pub fn kv_list_index(&self, prefix: &[u8]) -> ConsulIndex {
        let table = self.kv_table_index();
        if prefix.is_empty() {
            return table;
        }
        match self.below(prefix) {
            0 => table,
            found => ConsulIndex(found.max(self.indexes.tombstone_horizon)),
        }
    }

    /// The highest index of rows, tombstones and marks below a prefix, and of marks above it; 0 without any.
    fn below(&self, prefix: &[u8]) -> u64 {
        let kv = &self.kv;
        let rows = kv.rows.max_in(prefix).max(kv.tombstones.max_in(prefix));
        rows.max(kv.tree_marks.max_in(prefix))
            .max(self.ancestor_mark(prefix))
    }

    /// The highest index of the recursive deletes at `prefix` and its ancestors; 0 without any.
    fn ancestor_mark(&self, prefix: &[u8]) -> u64 {
        let (mut best, mut key) = (0, prefix);
        while let Some(mark) = self.kv.tree_marks.floor(key) {
            let shared = key.iter().zip(mark.key()).take_while(|(a, b)| a == b).count();
            if shared < mark.key().len() {
                // No ancestor of `key` is longer than what it shares with the mark before it.
                key = &key[..shared];
            } else {
                best = best.max(mark.index());
                let Some(shorter) = shared.checked_sub(1) else {
                    return best;
                };
                key = &key[..shorter];
            }
        }
        best
    }

    /// X-Consul-Index of a missing key: the highest index of the KV table and its tombstones, at least 1.
    pub fn kv_table_index(&self) -> ConsulIndex {
        at_least_one(self.indexes.kv.max(self.indexes.tombstones))
    }

    /// The highest index of a tombstone that was reaped: below it the past of a key is forgotten (rule R14).
    pub fn tombstone_horizon(&self) -> ConsulIndex {
        ConsulIndex(self.indexes.tombstone_horizon)
    }

    /// The highest index of a tombstone or tree mark that waits to be reaped.
    pub fn newest_tombstone(&self) -> Option<ConsulIndex> {
        let newest = self.kv.reap.floor(&u64::MAX.to_be_bytes())?;
        Some(ConsulIndex(newest.index()))
    }

    /// The keys that sessions hold, by session.
    pub fn kv_held(&self) -> impl Iterator<Item = &KvRow> {
        let keys = self
            .kv
            .held
            .iter()
            .map(|mark| &mark.key()[size_of::<SessionId>()..]);
        keys.filter_map(|key| self.kv.rows.get(key))
    }

    /// The lock-delays that have not ended, by key.
    pub fn lock_delays(&self) -> impl Iterator<Item = &LockDelayRow> {
        self.kv.lock_delays.iter().map(|entry| &*entry.row)
    }

    /// The TTLs of keys, by key.
    pub fn kv_ttls(&self) -> impl Iterator<Item = &KvTtlRow> {
        self.kv.ttls.iter().map(|entry| &*entry.row)
    }

    /// Evaluates a transaction that writes nothing.
    pub fn txn_read(&self, txn: &v1::Txn) -> TxnOutcome {
        cmd::txn_read(self, txn)
    }

    /// The operation with which the rows that a transaction would read now take more than `max_bytes` on their way to
    /// another server; `None` if they do not. What it writes itself is not counted.
    pub fn txn_reads_over(&self, txn: &v1::Txn, max_bytes: usize) -> Option<usize> {
        cmd::txn_reads_over(self, txn, max_bytes)
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<&Arc<SessionRow>> {
        self.sessions.get(id)
    }

    /// All sessions in the order of their ids.
    pub fn sessions(&self) -> Box<dyn Iterator<Item = &Arc<SessionRow>> + '_> {
        Box::new(self.sessions.rows.iter().map(|entry| &entry.row))
    }

    /// The sessions of one node (name as registered, compared without regard to case as Consul does).
    pub fn sessions_of_node<'a>(&'a self, node: &str) -> Box<dyn Iterator<Item = &'a Arc<SessionRow>> + 'a> {
        below(&self.sessions.by_node, Key::name(node))
    }

    /// The shortest TTL that a session may have.
    pub fn session_ttl_min(&self) -> Duration {
        match self.session_ttl_min_ms {
            0 => SESSION_TTL_MIN,
            ms => Duration::from_millis(ms),
        }
    }

    /// The index of the session table, at least 1.
    pub fn sessions_index(&self) -> ConsulIndex {
        at_least_one(self.indexes.sessions)
    }

    /// One node by name.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeRow>> {
        self.catalog.node(name)
    }

    /// One node by its id.
    pub fn node_by_id(&self, id: &str) -> Option<&Arc<NodeRow>> {
        self.catalog.node_by_id(id)
    }

    /// All nodes by name.
    pub fn nodes(&self) -> Box<dyn Iterator<Item = &Arc<NodeRow>> + '_> {
        Box::new(self.catalog.nodes.iter().map(|entry| &entry.row))
    }

    /// One service instance.
    pub fn service(&self, node: &str, id: &str) -> Option<&Arc<ServiceRow>> {
        self.catalog.service(node, id)
    }

    /// All service instances, ordered by node and id.
    pub fn services(&self) -> Box<dyn Iterator<Item = &Arc<ServiceRow>> + '_> {
        Box::new(self.catalog.services.iter().map(|entry| &entry.row))
    }

    /// The instances of one service, by node and id.
    pub fn services_named<'a>(&'a self, name: &str) -> Box<dyn Iterator<Item = &'a Arc<ServiceRow>> + 'a> {
        below(&self.catalog.services_by_name, Key::name(name))
    }

    /// The services on one node, by id.
    pub fn services_of_node<'a>(&'a self, node: &str) -> Box<dyn Iterator<Item = &'a Arc<ServiceRow>> + 'a> {
        below(&self.catalog.services, Key::name(node))
    }

    /// One check.
    pub fn check(&self, node: &str, check_id: &str) -> Option<&Arc<CheckRow>> {
        self.catalog.check(node, check_id)
    }

    /// All checks, by node and check id.
    pub fn checks(&self) -> Box<dyn Iterator<Item = &Arc<CheckRow>> + '_> {
        Box::new(self.catalog.checks.iter().map(|entry| &entry.row))
    }

    /// The checks on one node, by check id, those of services included.
    pub fn checks_of_node<'a>(&'a self, node: &str) -> Box<dyn Iterator<Item = &'a Arc<CheckRow>> + 'a> {
        below(&self.catalog.checks, Key::name(node))
    }

    /// The checks of one service instance, by check id; those of the node itself for the id "".
    pub fn checks_of_service<'a>(
        &'a self,
        node: &str,
        id: &str,
    ) -> Box<dyn Iterator<Item = &'a Arc<CheckRow>> + 'a> {
        below(&self.catalog.checks_by_service, Key::name(node).and_name(id))
    }

    /// The index of one catalog area as a whole (Nodes, Services or Checks), at least 1. A single row's area
    /// answers for its whole table, since the index of what was removed is not kept.
    pub fn area_index(&self, area: Area) -> ConsulIndex {
        let all = &self.indexes;
        at_least_one(match area {
            Area::Session | Area::SessionsOfNode | Area::Sessions => all.sessions,
            Area::Nodes => all.nodes,
            Area::Services => all.services,
            Area::Checks => all.checks,
            Area::PreparedQueries => all.prepared_queries,
            Area::Queue | Area::Queues => all.queues,
            Area::LockWaits => all.lock_waits,
            Area::Node | Area::Service => all.nodes.max(all.services).max(all.checks),
        })
    }

    /// One prepared query, by the 16 bytes of its id.
    pub fn prepared_query(&self, id: &[u8]) -> Option<&Arc<PreparedQueryRow>> {
        self.queries.get(id)
    }

    /// The prepared query that answers for a name: the one of this name, else the template with the longest name that
    /// it begins with.
    pub fn prepared_query_for(&self, name: &str) -> Option<&Arc<PreparedQueryRow>> {
        let named = || self.queries.named(name).filter(|_| !name.is_empty());
        named().or_else(|| self.queries.template_for(name))
    }

    /// All prepared queries in the order of their ids.
    pub fn prepared_queries(&self) -> Box<dyn Iterator<Item = &Arc<PreparedQueryRow>> + '_> {
        Box::new(self.queries.rows.iter().map(|entry| &entry.row))
    }

    /// The index of one service: of its instances, their checks and nodes, removals included. A service without
    /// instances has that of the service table.
    pub fn service_index(&self, name: &str) -> ConsulIndex {
        let known = self.catalog.service_indexes.get(&Key::name(name));
        at_least_one(known.map_or(self.indexes.services, Row::index))
    }

    /// The index of one node, its services and checks, removals included. An unknown node has that of the node
    /// table.
    pub fn node_index(&self, name: &str) -> ConsulIndex {
        let known = self.catalog.node_indexes.get(&Key::name(name));
        at_least_one(known.map_or(self.indexes.nodes, Row::index))
    }
}

fn at_least_one(index: u64) -> ConsulIndex {
    ConsulIndex(index.max(1))
}

fn below<'a, T>(
    tree: &'a tree::Tree<row::Entry<T>>,
    prefix: Key,
) -> Box<dyn Iterator<Item = &'a Arc<T>> + 'a> {
    let rows = tree.range(&prefix);
    Box::new(
        rows.take_while(move |entry| entry.key().starts_with(&prefix))
            .map(|entry| &entry.row),
    )
}

/// Where `needle` first occurs.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [byte] => text.iter().position(|b| b == byte),
        _ => text
            .windows(needle.len().max(1))
            .position(|window| window == needle),
    }
}
