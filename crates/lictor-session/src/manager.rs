//! The manager: nothing while another server leads, all timers while this one does.

use bytes::Bytes;
use lictor_proto::limits::{QUEUE_NAME_BIN, QUEUE_NAME_TTL, TOMBSTONE_BIN, TOMBSTONE_TTL};
use lictor_proto::v1::{KvTtlRef, KvTtlRow, LockDelayRef, LockDelayRow, QueueDropRef};
use lictor_proto::{ConsulIndex, MonoTime, RaftId, SessionId};
use lictor_state::QueueLease;

use crate::bins::Bins;
use crate::delays::Delays;
use crate::queues::Queues;
use crate::sessions::Sessions;
use crate::ttls::Ttls;
use crate::{Renewal, Ttl};

/// What a new leader finds in the state, all of it at one applied index.
#[derive(Debug, Clone, Default)]
pub struct Armed {
    /// Every session.
    pub sessions: Vec<(SessionId, Ttl)>,
    /// Every lock-delay row.
    pub delays: Vec<LockDelayRow>,
    /// Every TTL of a key.
    pub ttls: Vec<KvTtlRow>,
    /// The highest tombstone, if there is any.
    pub tombstone: Option<ConsulIndex>,
    /// Every entry of a fair queue.
    pub queues: Vec<QueueLease>,
    /// The highest index since which the name of a fair lock is free.
    pub free_queue: Option<ConsulIndex>,
    /// The visible index of the state.
    pub index: ConsulIndex,
}

/// Decides on the leader when things end.
///
/// The caller feeds it, in log order, what apply reports behind the index that [`Self::become_leader`] was
/// given.
#[derive(Debug, Default)]
pub struct SessionManager {
    leading: Option<Leading>,
}

#[derive(Debug)]
struct Leading {
    sessions: Sessions,
    delays: Delays,
    ttls: Ttls,
    tombstones: Bins,
    queues: Queues,
    free_queues: Bins,
    folded_through: ConsulIndex,
}

/// How long what a leader watches over still lasts, as of one moment.
#[derive(Debug, Clone, Copy)]
pub struct TimesLeft<'a> {
    leading: &'a Leading,
    now: MonoTime,
}

impl TimesLeft<'_> {
    /// For how many milliseconds a session lives if it is not renewed; 0 if its end is due. `None` for one that does not
    /// end by the clock, or is not there.
    pub fn session_ms(&self, id: SessionId) -> Option<u64> {
        self.leading.sessions.left_ms(id, self.now)
    }

    /// For how many milliseconds the lock-delay of a key runs. `None` where none does.
    pub fn lock_delay_ms(&self, key: &[u8]) -> Option<u64> {
        let left_ms = self.leading.delays.left_ms(key, self.now);
        (left_ms > 0).then_some(left_ms)
    }

    /// For how many milliseconds the entry of a fair queue that holds its lock has it if it does not renew it; 0 if its end
    /// is due. `None` for one that holds it without an end, that waits, or is not there.
    pub fn fair_lock_ms(&self, index: u64) -> Option<u64> {
        self.leading.queues.held_for_ms(index, self.now)
    }
}

impl SessionManager {
    /// Arms all that the state holds: sessions with one TTL, lock-delays and leases in fair queues with their full
    /// length, since when they began is not known here (rules R15, R16).
    pub fn become_leader(&mut self, now: MonoTime, found: Armed) {
        let mut delays = Delays::default();
        for row in found.delays {
            delays.set(row.key, ConsulIndex(row.set_index), row.delay_ms, now);
        }
        let mut tombstones = Bins::new(TOMBSTONE_TTL, TOMBSTONE_BIN);
        if let Some(index) = found.tombstone {
            tombstones.add(index, now);
        }
        let mut free_queues = Bins::new(QUEUE_NAME_TTL, QUEUE_NAME_BIN);
        if let Some(index) = found.free_queue {
            free_queues.add(index, now);
        }
        let sessions = Sessions::armed(now, found.sessions);
        self.leading = Some(Leading {
            sessions,
            delays,
            ttls: Ttls::armed(now, found.ttls),
            tombstones,
            queues: Queues::armed(now, found.queues),
            free_queues,
            folded_through: found.index,
        });
    }

    /// Forgets all timers: another server decides now.
    pub fn step_down(&mut self) {
        self.leading = None;
    }

    /// Apply created a session.
    pub fn session_created(&mut self, id: SessionId, ttl: impl Into<Ttl>, now: MonoTime) {
        if let Some(leading) = &mut self.leading {
            leading.sessions.created(id, ttl.into(), now);
        }
    }

    /// Apply ended a session, for whatever reason.
    pub fn session_gone(&mut self, id: SessionId) {
        if let Some(leading) = &mut self.leading {
            leading.sessions.gone(id);
        }
    }

    /// Apply set a lock-delay.
    pub fn lock_delay_set(&mut self, key: Bytes, set_index: ConsulIndex, delay_ms: u64, now: MonoTime) {
        if let Some(leading) = &mut self.leading {
            leading.delays.set(key, set_index, delay_ms, now);
        }
    }

    /// Apply removed the lock-delay that was set at `set_index`.
    pub fn lock_delay_gone(&mut self, key: &Bytes, set_index: ConsulIndex) {
        if let Some(leading) = &mut self.leading {
            leading.delays.gone(key, set_index);
        }
    }

    /// Apply set the TTL of a key.
    pub fn kv_ttl_set(&mut self, key: Bytes, set_index: ConsulIndex, ttl_ms: u64, now: MonoTime) {
        if let Some(leading) = &mut self.leading {
            leading.ttls.set(key, set_index, ttl_ms, now);
        }
    }

    /// Apply ended the TTL of a key that was set at `set_index`.
    pub fn kv_ttl_gone(&mut self, key: &Bytes, set_index: ConsulIndex) {
        if let Some(leading) = &mut self.leading {
            leading.ttls.gone(key, set_index);
        }
    }

    /// Apply wrote a tombstone. Also called again for the answer of [`Self::reap_due`] when its proposal
    /// failed.
    pub fn tombstone(&mut self, index: ConsulIndex, now: MonoTime) {
        if let Some(leading) = &mut self.leading {
            leading.tombstones.add(index, now);
        }
    }

    /// Apply began the lease of an entry of a fair queue.
    pub fn queue_lease(&mut self, lease: &QueueLease, now: MonoTime) {
        if let Some(leading) = &mut self.leading {
            leading.queues.lease(lease, now);
        }
    }

    /// Apply took an entry of a fair queue out.
    pub fn queue_gone(&mut self, index: u64) {
        if let Some(leading) = &mut self.leading {
            leading.queues.gone(index);
        }
    }

    /// Nobody stands in line for some fair lock since this index. Also called again for the answer of
    /// [`Self::free_queues_due`] when its proposal failed.
    pub fn queue_free(&mut self, index: ConsulIndex, now: MonoTime) {
        if let Some(leading) = &mut self.leading {
            leading.free_queues.add(index, now);
        }
    }

    /// Clients of some server wait for these entries of fair queues.
    pub fn queue_waited_for(&mut self, indexes: impl IntoIterator<Item = u64>, now: MonoTime) {
        if let Some(leading) = &mut self.leading {
            leading.queues.waited_for(indexes, now);
        }
    }

    /// All clients of a server that came to an entry of a fair queue, `callers` of them since it was there, have left it,
    /// and none of them was told that it has the lock. Answers whether [`Self::queues_expired`] takes it out therefore;
    /// `None` on a server that does not lead.
    pub fn queue_left(&mut self, server: RaftId, index: u64, callers: u64, now: MonoTime) -> Option<bool> {
        let leading = self.leading.as_mut()?;
        Some(leading.queues.left(server, index, callers, now))
    }

    /// All that apply reported up to this visible index was handed in.
    pub fn folded(&mut self, through: ConsulIndex) {
        if let Some(leading) = &mut self.leading {
            leading.folded_through = leading.folded_through.max(through);
        }
    }

    /// Renews a session for two TTLs, or for one if that is exact. All renewals at hand come before [`Self::expired`].
    pub fn renew(&mut self, id: SessionId, now: MonoTime) -> Renewal {
        match &mut self.leading {
            Some(leading) => leading.sessions.renew(id, now),
            None => Renewal::NotLeading,
        }
    }

    /// Whether a lock on the key may be proposed, and the `checked_at` that the command must carry then.
    /// `None` while a delay runs, and on a server that does not lead (rule R15).
    pub fn check_lock(&self, key: &[u8], now: MonoTime) -> Option<ConsulIndex> {
        let leading = self.leading.as_ref()?;
        (!leading.delays.runs(key, now)).then_some(leading.folded_through)
    }

    /// For how many milliseconds the lock-delay of a key still runs; 0 where none does, and on a server that does not
    /// lead.
    pub fn lock_delay_left_ms(&self, key: &[u8], now: MonoTime) -> u64 {
        self.leading
            .as_ref()
            .map_or(0, |leading| leading.delays.left_ms(key, now))
    }

    /// How long things still last. `None` on a server that does not lead.
    pub fn times_left(&self, now: MonoTime) -> Option<TimesLeft<'_>> {
        let leading = self.leading.as_ref()?;
        Some(TimesLeft { leading, now })
    }

    /// At most `max` sessions that ran out; their ends are to be proposed. They cannot be renewed any more,
    /// and are answered again after 2 s unless [`Self::session_gone`] was called.
    pub fn expired(&mut self, now: MonoTime, max: usize) -> Vec<SessionId> {
        self.leading
            .as_mut()
            .map_or_else(Vec::new, |leading| leading.sessions.expired(now, max))
    }

    /// At most `max` lock-delays that ended; a `LockDelayOver` is to be proposed, so that the next leader
    /// does not impose them again. They are answered again after 2 s unless [`Self::lock_delay_gone`] was
    /// called.
    pub fn delays_over(&mut self, now: MonoTime, max: usize) -> Vec<LockDelayRef> {
        self.leading
            .as_mut()
            .map_or_else(Vec::new, |leading| leading.delays.over(now, max))
    }

    /// At most `max` entries of fair queues that lapsed or that nobody waits for; a `QueueDrop` is to be proposed.
    /// `is_waited_for` says whether a client of this server waits for an entry. They are answered again after 2 s
    /// unless [`Self::queue_gone`] was called.
    pub fn queues_expired(
        &mut self,
        now: MonoTime,
        max: usize,
        is_waited_for: impl Fn(u64) -> bool,
    ) -> Vec<QueueDropRef> {
        self.leading.as_mut().map_or_else(Vec::new, |leading| {
            leading.queues.expired(now, max, is_waited_for)
        })
    }

    /// The index up to which names of fair locks that are free are to be forgotten now, answered once.
    pub fn free_queues_due(&mut self, now: MonoTime) -> Option<ConsulIndex> {
        self.leading.as_mut()?.free_queues.due(now)
    }

    /// At most `max` keys whose TTL ran out; a `KvTtlOver` is to be proposed. They are answered again after 2 s unless
    /// [`Self::kv_ttl_gone`] was called.
    pub fn kv_ttls_over(&mut self, now: MonoTime, max: usize) -> Vec<KvTtlRef> {
        self.leading
            .as_mut()
            .map_or_else(Vec::new, |leading| leading.ttls.over(now, max))
    }

    /// The index through which tombstones are to be reaped now, answered once.
    pub fn reap_due(&mut self, now: MonoTime) -> Option<ConsulIndex> {
        self.leading.as_mut()?.tombstones.due(now)
    }

    /// When [`Self::expired`] or another of the questions for what is due may have something to answer next; nothing
    /// needs to be called before. In the past if one call did not answer all.
    pub fn next_deadline(&self) -> Option<MonoTime> {
        let leading = self.leading.as_ref()?;
        let deadlines = [
            leading.sessions.next_deadline(),
            leading.delays.next_deadline(),
            leading.ttls.next_deadline(),
            leading.tombstones.next_deadline(),
            leading.queues.next_deadline(),
            leading.free_queues.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The number of sessions that have a timer.
    pub fn timed_sessions(&self) -> usize {
        self.leading.as_ref().map_or(0, |leading| leading.sessions.len())
    }
}
