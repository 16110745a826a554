//! Prepared queries.

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::SessionId;
use lictor_proto::v1::{self, PreparedQueryRow};

use super::Apply;
use crate::{ApplyError, Area, Write};

impl Apply<'_> {
    /// Writes a prepared query whose id its proposer has settled. Its name must be no other's, and its session must live.
    pub(super) fn query_set(&mut self, set: &v1::PreparedQuerySet) -> Result<bool, ApplyError> {
        let missing = || ApplyError::Other("missing prepared query".to_owned());
        let row = set
            .query
            .as_ref()
            .filter(|row| row.id.len() == 16)
            .ok_or_else(missing)?;
        self.check_query(row)?;
        let old = self.state.queries.get(&row.id);
        let row = Arc::new(PreparedQueryRow {
            // The command's bytes are part of its log entry, which a row must not keep in memory.
            id: Bytes::copy_from_slice(&row.id),
            create_index: old.map_or(self.index, |old| old.create_index),
            modify_index: self.index,
            ..row.clone()
        });
        self.state.queries.add(&row);
        self.queries_changed();
        self.write(Write::PreparedQuery(row));
        Ok(true)
    }

    fn check_query(&self, row: &PreparedQueryRow) -> Result<(), ApplyError> {
        let (queries, name) = (&self.state.queries, &row.name);
        let refused = |text: String| Err(ApplyError::Other(text));
        let needs_name = !name.is_empty() || row.is_template;
        if needs_name && queries.named(name).is_some_and(|other| other.id != row.id) {
            return refused(if name.is_empty() {
                "a query template with an empty name already exists".to_owned()
            } else {
                format!("name '{name}' aliases an existing query name")
            });
        }
        // Queries are looked up by their ids first: nobody may pass for another.
        let as_id = SessionId::parse(name);
        if as_id.is_some_and(|id| queries.get(&id.0).is_some()) {
            return refused(format!("name '{name}' aliases an existing query ID"));
        }
        let lives = SessionId::parse(&row.session).is_some_and(|id| self.state.sessions.get(id).is_some());
        if !row.session.is_empty() && !lives {
            return Err(ApplyError::InvalidSession(row.session.clone()));
        }
        Ok(())
    }

    /// Removes a prepared query; it is no error if there is none.
    pub(super) fn query_delete(&mut self, id: &[u8]) -> bool {
        if self.state.queries.remove(id).is_some() {
            self.queries_changed();
            self.write(Write::PreparedQueryGone(Bytes::copy_from_slice(id)));
        }
        true
    }

    /// Removes the prepared queries that are bound to a session.
    pub(super) fn end_queries_of_session(&mut self, session: SessionId) {
        for id in self.state.queries.of_session(session) {
            self.query_delete(&id);
        }
    }

    fn queries_changed(&mut self) {
        self.state.indexes.prepared_queries = self.index;
        self.touch(Area::PreparedQueries, Bytes::new());
    }
}
