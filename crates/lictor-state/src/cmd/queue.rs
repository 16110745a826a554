//! Fair queues: entries that stand in line for a lock, in the order of the log.
//!
//! The entry with the lowest index of a queue holds its lock. Indexes are those of the commands that entered the
//! entries, so that no two are equal and none is given out again. An entry's lease has a number: whoever decided by
//! the clock that it is over names that number, and a renewal or grant that came first wins. An entry also counts the
//! requests that came to it: it is given up only when all of them are known to have gone without an answer.
//!
//! # Why it is correct
//!
//! * One holder: only [`Apply::advance`] grants, and only to the first entry; nothing is entered before another
//!   (`tests/queue.rs`, against a model).
//! * A renewal changes neither order nor holder, and an entry that leaves from the middle grants nobody
//!   (`nobody_but_the_next_is_let_in`).
//! * A command that is applied twice finds what it entered (`a_request_that_is_applied_twice_has_one_place`), or that it
//!   came to an entry (`a_request_that_comes_to_an_entry_twice_counts_once`).
//! * Entries that lapse together are all taken out before one is granted, so that the lock does not pass through
//!   those that are gone (`what_lapses_together_is_granted_to_none_of_it`).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::v1::{self, QueueEntryRow};

use super::Apply;
use crate::tree::Row;
use crate::{Area, Effect, QueueAnswer, QueueLease, Write};

/// Requests that an entry remembers of those that came to it: more than are proposed again at a time.
const JOINED_MAX: usize = 8;

impl Apply<'_> {
    /// Stands in line, or finds the place of the same request or value.
    pub(super) fn queue_enter(&mut self, enter: &v1::QueueEnter) -> QueueAnswer {
        let queues = &self.state.queues;
        if let Some(mine) = queues.by_request(&enter.name, &enter.request).cloned() {
            self.lease_event(&mine);
            return if mine.granted_index > 0 {
                QueueAnswer::Granted { index: mine.index }
            } else {
                QueueAnswer::Waits { index: mine.index }
            };
        }
        let same = enter.value.as_ref();
        if let Some(same) = same
            .and_then(|value| queues.by_value(&enter.name, value))
            .cloned()
        {
            return self.join(&same, enter);
        }
        let is_first = queues.holder(&enter.name).is_none();
        if enter.at_once && !is_first {
            return QueueAnswer::Busy;
        }
        // Copies: the command's bytes are part of its log entry, which a row must not keep in memory.
        let row = QueueEntryRow {
            name: Bytes::copy_from_slice(&enter.name),
            index: self.index,
            value: enter.value.as_deref().map(Bytes::copy_from_slice),
            ttl_ms: enter.ttl_ms,
            lease: 1,
            callers: 1,
            granted_index: if is_first { self.index } else { 0 },
            request: Bytes::copy_from_slice(&enter.request),
            joined: Vec::new(),
        };
        if is_first {
            self.known(&enter.name);
        }
        self.put_entry(row);
        let index = self.index;
        if is_first {
            // Servers that apply it later have clients that wait for it already.
            self.touch_entry(index);
            QueueAnswer::Granted { index }
        } else {
            QueueAnswer::Waits { index }
        }
    }

    /// Comes to an entry of the same value: renews it if it holds the lock, else waits with it.
    fn join(&mut self, same: &QueueEntryRow, enter: &v1::QueueEnter) -> QueueAnswer {
        let index = same.index;
        if same.granted_index > 0 {
            self.renew(same, enter.ttl_ms, same.value.clone());
            return QueueAnswer::Held { index };
        }
        if enter.at_once {
            return QueueAnswer::Busy;
        }
        if same.joined.contains(&enter.request) {
            self.lease_event(same);
            return QueueAnswer::Waits { index };
        }
        let mut row = QueueEntryRow {
            callers: same.callers + 1,
            ..same.clone()
        };
        row.joined.push(Bytes::copy_from_slice(&enter.request));
        let forgotten = row.joined.len().saturating_sub(JOINED_MAX);
        row.joined.drain(..forgotten);
        self.put_entry(row);
        QueueAnswer::Waits { index }
    }

    /// Begins the lease of an entry anew, and may give it another value.
    pub(super) fn queue_renew(&mut self, renew: &v1::QueueRenew) -> QueueAnswer {
        let found = match self.find_entry(&renew.name, renew.index, renew.value.as_ref()) {
            Ok(found) => found,
            Err(missing) => return missing,
        };
        let value = match &renew.value {
            None => found.value.clone(),
            Some(value) => {
                let other = self.state.queues.by_value(&renew.name, value);
                if other.is_some_and(|other| other.index != found.index) {
                    return QueueAnswer::ValueTaken;
                }
                Some(Bytes::copy_from_slice(value))
            }
        };
        self.renew(&found, renew.ttl_ms, value);
        QueueAnswer::Done
    }

    /// Whoever renews a lock knows that he has it: the entry is his, whoever else came for it and is gone.
    fn renew(&mut self, old: &QueueEntryRow, ttl_ms: u64, value: Option<Bytes>) {
        let row = QueueEntryRow {
            value,
            ttl_ms,
            lease: old.lease + 1,
            callers: old.callers + u64::from(old.granted_index > 0),
            ..old.clone()
        };
        self.put_entry(row);
    }

    /// Takes an entry out, whether it holds the lock or waits.
    pub(super) fn queue_release(&mut self, release: &v1::QueueRelease) -> QueueAnswer {
        match self.find_entry(&release.name, release.index, release.value.as_ref()) {
            Ok(found) => {
                self.remove_entry(&found);
                self.advance(&found.name);
                QueueAnswer::Done
            }
            Err(missing) => missing,
        }
    }

    /// Takes out those of the entries that are still as the leader saw them, and then grants.
    pub(super) fn queue_drop(&mut self, drop: &v1::QueueDrop) -> QueueAnswer {
        let mut shortened = BTreeSet::new();
        for gone in &drop.entries {
            let found = self.state.queues.get(&gone.name, gone.index);
            let unchanged = found.filter(|row| {
                gone.lease.is_none_or(|lease| lease == row.lease)
                    && gone.callers.is_none_or(|callers| callers == row.callers)
            });
            if let Some(row) = unchanged.cloned() {
                self.remove_entry(&row);
                shortened.insert(row.name.clone());
            } else {
                self.drop_wait(gone);
            }
        }
        for name in shortened {
            self.advance(&name);
        }
        QueueAnswer::Done
    }

    /// Forgets the names that are free since an index or longer.
    pub(super) fn queue_forget(&mut self, up_to: u64) -> QueueAnswer {
        let free = self.state.queues.free.iter();
        let due: Vec<Bytes> = free
            .filter(|name| name.index() <= up_to)
            .map(|name| Bytes::copy_from_slice(name.key()))
            .collect();
        for name in due {
            self.known(&name);
        }
        QueueAnswer::Done
    }

    fn find_entry(
        &self,
        name: &[u8],
        index: Option<u64>,
        value: Option<&Bytes>,
    ) -> Result<Arc<QueueEntryRow>, QueueAnswer> {
        let queues = &self.state.queues;
        let found = match (index, value) {
            (Some(index), _) => queues.get(name, index),
            (None, Some(value)) => queues.by_value(name, value),
            (None, None) => None,
        };
        found.cloned().ok_or(if queues.is_known(name) {
            QueueAnswer::NoEntry
        } else {
            QueueAnswer::NoName
        })
    }

    /// Grants the lock to the first entry of a queue, unless it holds it, or notes that nobody stands there.
    fn advance(&mut self, name: &Bytes) {
        match self.state.queues.holder(name).cloned() {
            Some(first) if first.granted_index > 0 => {}
            Some(first) => {
                let row = QueueEntryRow {
                    granted_index: self.index,
                    lease: first.lease + 1,
                    ..(*first).clone()
                };
                self.touch_entry(first.index);
                self.put_entry(row);
            }
            None => {
                self.state.queues.add_free(name, self.index);
                self.write(Write::QueueFree {
                    name: name.clone(),
                    index: self.index,
                });
                self.event(Effect::QueueFree { index: self.index });
            }
        }
    }

    /// A name needs no row of its own: somebody stands in line, or it is forgotten.
    fn known(&mut self, name: &Bytes) {
        if self.state.queues.free.remove(name).is_some() {
            self.write(Write::QueueFreeGone(Bytes::copy_from_slice(name)));
        }
    }

    fn put_entry(&mut self, row: QueueEntryRow) {
        let row = Arc::new(row);
        self.state.queues.add(&row);
        self.lease_event(&row);
        self.queues_changed();
        self.write(Write::Queue(row));
    }

    fn remove_entry(&mut self, row: &QueueEntryRow) {
        self.state.queues.remove(row);
        self.event(Effect::QueueGone { index: row.index });
        self.touch_entry(row.index);
        self.queues_changed();
        self.write(Write::QueueGone(row.name.clone(), row.index));
    }

    fn lease_event(&mut self, row: &QueueEntryRow) {
        self.event(Effect::QueueLease(QueueLease::new(row)));
    }

    fn touch_entry(&mut self, index: u64) {
        self.touch(Area::Queue, Bytes::copy_from_slice(&index.to_be_bytes()));
    }

    fn queues_changed(&mut self) {
        self.state.indexes.queues = self.index;
        self.touch(Area::Queues, Bytes::new());
    }
}
