//! One module per family of commands; all of them work on an [`Apply`].

mod catalog;
mod kv;
mod line;
mod lock;
mod query;
mod queue;
mod session;
mod ttl;
mod txn;

use std::collections::BTreeSet;

use bytes::Bytes;
use lictor_proto::{Command, LogIndex};

use crate::key::fold_name;
use crate::{ApplyError, Area, Dirty, Effect, Effects, Outcome, QueueAnswer, State, Write};

pub(crate) use txn::{txn_read, txn_reads_over};

/// One command at work: the state, the index that all its writes carry, and where its effects go.
pub(crate) struct Apply<'a> {
    state: &'a mut State,
    index: u64,
    out: &'a mut Effects,
    /// Rows beside KV that changed; each is reported once, at the end.
    touched: BTreeSet<(Area, Bytes)>,
    /// Keys whose locks may have become free while somebody waits for one; the next gets it at the end.
    freed: BTreeSet<Bytes>,
}

/// The lengths that effects are cut back to when a command is undone.
struct Mark {
    events: usize,
    dirty: usize,
    writes: usize,
}

impl<'a> Apply<'a> {
    pub(crate) fn new(state: &'a mut State, at: LogIndex, out: &'a mut Effects) -> Self {
        let index = state.visible(at).0;
        Self {
            state,
            index,
            out,
            touched: BTreeSet::new(),
            freed: BTreeSet::new(),
        }
    }

    pub(crate) fn run(mut self, command: &Command) -> Outcome {
        let done = match command {
            Command::KvSet(set) => Ok(self.kv_set(&set.key, &set.value, set.flags, set.cas)),
            Command::KvDelete(delete) => Ok(self.kv_delete(&delete.key, delete.cas)),
            Command::KvDeleteTree(delete) => {
                self.kv_delete_tree(&delete.prefix);
                Ok(true)
            }
            Command::KvLock(lock) => {
                self.kv_lock(&lock.key, &lock.value, lock.flags, &lock.session, lock.checked_at)
            }
            Command::KvLockEnter(enter) => {
                let outcome = self.kv_lock_enter(enter);
                self.flush();
                return outcome.unwrap_or_else(Outcome::Failed);
            }
            Command::KvUnlock(unlock) => {
                self.kv_unlock(&unlock.key, &unlock.value, unlock.flags, &unlock.session)
            }
            Command::Txn(txn) => return self.txn(txn),
            Command::SessionCreate(create) => self.session_create(create),
            Command::SessionDestroy(destroy) => Ok(self.session_destroy(&destroy.id)),
            Command::SessionTtlMinSet(set) => {
                self.state.session_ttl_min_ms = set.ms;
                Ok(true)
            }
            Command::ReapTombstones(reap) => {
                self.reap_tombstones(reap.index);
                Ok(true)
            }
            Command::LockDelayOver(over) => {
                self.lock_delay_over(over);
                Ok(true)
            }
            Command::Register(register) => self
                .all_or_nothing(|apply| apply.register(register))
                .map(|()| true),
            Command::Deregister(deregister) => {
                self.deregister(deregister);
                Ok(true)
            }
            Command::KvSetTtl(set) => Ok(self.kv_set_ttl(set)),
            Command::KvTtlOver(over) => {
                self.kv_ttl_over(over);
                Ok(true)
            }
            // Whoever applies it looks at the state; nothing in it changes.
            Command::CompareStates(_) => Ok(true),
            Command::PreparedQuerySet(set) => self.query_set(set),
            Command::PreparedQueryDelete(delete) => Ok(self.query_delete(&delete.id)),
            Command::QueueEnter(enter) => return self.queue(|apply| apply.queue_enter(enter)),
            Command::QueueRenew(renew) => return self.queue(|apply| apply.queue_renew(renew)),
            Command::QueueRelease(release) => return self.queue(|apply| apply.queue_release(release)),
            Command::QueueDrop(drop) => return self.queue(|apply| apply.queue_drop(drop)),
            Command::QueueForget(forget) => return self.queue(|apply| apply.queue_forget(forget.index)),
            // The archive is not here: whoever has it calls `State::restored` instead.
            Command::Restore(_) => Err(ApplyError::Other("a restore needs its archive".to_owned())),
        };
        self.flush();
        done.map_or_else(Outcome::Failed, Outcome::Bool)
    }

    /// A command on fair queues, which never fails but answers in terms of its own.
    fn queue(mut self, work: impl FnOnce(&mut Self) -> QueueAnswer) -> Outcome {
        let answer = work(&mut self);
        self.flush();
        Outcome::Queue(answer)
    }

    /// Undoes what `work` did if it fails.
    fn all_or_nothing(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let (before, mark) = (self.state.clone(), self.mark());
        work(self).inspect_err(|_| self.undo(before, &mark))
    }

    fn mark(&self) -> Mark {
        Mark {
            events: self.out.events.len(),
            dirty: self.out.dirty.len(),
            writes: self.out.writes.len(),
        }
    }

    fn undo(&mut self, before: State, mark: &Mark) {
        *self.state = before;
        self.out.events.truncate(mark.events);
        self.out.dirty.truncate(mark.dirty);
        self.out.writes.truncate(mark.writes);
        self.touched.clear();
        self.freed.clear();
    }

    fn write(&mut self, write: Write) {
        self.out.writes.push(write);
    }

    fn event(&mut self, effect: Effect) {
        self.out.events.push(effect);
    }

    fn touch(&mut self, area: Area, key: Bytes) {
        self.touched.insert((area, key));
    }

    fn touch_name(&mut self, area: Area, name: &str) {
        self.touch(area, fold_name(name));
    }

    /// Ends a command: gives the locks that it freed to those who wait for them, reports the rows beside KV that changed,
    /// and raises the indexes of services and nodes.
    fn flush(&mut self) {
        for key in std::mem::take(&mut self.freed) {
            self.grant_next(&key);
        }
        for (area, key) in std::mem::take(&mut self.touched) {
            match area {
                Area::Service => self.raise_service(&key),
                Area::Node => self.raise_node(&key),
                _ => {}
            }
            self.out.dirty.push(Dirty::Row(area, key));
        }
    }
}
