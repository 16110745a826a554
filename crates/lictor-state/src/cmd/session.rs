//! Sessions: their creation, and their end with all that hangs on it.

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::SessionId;
use lictor_proto::v1::{self, SessionRow};

use super::Apply;
use crate::key::Key;
use crate::tables::bound_checks;
use crate::tree::Row;
use crate::{ApplyError, Area, Effect, Write};

/// The status that ends sessions.
pub(super) const CRITICAL: &str = "critical";

impl Apply<'_> {
    /// Registers a session whose id, TTL and delay its proposer has settled. Its node must be registered, its
    /// checks too, and none of them critical.
    pub(super) fn session_create(&mut self, create: &v1::SessionCreate) -> Result<bool, ApplyError> {
        let row = create.session.as_ref().ok_or(ApplyError::MissingSession)?;
        let id = SessionId::from_slice(&row.id).ok_or(ApplyError::MissingSession)?;
        if self.state.sessions.get(id).is_some() {
            return Err(ApplyError::Other(format!("session {id} exists")));
        }
        let node = self
            .state
            .catalog
            .node(&row.node)
            .ok_or(ApplyError::MissingNode)?;
        for check in bound_checks(row) {
            if check.is_empty() {
                let what = "failed check lookup: index error: object is missing a value for this index";
                return Err(ApplyError::Other(what.to_owned()));
            }
            match self.state.catalog.check(&node.node, check) {
                None => return Err(ApplyError::MissingCheck(check.to_owned())),
                Some(row) if row.status == CRITICAL => {
                    return Err(ApplyError::CriticalCheck(check.to_owned()));
                }
                Some(_) => {}
            }
        }
        let row = Arc::new(SessionRow {
            // The command's bytes are part of its log entry, which a row must not keep in memory.
            id: Bytes::copy_from_slice(&row.id),
            create_index: self.index,
            modify_index: self.index,
            ..row.clone()
        });
        self.state.sessions.add(&row);
        self.session_changed(&row);
        self.event(Effect::SessionCreated {
            id,
            ttl_ms: row.ttl_ms,
            ttl_exact: row.ttl_exact,
        });
        self.write(Write::Session(row));
        Ok(true)
    }

    /// Ends a session; it is no error if there is none.
    pub(super) fn session_destroy(&mut self, id: &[u8]) -> bool {
        if let Some(id) = SessionId::from_slice(id) {
            self.end_session(id);
        }
        true
    }

    /// Ends the sessions that are bound to a check.
    pub(super) fn end_sessions_of_check(&mut self, node: &str, check: &str) {
        for id in self.state.sessions.of_check(node, check) {
            self.end_session(id);
        }
    }

    /// Ends the sessions of a node.
    pub(super) fn end_sessions_of_node(&mut self, node: &str) {
        for id in self.state.sessions.of_node(node) {
            self.end_session(id);
        }
    }

    fn end_session(&mut self, id: SessionId) {
        let Some(row) = self.state.sessions.remove(id) else {
            return;
        };
        self.session_changed(&row);
        self.event(Effect::SessionGone { id });
        self.write(Write::SessionGone(id));
        self.end_queries_of_session(id);
        self.leave_lines(id);
        let prefix = Key::session(id);
        let held = self.state.kv.held.prefix(&prefix);
        let held: Vec<Bytes> = held
            .map(|mark| Bytes::copy_from_slice(&mark.key()[prefix.len()..]))
            .collect();
        for key in held {
            self.lose_lock(&key, &row);
        }
    }

    fn session_changed(&mut self, row: &SessionRow) {
        self.state.indexes.sessions = self.index;
        self.touch(Area::Session, row.id.clone());
        self.touch_name(Area::SessionsOfNode, &row.node);
        self.touch(Area::Sessions, Bytes::new());
    }
}
