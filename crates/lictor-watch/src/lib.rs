//! # lictor-watch
//!
//! Wakes blocking queries exactly when what they wait for changes. Holds no data and does no I/O.
//!
//! ```text
//! apply thread ──dirty──> ordered tables ──few waiters──> their wakers, at once
//!                         │ keys, in 32 shards
//!                         │ prefixes
//!                         └ rows of other areas  ──a herd──> [bounded set of spans] ──> wake thread
//! ```
//!
//! A sleeping query costs one slot, its place in a table and its key: no task, no timer, no thread. A change
//! of a key costs one search among the keys and one among the prefixes for every prefix of it that is waited
//! for, however many queries sleep on other keys.
//!
//! A query must register *before* it reads; otherwise a change between the two is lost.
//!
//! # Why it is correct
//!
//! Let a query register (R), then read the view (V), and let apply publish a view (P), then search the tables
//! (S). R and S hold the lock of the same table, so one of them comes first.
//!
//! * R before S: S finds the waiter and sets its signal, or leaves the whole span of keys to the wake thread,
//!   which searches it later (`a_herd_is_woken_by_the_wake_thread`). A waiter can leave a table only by its
//!   owner's hand.
//! * S before R: the lock carries P to the query, so V shows the change
//!   (`no_change_between_read_and_sleep_is_lost`). The same holds for a waiter that takes a free place behind
//!   the wake thread's cursor.
//!
//! A signal is kept until [`Waiter::changed`] consumes it, so it does not matter whether the query sleeps yet
//! (`a_change_before_the_sleep_ends_it_at_once`). A signal that finds another one unconsumed adds nothing,
//! since the read that follows its consumption comes after both
//! (`changes_before_the_waiter_runs_count_once`).
//!
//! Lock order: a table, then a slot. Wakers are never run or dropped under either, because they may drop the
//! task that owns a waiter, which takes the table's lock.

mod herd;
mod slot;
mod table;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use lictor_state::{Area, Dirty};
use parking_lot::Mutex;
use smallvec::SmallVec;

use self::herd::Herds;
use self::slot::Slot;
use self::table::{Place, Span, Table, Wakers};

/// What a waiter waits for.
#[derive(Debug, Clone, Copy)]
pub enum Topic<'a> {
    /// One key.
    Key(&'a [u8]),
    /// Every key below a prefix.
    Prefix(&'a [u8]),
    /// A row of an area, or with an empty key an area as a whole.
    Row(Area, &'a [u8]),
}

/// The registry is at its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many blocking queries on this server")]
pub struct TooManyWaiters;

/// All sleeping blocking queries of this server. Owns the wake thread, which ends with it.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    herds: Herds,
}

/// One sleeping query; dropping it unregisters it.
#[derive(Debug)]
pub struct Waiter {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    places: SmallVec<[(TableId, Place); 1]>,
}

/// Waiters that the caller of [`Registry::wake`] wakes itself. More than these are left to the wake thread: a
/// wake-up costs about a microsecond, which the next batch of writes would wait for.
const INLINE_WAITERS_MAX: usize = 16;
/// Locks over the waiters of single keys: more than there are threads that register.
const KEY_SHARDS: usize = 32;

const PREFIXES: TableId = TableId(0);
const ROWS: TableId = TableId(1);
const FIRST_KEYS: usize = 2;

/// One of the tables: the prefixes, the rows, or a shard of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TableId(usize);

impl TableId {
    /// The shard of a key. Which one does not matter for correctness, so the hash has a fixed seed.
    fn of_key(key: &[u8]) -> Self {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        Self(FIRST_KEYS + hash as usize % KEY_SHARDS)
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..FIRST_KEYS + KEY_SHARDS).map(Self)
    }

    fn all_keys() -> impl Iterator<Item = Self> {
        Self::all().skip(FIRST_KEYS)
    }
}

/// What the waiters and the wake thread share with the registry.
#[derive(Debug)]
struct Shared {
    tables: Box<[Mutex<Table>]>,
    waiters: AtomicUsize,
    limit_waiters: usize,
    woken: AtomicU64,
    registered: AtomicU64,
    refused: AtomicU64,
}

impl Shared {
    fn table(&self, id: TableId) -> &Mutex<Table> {
        &self.tables[id.0]
    }

    /// Wakes what was collected. No lock may be held.
    fn run(&self, wakers: Wakers) {
        self.woken.fetch_add(wakers.signalled(), Ordering::Relaxed);
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Registry {
    /// A registry for at most `limit_waiters` sleeping queries, and its wake thread.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn new(limit_waiters: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            tables: TableId::all().map(|_| Mutex::default()).collect(),
            waiters: AtomicUsize::new(0),
            limit_waiters,
            woken: AtomicU64::new(0),
            registered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let herds = Herds::start(Arc::clone(&shared))?;
        Ok(Self { shared, herds })
    }

    /// Registers interest in any of the topics. Read after this, then wait.
    ///
    /// # Errors
    /// [`TooManyWaiters`] at the bound.
    pub fn register(&self, topics: &[Topic<'_>]) -> Result<Waiter, TooManyWaiters> {
        let shared = &self.shared;
        let room = |waiters| (waiters < shared.limit_waiters).then_some(waiters + 1);
        shared
            .waiters
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map_err(|_| {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                TooManyWaiters
            })?;
        shared.registered.fetch_add(1, Ordering::Relaxed);
        let mut waiter = Waiter {
            shared: Arc::clone(shared),
            slot: Arc::default(),
            places: SmallVec::new(),
        };
        for topic in topics {
            match *topic {
                Topic::Key(key) => waiter.enter(TableId::of_key(key), key),
                Topic::Prefix(prefix) => waiter.enter(PREFIXES, prefix),
                Topic::Row(area, key) => waiter.enter(ROWS, &row_key(area, key)),
            }
        }
        Ok(waiter)
    }

    /// Wakes whoever waits for these changes. Called after the view that shows them is published.
    pub fn wake(&self, dirty: &[Dirty]) {
        let mut budget = INLINE_WAITERS_MAX;
        for change in dirty {
            match change {
                Dirty::Key(key) => {
                    self.offer(TableId::of_key(key), Span::One(key.clone()), &mut budget);
                    self.offer_ancestors(key, &mut budget);
                }
                Dirty::Tree(prefix) => {
                    for keys in TableId::all_keys() {
                        self.offer(keys, Span::Below(prefix.clone()), &mut budget);
                    }
                    self.offer(PREFIXES, Span::Below(prefix.clone()), &mut budget);
                    self.offer_ancestors(prefix, &mut budget);
                }
                Dirty::Row(area, key) => {
                    let key = Bytes::copy_from_slice(&row_key(*area, key));
                    self.offer(ROWS, Span::One(key), &mut budget);
                }
                Dirty::All => {
                    for table in TableId::all() {
                        self.offer(table, Span::Below(Bytes::new()), &mut budget);
                    }
                }
            }
        }
    }

    /// Queries that sleep or are about to.
    pub fn waiters(&self) -> usize {
        self.shared.waiters.load(Ordering::Relaxed)
    }

    /// The most that may sleep.
    pub fn limit(&self) -> usize {
        self.shared.limit_waiters
    }

    /// How many were registered since the start.
    pub fn registered_total(&self) -> u64 {
        self.shared.registered.load(Ordering::Relaxed)
    }

    /// How many were refused at the bound since the start.
    pub fn refused_total(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// How many waiters were signalled since the start.
    pub fn woken_total(&self) -> u64 {
        self.shared.woken.load(Ordering::Relaxed)
    }

    /// Wakes a span now if that is within the budget, else leaves it to the wake thread.
    fn offer(&self, id: TableId, span: Span, budget: &mut usize) {
        let mut table = self.shared.table(id).lock();
        let waiters = table.count(&span, *budget + 1);
        if waiters == 0 {
            return;
        }
        if waiters <= *budget {
            *budget -= waiters;
            let wakers = table.signal_all(&span);
            drop(table);
            self.shared.run(wakers);
        } else {
            drop(table);
            self.herds.add(id, span);
        }
    }

    /// The same for each prefix of `key` that somebody waits for.
    fn offer_ancestors(&self, key: &Bytes, budget: &mut usize) {
        let lengths = self.shared.table(PREFIXES).lock().ancestors(key);
        for len in lengths {
            self.offer(PREFIXES, Span::One(key.slice(..len)), budget);
        }
    }
}

/// The key of a row in the table that all areas share.
fn row_key(area: Area, key: &[u8]) -> SmallVec<[u8; 64]> {
    let mut tagged = SmallVec::with_capacity(1 + key.len());
    tagged.push(area as u8);
    tagged.extend_from_slice(key);
    tagged
}

impl Waiter {
    /// Resolves once one of the topics changed since registration or since this last resolved. Cancel safe: a
    /// change is consumed only by the poll that answers it.
    pub async fn changed(&mut self) {
        std::future::poll_fn(|cx| self.poll_changed(cx)).await;
    }

    /// The same for a hand-written future.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.slot.poll(cx)
    }

    fn enter(&mut self, id: TableId, key: &[u8]) {
        let place = self.shared.table(id).lock().insert(key, Arc::clone(&self.slot));
        self.places.push((id, place));
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        for (id, place) in &self.places {
            self.shared.table(*id).lock().remove(place);
        }
        self.shared.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}
