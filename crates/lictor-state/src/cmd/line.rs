//! Sessions that stand in line for the lock of a key, in the order of the log.
//!
//! A line is of those that wait; whoever gets the lock leaves it, and has an ordinary lock then. So all that ends a lock
//! ends it as ever, and at the end of the command that did the next in line has it, at the same index.
//!
//! # Why it is correct
//!
//! * Nobody jumps the line: a lock that is free while somebody stands there is refused to all others
//!   (`nobody_gets_past_the_line`), and only [`Apply::grant_next`] gives it, to the first.
//! * Nobody is forgotten: the lock of a key with a line is held, or its lock-delay has a row. What frees a key notes it
//!   in `freed`, and the end of a lock-delay is a command that notes it too (`behaves_like_the_naive_model` checks it
//!   after each command).
//! * All that a transaction does comes before the grant, and what it undoes frees nothing
//!   (`a_transaction_ends_before_the_next_has_the_lock`).
//! * A session that gets a lock has it for all its requests, which are then done in their order, as they would be one by
//!   one (`all_requests_of_a_session_are_done_when_it_gets_the_lock`).

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::limits::LOCK_WAIT_TTL;
use lictor_proto::v1::{self, LockWaitRow, QueueDropRef};
use lictor_proto::{ConsulIndex, SessionId};

use super::Apply;
use crate::row::KvRow;
use crate::{ApplyError, Area, Effect, Explained, Outcome, QueueAnswer, QueueLease, Write};

impl Apply<'_> {
    /// Takes a lock as [`Self::kv_lock`] does, or stands in line for it.
    pub(super) fn kv_lock_enter(&mut self, enter: &v1::KvLockEnter) -> Result<Outcome, ApplyError> {
        let lock = enter.lock.as_ref().ok_or(ApplyError::MissingSession)?;
        if let Some(mine) = self.state.kv.lines.by_request(&lock.key, &enter.request) {
            return Ok(Outcome::Queue(QueueAnswer::Waits { index: mine.index }));
        }
        self.check_session(&lock.session)?;
        if self.kv_lock(&lock.key, &lock.value, lock.flags, &lock.session, lock.checked_at)? {
            let granted = self.granted(&lock.key);
            self.event(Effect::LockGranted {
                request: enter.request.clone(),
                place: None,
                granted: granted.clone(),
            });
            return Ok(Outcome::Explained(granted));
        }
        // Copies: the command's bytes are part of its log entry, which a row must not keep in memory.
        let row = Arc::new(LockWaitRow {
            key: Bytes::copy_from_slice(&lock.key),
            index: self.index,
            session: lock.session.clone(),
            value: Bytes::copy_from_slice(&lock.value),
            flags: lock.flags,
            request: Bytes::copy_from_slice(&enter.request),
        });
        self.state.kv.lines.add(&row);
        self.event(Effect::QueueLease(QueueLease::of_wait(&row)));
        self.lines_changed();
        self.write(Write::LockWait(row));
        Ok(Outcome::Queue(QueueAnswer::Waits { index: self.index }))
    }

    /// Takes a place out that its client has left, if it is one in a line for a key's lock.
    pub(super) fn drop_wait(&mut self, gone: &QueueDropRef) {
        if let Some(row) = self.state.kv.lines.get(&gone.name, gone.index).cloned() {
            self.leave_line(&row);
        }
    }

    /// Takes all places of a session out, when it ends.
    pub(super) fn leave_lines(&mut self, session: SessionId) {
        for row in self.state.kv.lines.of_session(session, None) {
            self.leave_line(&row);
        }
    }

    /// The lock of a key may have become free; at the end of the command the next in line gets it.
    pub(super) fn freed(&mut self, key: &[u8]) {
        if !self.state.kv.lines.is_empty() {
            self.freed.insert(Bytes::copy_from_slice(key));
        }
    }

    /// The same for all keys below a prefix.
    pub(super) fn freed_below(&mut self, prefix: &[u8]) {
        let keys = self.state.kv.lines.keys_below(prefix);
        self.freed.extend(keys);
    }

    /// Gives the lock of a key that is free to the first in line, if there is one.
    pub(super) fn grant_next(&mut self, key: &Bytes) {
        let kv = &self.state.kv;
        let is_held = kv.rows.get(key).is_some_and(|row| row.session().is_some());
        if is_held || kv.lock_delays.get(key).is_some() {
            return;
        }
        let Some(first) = kv.lines.first(key) else { return };
        let Some(session) = SessionId::parse(&first.session) else {
            return;
        };
        // Sessions are compared as they were written (rule R13).
        let holder = first.session.clone();
        for row in kv.lines.of_session(session, Some(key)) {
            if row.session == holder {
                self.take_lock(key, &row.value, row.flags, &row.session);
                let granted = self.granted(key);
                self.event(Effect::LockGranted {
                    request: row.request.clone(),
                    place: Some(row.index),
                    granted,
                });
                self.leave_line(&row);
            }
        }
    }

    /// What is said of a lock that was just taken.
    fn granted(&self, key: &[u8]) -> Explained {
        let row = self.state.kv.rows.get(key);
        Explained {
            done: true,
            modify_index: row.map(|row| ConsulIndex(row.modify_index())),
            lock_index: row.map(KvRow::lock_index),
            refused: None,
        }
    }

    fn leave_line(&mut self, row: &LockWaitRow) {
        self.state.kv.lines.remove(row);
        self.event(Effect::QueueGone { index: row.index });
        self.touch(Area::Queue, Bytes::copy_from_slice(&row.index.to_be_bytes()));
        self.lines_changed();
        self.write(Write::LockWaitGone(row.key.clone(), row.index));
    }

    /// A line, or whether the lock that it stands for can be had.
    pub(super) fn lines_changed(&mut self) {
        self.state.indexes.lock_waits = self.index;
        self.touch(Area::LockWaits, Bytes::new());
    }
}

impl QueueLease {
    /// Of a place in the line for a key's lock: it stands as long as its one client waits, and never holds.
    pub fn of_wait(row: &LockWaitRow) -> Self {
        Self {
            name: row.key.clone(),
            index: row.index,
            lease: 1,
            callers: 1,
            ttl_ms: u64::try_from(LOCK_WAIT_TTL.as_millis()).unwrap_or(u64::MAX),
            holds: false,
        }
    }
}
