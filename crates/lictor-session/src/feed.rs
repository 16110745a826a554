//! What the manager is fed with: the state that a new leader finds, what apply reports, commands on their way.

use std::sync::Arc;

use lictor_proto::v1::{self, KvTxnOp, KvVerb, SessionRow, Txn, txn_op};
use lictor_proto::{Command, ConsulIndex, MonoTime, SessionId};
use lictor_state::{Effect, QueueLease, State};

use crate::{Armed, SessionManager, Ttl};

impl Armed {
    /// All that a state holds.
    pub fn of(state: &State) -> Self {
        let indexes = state.table_indexes();
        let unreaped = indexes.tombstones > indexes.tombstone_horizon;
        let session = |row: &Arc<SessionRow>| {
            let ttl = Ttl {
                ms: row.ttl_ms,
                is_exact: row.ttl_exact,
            };
            Some((SessionId::from_slice(&row.id)?, ttl))
        };
        Self {
            sessions: state.sessions().filter_map(session).collect(),
            delays: state.lock_delays().cloned().collect(),
            ttls: state.kv_ttls().cloned().collect(),
            tombstone: unreaped.then_some(ConsulIndex(indexes.tombstones)),
            queues: state
                .queue_entries()
                .map(|row| QueueLease::new(row))
                .chain(state.lock_waits().map(|row| QueueLease::of_wait(row)))
                .collect(),
            free_queue: state.newest_free_queue(),
            index: state.visible(state.applied().0),
        }
    }
}

impl SessionManager {
    /// Takes in what apply did, in log order, up to the visible index `through`.
    pub fn take_in(&mut self, effects: &[Effect], through: ConsulIndex, now: MonoTime) {
        for effect in effects {
            match effect {
                Effect::SessionCreated {
                    id,
                    ttl_ms,
                    ttl_exact,
                } => {
                    let ttl = Ttl {
                        ms: *ttl_ms,
                        is_exact: *ttl_exact,
                    };
                    self.session_created(*id, ttl, now);
                }
                Effect::SessionGone { id } => self.session_gone(*id),
                Effect::LockDelay {
                    key,
                    set_index,
                    delay_ms,
                } => self.lock_delay_set(key.clone(), ConsulIndex(*set_index), *delay_ms, now),
                Effect::LockDelayGone { key, set_index } => {
                    self.lock_delay_gone(key, ConsulIndex(*set_index));
                }
                Effect::QueueLease(lease) => self.queue_lease(lease, now),
                Effect::QueueGone { index } => self.queue_gone(*index),
                // The end of its place says all that matters here.
                Effect::LockGranted { .. } => {}
                Effect::QueueFree { index } => self.queue_free(ConsulIndex(*index), now),
                Effect::KvTtl {
                    key,
                    set_index,
                    ttl_ms,
                } => self.kv_ttl_set(key.clone(), ConsulIndex(*set_index), *ttl_ms, now),
                Effect::KvTtlGone { key, set_index } => self.kv_ttl_gone(key, ConsulIndex(*set_index)),
                Effect::Tombstone { index } => self.tombstone(ConsulIndex(*index), now),
            }
        }
        self.folded(through);
    }

    /// Notes in a command's lock verbs up to where delays were known (rule R15).
    ///
    /// # Errors
    /// The positions of the lock verbs whose keys may not be locked now; 0 for a command that is one.
    pub fn check_command(&self, command: &mut Command, now: MonoTime) -> Result<(), Vec<usize>> {
        match command {
            Command::KvLock(lock) => {
                let checked = self.check_lock(&lock.key, now);
                lock.checked_at = checked.ok_or_else(|| vec![0])?.0;
                Ok(())
            }
            // While a delay runs it stands in line.
            Command::KvLockEnter(v1::KvLockEnter { lock: Some(lock), .. }) => {
                lock.checked_at = self.check_lock(&lock.key, now).unwrap_or_default().0;
                Ok(())
            }
            Command::Txn(txn) => self.check_txn(txn, now),
            _ => Ok(()),
        }
    }

    fn check_txn(&self, txn: &mut Txn, now: MonoTime) -> Result<(), Vec<usize>> {
        let is_lock = |op: &KvTxnOp| op.verb == i32::from(KvVerb::Lock);
        let locks = txn.ops.iter().enumerate().filter_map(|(at, op)| match &op.op {
            Some(txn_op::Op::Kv(op)) if is_lock(op) => Some((at, &op.key)),
            _ => None,
        });
        let (mut checked_at, mut refused) = (0, Vec::new());
        for (at, key) in locks {
            match self.check_lock(key, now) {
                Some(index) => checked_at = index.0,
                None => refused.push(at),
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        txn.checked_at = checked_at;
        Ok(())
    }
}
