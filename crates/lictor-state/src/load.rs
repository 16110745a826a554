//! Rebuilding the state from its rows, at start and from a snapshot.

use lictor_proto::v1::MetaRow;
use lictor_proto::{LogIndex, SessionId, Term};

use crate::key::{Key, Kind, reap_key};
use crate::row::{Entry, KvRow, Mark};
use crate::tree::{Builder, Row, Tree};
use crate::{CodecError, State, Table, Write};

/// Why rows do not make a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Rows of a table did not come in the order of their keys.
    #[error("rows of table {} are out of order", .0.name())]
    OutOfOrder(Table),
    /// A write that removes rows.
    #[error("not a row of table {}", .0.name())]
    NotARow(Table),
    /// Bytes that are no row.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Takes the rows of each table in the order of their keys, the tables in any order, and builds the state.
/// Derived tables and subtree maxima are rebuilt, not stored.
#[derive(Default)]
pub struct Loader {
    state: State,
    kv: Builder<KvRow>,
    tombstones: Builder<Mark>,
    tree_marks: Builder<Mark>,
    held: Vec<Mark>,
    reap: Vec<Mark>,
}

impl Loader {
    /// A loader for a state that stands at `meta`.
    pub fn new(meta: &MetaRow) -> Self {
        let mut state = State {
            applied: (LogIndex(meta.applied_index), Term(meta.applied_term)),
            index_offset: meta.index_offset,
            restored_at: meta.restored_index,
            session_ttl_min_ms: meta.session_ttl_min_ms,
            ..State::default()
        };
        state.indexes = meta.indexes.unwrap_or_default();
        Self {
            state,
            ..Self::default()
        }
    }

    /// Takes a row as its table holds it.
    ///
    /// # Errors
    /// As for [`Self::push`], and [`LoadError::Codec`] for bytes that are no row.
    pub fn push_bytes(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        self.push(Write::decode(table, key, value)?)
    }

    /// Takes a row.
    ///
    /// # Errors
    /// [`LoadError::OutOfOrder`] for a row that does not come after the last of its table,
    /// [`LoadError::NotARow`] for a write that removes rows.
    pub fn push(&mut self, write: Write) -> Result<(), LoadError> {
        let table = write.table();
        let in_order = match write {
            Write::Kv(row) => {
                if let Some(id) = row.session().and_then(SessionId::parse) {
                    self.held
                        .push(Mark::new(&Key::session(id).and_bytes(row.key()), 0));
                }
                self.kv.push(row).is_ok()
            }
            Write::Tombstone { key, index } => {
                self.reap
                    .push(Mark::new(&reap_key(index, Kind::Tombstone, &key), index));
                self.tombstones.push(Mark::new(&key, index)).is_ok()
            }
            Write::TreeMark { prefix, index } => {
                self.reap
                    .push(Mark::new(&reap_key(index, Kind::TreeMark, &prefix), index));
                self.tree_marks.push(Mark::new(&prefix, index)).is_ok()
            }
            Write::Session(row) => self.state.sessions.add(&row).is_none(),
            Write::LockDelay(row) => self
                .state
                .kv
                .lock_delays
                .insert(Entry::new(&row.key.clone(), row.into()))
                .is_none(),
            Write::KvTtl(row) => self
                .state
                .kv
                .ttls
                .insert(Entry::new(&row.key.clone(), row.into()))
                .is_none(),
            Write::Node(row) => self.state.catalog.add_node(&row).is_none(),
            Write::Service(row) => self.state.catalog.add_service(&row).is_none(),
            Write::Check(row) => self.state.catalog.add_check(&row).is_none(),
            Write::PreparedQuery(row) => self.state.queries.add(&row).is_none(),
            Write::LockWait(row) => self.state.kv.lines.add(&row).is_none(),
            Write::Queue(row) => self.state.queues.add(&row).is_none(),
            Write::QueueFree { name, index } => self.state.queues.add_free(&name, index),
            _ => return Err(LoadError::NotARow(table)),
        };
        if in_order {
            Ok(())
        } else {
            Err(LoadError::OutOfOrder(table))
        }
    }

    /// The finished state.
    pub fn finish(self) -> State {
        let mut state = self.state;
        state.kv.rows = self.kv.finish();
        state.kv.tombstones = self.tombstones.finish();
        state.kv.tree_marks = self.tree_marks.finish();
        state.kv.held = sorted(self.held);
        state.kv.reap = sorted(self.reap);
        state.catalog.rebuild_indexes(&state.indexes);
        state
    }
}

impl State {
    /// Compares the derived tables with those that the rows make, which is slow; names the first that differs.
    ///
    /// # Errors
    /// The name of the table.
    pub fn verify(&self) -> Result<(), &'static str> {
        let mut loader = Loader::new(&self.meta());
        for row in self.dump() {
            loader.push(row).map_err(|_| "rows")?;
        }
        let fresh = loader.finish();
        let (catalog, other) = (&self.catalog, &fresh.catalog);
        let tables = [
            ("held", same(&self.kv.held, &fresh.kv.held)),
            ("reap", same(&self.kv.reap, &fresh.kv.reap)),
            (
                "sessions by node",
                same(&self.sessions.by_node, &fresh.sessions.by_node),
            ),
            (
                "sessions by check",
                same(&self.sessions.by_check, &fresh.sessions.by_check),
            ),
            ("nodes by id", same(&catalog.nodes_by_id, &other.nodes_by_id)),
            (
                "services by name",
                same(&catalog.services_by_name, &other.services_by_name),
            ),
            (
                "checks by service",
                same(&catalog.checks_by_service, &other.checks_by_service),
            ),
            (
                "service indexes",
                same(&catalog.service_indexes, &other.service_indexes),
            ),
            (
                "queries by name",
                same(&self.queries.by_name, &fresh.queries.by_name),
            ),
            (
                "queries by session",
                same(&self.queries.by_session, &fresh.queries.by_session),
            ),
            (
                "queues by value",
                same(&self.queues.by_value, &fresh.queues.by_value),
            ),
            (
                "queues by request",
                same(&self.queues.by_request, &fresh.queues.by_request),
            ),
            (
                "lines by session",
                same(&self.kv.lines.by_session, &fresh.kv.lines.by_session),
            ),
            (
                "lines by request",
                same(&self.kv.lines.by_request, &fresh.kv.lines.by_request),
            ),
            ("node indexes", same(&catalog.node_indexes, &other.node_indexes)),
        ];
        tables
            .iter()
            .find(|(_, same)| !same)
            .map_or(Ok(()), |(name, _)| Err(*name))
    }
}

fn same<R: Row>(one: &Tree<R>, other: &Tree<R>) -> bool {
    one.iter().map(Row::key).eq(other.iter().map(Row::key))
}

fn sorted(mut rows: Vec<Mark>) -> Tree<Mark> {
    rows.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    let mut builder = Builder::default();
    for row in rows {
        let pushed = builder.push(row);
        debug_assert!(pushed.is_ok(), "keys that hold a table's own keys are distinct");
    }
    builder.finish()
}
