//! Leases of entries in fair queues: how long a lock is held, and who waits for it.
//!
//! An entry that waits lives while some server says that a client of it waits there; one that holds the lock lives
//! for its TTL, whoever is there. The last server whose clients leave an entry that none of them was given ends it.

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
/// By then every server has told a new leader whom its clients wait for.
const REPORTED_AFTER_MS: u64 = 2_000;
const NEVER: MonoTime = MonoTime(u64::MAX);

/// All entries of fair queues.
#[derive(Debug)]
pub(crate) struct Queues {
    entries: HashMap<u64, Entry>,
    due: BTreeSet<(MonoTime, u64)>,
    /// Since when this server leads.
    since: MonoTime,
    stall: Stall,
}

#[derive(Debug)]
struct Entry {
    name: Bytes,
    lease: u64,
    callers: u64,
    ttl_ms: u64,
    holds: bool,
    /// Those whose clients came for it and did not all leave, as far as this leader has heard.
    servers: Vec<RaftId>,
    /// Whether this leader saw all of them come.
    saw_all: bool,
    /// Nobody waits for it any more, and it is to go.
    is_abandoned: bool,
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
            servers: Vec::new(),
            saw_all: lease.callers == 1 && lease.server.is_some(),
            is_abandoned: false,
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

    fn add(&mut self, server: RaftId) {
        if !self.servers.contains(&server) {
            self.servers.push(server);
        }
    }

    fn to_drop(&self, index: u64) -> QueueDropRef {
        QueueDropRef {
            name: self.name.clone(),
            index,
            // A grant that comes first is no reason to keep what nobody waits for.
            lease: (!self.is_abandoned).then_some(self.lease),
            callers: self.is_abandoned.then_some(self.callers),
        }
    }
}

impl Queues {
    /// Entries whose leases began at times unknown here begin them anew.
    pub(crate) fn armed(now: MonoTime, leases: impl IntoIterator<Item = QueueLease>) -> Self {
        let mut queues = Self {
            entries: HashMap::new(),
            due: BTreeSet::new(),
            since: now,
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
        if let Some(server) = lease.server {
            entry.add(server);
        }
        // One that was given the lock may be somebody's whom this leader does not know of.
        entry.is_abandoned &= entry.servers.is_empty() && (entry.saw_all || !entry.holds);
        entry.deadline = if entry.is_abandoned {
            entry.deadline
        } else {
            entry.full(now)
        };
        self.arm(index);
    }

    /// Apply took an entry out.
    pub(crate) fn gone(&mut self, index: u64) {
        if let Some(entry) = self.entries.remove(&index) {
            self.due.remove(&(entry.armed, index));
        }
    }

    /// Clients of a server wait for these entries.
    pub(crate) fn waited_for(
        &mut self,
        server: RaftId,
        indexes: impl IntoIterator<Item = u64>,
        now: MonoTime,
    ) {
        for index in indexes {
            if let Some(entry) = self.entries.get_mut(&index).filter(|entry| !entry.holds) {
                entry.add(server);
                entry.is_abandoned = false;
                // Its place in `due` is put right when it comes up.
                entry.deadline = entry.full(now);
            }
        }
    }

    /// The clients of a server that came for an entry have all left, and none of them was told that it has the lock.
    /// Answers whether that ends it.
    pub(crate) fn left(&mut self, server: RaftId, index: u64, now: MonoTime) -> bool {
        let Some(entry) = self.entries.get_mut(&index) else {
            return false;
        };
        entry.servers.retain(|other| *other != server);
        if !entry.servers.is_empty() || (entry.holds && !entry.saw_all) {
            return false;
        }
        entry.is_abandoned = true;
        let known_at = if entry.saw_all {
            now
        } else {
            self.since.plus_ms(REPORTED_AFTER_MS)
        };
        entry.deadline = known_at.max(now);
        self.arm(index);
        true
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
            if !entry.holds && !entry.is_abandoned && is_waited_for(index) {
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
            deadline if entry.is_abandoned => deadline,
            deadline => slot(deadline),
        };
        if entry.armed != NEVER {
            self.due.insert((entry.armed, index));
        }
    }
}
