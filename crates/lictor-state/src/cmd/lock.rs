//! Locks on keys, and the delays that keep a lock from passing on at once when its session ends.

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::SessionId;
use lictor_proto::limits::LOCK_DELAY_MAX;
use lictor_proto::v1::{self, LockDelayRow, SessionRow};

use super::Apply;
use crate::row::{Entry, KvParts, KvRow};
use crate::{ApplyError, Effect, Write};

impl Apply<'_> {
    /// Takes a lock (Consul: KV acquire). `checked_at` is the index up to which the proposer knew of
    /// lock-delays: one that was set later refuses the lock (rule R15).
    pub(super) fn kv_lock(
        &mut self,
        key: &Bytes,
        value: &[u8],
        flags: u64,
        session: &str,
        checked_at: u64,
    ) -> Result<bool, ApplyError> {
        if self.delayed(key, checked_at) {
            return Ok(false);
        }
        self.check_session(session)?;
        // Whoever has it may take it again, and nobody else gets past those who wait.
        let is_free_to = match self.state.kv.rows.get(key).and_then(KvRow::session) {
            Some(holder) => holder == session,
            None => self.state.kv.lines.first(key).is_none(),
        };
        if is_free_to {
            self.take_lock(key, value, flags, session);
        }
        Ok(is_free_to)
    }

    /// Makes a session the holder of a key that nobody else holds.
    pub(super) fn take_lock(&mut self, key: &Bytes, value: &[u8], flags: u64, session: &str) {
        let old = self.state.kv.rows.get(key).cloned();
        let lock_index = match &old {
            None => 1,
            Some(row) => row.lock_index() + u64::from(row.session().is_none()),
        };
        self.end_lock_delay(key);
        self.end_ttl(key);
        let new = KvParts {
            value,
            flags,
            session: Some(session),
            lock_index,
            ..KvParts::default()
        };
        self.kv_write(key, old.as_ref(), &new);
    }

    /// Gives a lock back (Consul: KV release); false unless this session holds it. Value and flags are written
    /// too.
    pub(super) fn kv_unlock(
        &mut self,
        key: &Bytes,
        value: &[u8],
        flags: u64,
        session: &str,
    ) -> Result<bool, ApplyError> {
        if session.is_empty() {
            return Err(ApplyError::MissingSession);
        }
        let Some(old) = self
            .state
            .kv
            .rows
            .get(key)
            .filter(|row| row.session() == Some(session))
            .cloned()
        else {
            return Ok(false);
        };
        let lock_index = old.lock_index();
        self.end_ttl(key);
        self.kv_write(
            key,
            Some(&old),
            &KvParts {
                value,
                flags,
                lock_index,
                ..KvParts::default()
            },
        );
        Ok(true)
    }

    /// Whether a lock-delay was set on the key after the proposer looked.
    pub(super) fn delayed(&self, key: &[u8], checked_at: u64) -> bool {
        self.state
            .kv
            .lock_delays
            .get(key)
            .is_some_and(|delay| delay.row.set_index > checked_at)
    }

    /// Sessions are found without regard to the case in which a client writes them.
    pub(super) fn check_session(&self, session: &str) -> Result<(), ApplyError> {
        if session.is_empty() {
            return Err(ApplyError::MissingSession);
        }
        match SessionId::parse(session).and_then(|id| self.state.sessions.get(id)) {
            Some(_) => Ok(()),
            None => Err(ApplyError::InvalidSession(session.to_owned())),
        }
    }

    /// Releases or deletes a key that a session held when it ended, and delays the next lock on it.
    pub(super) fn lose_lock(&mut self, key: &Bytes, session: &SessionRow) {
        let Some(old) = self.state.kv.rows.get(key).cloned() else {
            return;
        };
        let delay_ms = acting_delay_ms(session.lock_delay_ns);
        if delay_ms > 0 {
            self.set_lock_delay(key, delay_ms);
        }
        match session.behavior() {
            v1::SessionBehavior::Release => {
                self.kv_write(
                    key,
                    Some(&old),
                    &KvParts {
                        session: None,
                        ..old.parts()
                    },
                );
            }
            v1::SessionBehavior::Delete => {
                self.kv_delete(key, None);
            }
        }
    }

    fn set_lock_delay(&mut self, key: &Bytes, delay_ms: u64) {
        let row = LockDelayRow {
            key: Bytes::copy_from_slice(key),
            set_index: self.index,
            delay_ms,
        };
        self.state
            .kv
            .lock_delays
            .insert(Entry::new(key, Arc::new(row.clone())));
        self.event(Effect::LockDelay {
            key: row.key.clone(),
            set_index: self.index,
            delay_ms,
        });
        self.write(Write::LockDelay(row));
        self.lines_changed();
    }

    /// Removes the lock-delays that ran out, but not a later one on the same key.
    pub(super) fn lock_delay_over(&mut self, over: &v1::LockDelayOver) {
        for ended in &over.delays {
            let set_index = self
                .state
                .kv
                .lock_delays
                .get(&ended.key)
                .map(|delay| delay.row.set_index);
            if set_index == Some(ended.set_index) {
                self.end_lock_delay(&ended.key);
                self.freed(&ended.key);
            }
        }
    }

    fn end_lock_delay(&mut self, key: &Bytes) {
        if let Some(gone) = self.state.kv.lock_delays.remove(key) {
            self.event(Effect::LockDelayGone {
                key: key.clone(),
                set_index: gone.row.set_index,
            });
            self.write(Write::LockDelayGone(key.clone()));
            self.lines_changed();
        }
    }
}

/// What a lock-delay acts for: nothing if it is not positive, [`LOCK_DELAY_MAX`] at most, and never less than
/// what was asked for within that.
fn acting_delay_ms(lock_delay_ns: i64) -> u64 {
    let most = u64::try_from(LOCK_DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    u64::try_from(lock_delay_ns)
        .unwrap_or(0)
        .div_ceil(1_000_000)
        .min(most)
}
