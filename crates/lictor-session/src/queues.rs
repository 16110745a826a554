//! Leases of entries in fair queues, and of places in line for the locks of keys: how long a lock is held, and who waits
//! for it.
//!
//! An entry that waits lives while some server says that a client of it waits there; one that holds the lock lives
//! for its TTL, whoever is there. An entry counts the requests that came to it, and each server says how many of its own
//! left without having been told that they have the lock. Once those are all, nobody can be there or believe to hold the
//! lock, and the entry ends at once, whoever leads by then.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use lictor_proto::limits::QUEUE_WAIT_TTL;
use lictor_proto::v1::QueueDropRef;
use lictor_proto::{MonoTime, RaftId};
use lictor_state::QueueLease;

use crate::stall::Stall;
use crate::{NAMES_MAX_BYTES, PROPOSE_AGAIN_MS, slot};

/// Deadlines looked at in one turn, so that many renewed leases cannot hold the caller up.
const STEPS_PER_TURN_MAX: usize = 4_096;
const NEVER: MonoTime = MonoTime(u64::MAX);

/// All entries of fair queues.
#[derive(Debug)]
pub(crate) struct Queues {
    entries: HashMap<u64, Entry>,
    due: BTreeSet<(MonoTime, u64)>,
    stall: Stall,
}

#[derive(Debug)]
struct Entry {
    name: Bytes,
    lease: u64,
    callers: u64,
    ttl_ms: u64,
    holds: bool,
    /// How many of a server's clients came for it and left without the lock, if all of them did.
    left: Vec<(RaftId, u64)>,
    /// When it lapses.
    deadline: MonoTime,
    /// Where it stands in `due`, at the deadline or earlier; [`NEVER`] if it does not.
    armed: MonoTime,
}

impl Entry {
    fn new(lease: &QueueLease) -> Self {
        Self {
            name: lease.name.clone(),
            lease: 0,
            callers: 0,
            ttl_ms: 0,
            holds: false,
            left: Vec::new(),
            deadline: NEVER,
            armed: NEVER,
        }
    }

    fn full(&self, now: MonoTime) -> MonoTime {
        match (self.ttl_ms, self.holds) {
            (0, true) => NEVER,
            (0, false) => {
                let wait_ms = u64::try_from(QUEUE_WAIT_TTL.as_millis()).unwrap_or(u64::MAX);
                now.plus_ms(wait_ms)
            }
            (ttl_ms, _) => now.plus_ms(ttl_ms),
        }
    }

    /// Whether all who came for it have left, and it is to go.
    fn is_abandoned(&self) -> bool {
        let left: u64 = self.left.iter().map(|(_, callers)| *callers).sum();
        left >= self.callers
    }

    fn to_drop(&self, index: u64) -> QueueDropRef {
        let is_abandoned = self.is_abandoned();
        QueueDropRef {
            name: self.name.clone(),
            index,
            // A grant that comes first is no reason to keep what nobody waits for; one more caller is.
            lease: (!is_abandoned).then_some(self.lease),
            callers: is_abandoned.then_some(self.callers),
        }
    }
}

impl Queues {
    /// Entries whose leases began at times unknown here begin them anew.
    pub(crate) fn armed(now: MonoTime, leases: impl IntoIterator<Item = QueueLease>) -> Self {
        let mut queues = Self {
            entries: HashMap::new(),
            due: BTreeSet::new(),
            stall: Stall::new(now),
        };
        for lease in leases {
            queues.lease(&lease, now);
        }
        queues
    }

    /// Apply began a lease.
    pub(crate) fn lease(&mut self, lease: &QueueLease, now: MonoTime) {
        let index = lease.index;
        let entry = self.entries.entry(index).or_insert_with(|| Entry::new(lease));
        entry.lease = lease.lease;
        entry.callers = lease.callers;
        entry.ttl_ms = lease.ttl_ms;
        entry.holds = lease.holds;
        if !entry.is_abandoned() {
            entry.deadline = entry.full(now);
        }
        self.arm(index);
    }

    /// Apply took an entry out.
    pub(crate) fn gone(&mut self, index: u64) {
        if let Some(entry) = self.entries.remove(&index) {
            self.due.remove(&(entry.armed, index));
        }
    }

    /// Somebody's clients wait for these entries.
    pub(crate) fn waited_for(&mut self, indexes: impl IntoIterator<Item = u64>, now: MonoTime) {
        for index in indexes {
            let found = self.entries.get_mut(&index);
            if let Some(entry) = found.filter(|entry| !entry.holds && !entry.is_abandoned()) {
                // Its place in `due` is put right when it comes up.
                entry.deadline = entry.full(now);
            }
        }
    }

    /// The clients of a server that came for an entry have all left, `callers` of them until now, and none of them was told
    /// that it has the lock. Answers whether that ends it.
    pub(crate) fn left(&mut self, server: RaftId, index: u64, callers: u64, now: MonoTime) -> bool {
        let Some(entry) = self.entries.get_mut(&index) else {
            return false;
        };
        // What a server said before may come late, and then says less.
        match entry.left.iter_mut().find(|(other, _)| *other == server) {
            Some((_, known)) => *known = callers.max(*known),
            None => entry.left.push((server, callers)),
        }
        let is_going = entry.is_abandoned();
        if is_going {
            entry.deadline = now;
            self.arm(index);
        }
        is_going
    }

    /// At most `max` entries that lapsed, which are to be taken out. `is_waited_for` says whether a client of this
    /// server waits for an entry.
    pub(crate) fn expired(
        &mut self,
        now: MonoTime,
        max: usize,
        is_waited_for: impl Fn(u64) -> bool,
    ) -> Vec<QueueDropRef> {
        let (mut expired, mut names_bytes) = (Vec::new(), 0);
        self.stall.notice(self.due.first().map(|(at, _)| *at), now);
        for _ in 0..STEPS_PER_TURN_MAX {
            let first = self.due.first().filter(|(at, _)| *at <= now);
            let Some(&(armed, index)) = first else { break };
            if self.stall.held_until() > now || expired.len() == max || names_bytes > NAMES_MAX_BYTES {
                break;
            }
            self.due.remove(&(armed, index));
            let Some(entry) = self.entries.get_mut(&index) else {
                continue;
            };
            if !entry.holds && !entry.is_abandoned() && is_waited_for(index) {
                entry.deadline = entry.full(now);
            }
            entry.armed = if entry.deadline <= now {
                names_bytes += entry.name.len();
                expired.push(entry.to_drop(index));
                slot(now.plus_ms(PROPOSE_AGAIN_MS))
            } else {
                slot(entry.deadline)
            };
            self.due.insert((entry.armed, index));
        }
        expired
    }

    /// For how many milliseconds the lock that an entry holds is still its own, 0 if it lapses now; `None` where it is held
    /// without an end or not at all.
    pub(crate) fn held_for_ms(&self, index: u64, now: MonoTime) -> Option<u64> {
        let entry = self.entries.get(&index)?;
        (entry.holds && entry.deadline != NEVER).then(|| entry.deadline.ms_since(now))
    }

    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _)| (*at).max(self.stall.held_until()))
    }

    /// Puts an entry where it is due. One that is to go at once does not wait for the others of its slot.
    fn arm(&mut self, index: u64) {
        let Some(entry) = self.entries.get_mut(&index) else {
            return;
        };
        self.due.remove(&(entry.armed, index));
        entry.armed = match entry.deadline {
            NEVER => NEVER,
            deadline if entry.is_abandoned() => deadline,
            deadline => slot(deadline),
        };
        if entry.armed != NEVER {
            self.due.insert((entry.armed, index));
        }
    }
}
