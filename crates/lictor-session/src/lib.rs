//! The leader's session manager: when sessions expire, when lock-delays end, when tombstones may be reaped, when the
//! leases of fair queues lapse.
//!
//! It reads no clock (time is a parameter), owns no thread, proposes nothing and holds no row: it turns what
//! apply reports into deadlines and answers what is due. A follower keeps it empty.
//!
//! ```text
//! apply ──session created/gone, delay set/gone, tombstone> ┌────────────────┐ ──expired───> SessionDestroy
//! clients ──renew────────────────────────────────────────> │ SessionManager │ ──delays_over─> LockDelayOver
//! lock verbs ──check_lock──> checked_at or "wait"  <────── │                │ ──reap_due──> ReapTombstones
//! who looks on ──times_left──> milliseconds       <────── │                │
//! servers ──who waits in fair queues, who left───────────> └────────────────┘ ──queues_expired─> QueueDrop
//!                                                  next_deadline: when to ask again
//! ```
//!
//! ```
//! use lictor_proto::{ConsulIndex, MonoTime, SessionId};
//! use lictor_session::{Armed, Renewal, SessionManager};
//!
//! let (mut manager, id) = (SessionManager::default(), SessionId([7; 16]));
//! manager.become_leader(MonoTime(0), Armed::default());
//! manager.session_created(id, 10_000, MonoTime(1_000));
//! assert_eq!(manager.renew(id, MonoTime(9_000)), Renewal::Renewed);
//! assert_eq!(manager.next_deadline(), Some(MonoTime(21_000)));
//! assert!(manager.expired(MonoTime(21_000), 256).is_empty(), "the renewal moved it");
//! assert_eq!(manager.expired(MonoTime(29_000), 256), [id]);
//! ```
//!
//! # Deadlines
//!
//! An ordered set holds them, rounded up to 100 ms, so that what ends together is woken once. A renewal only
//! writes the new deadline into the session; the set is put right when the old one comes up. So a renewal
//! costs one look-up at a million sessions, nothing is done while nothing is due, and everything is done in
//! an order that does not depend on the machine.
//!
//! # Why it is correct
//!
//! * A session is reported no earlier than its deadline, which lies two TTLs behind its last renewal, or one
//!   where that was asked for, and one behind the election of a leader that cannot know about the last renewal
//!   (`sessions_expire_in_time_and_never_early`).
//! * Renewals come before expiries: the caller hands in all it has before it asks for
//!   [`SessionManager::expired`]. Those that stand in sockets after the process or machine stood still get a
//!   moment to arrive as well (`r16_after_a_stall_renewals_come_before_expiries`).
//! * What was proposed and got lost is reported again, until apply reports it gone; to end a thing twice is
//!   harmless.
//! * A lock is let through only with the index up to which all delays are known here. Apply refuses it if one
//!   was set later, so no lock in flight slips past a delay
//!   (`r15_a_lock_carries_the_index_up_to_which_delays_are_known`).
//! * An entry of a fair queue goes at once when all requests that ever came to it are known to have left without the
//!   lock. The log counts those that came, each server those of its own that left: so a request that is still on its
//!   way, and one that was answered by a server of which nobody hears, keep the entry, whoever leads
//!   (`an_entry_goes_when_all_who_came_are_known_to_have_left`).

mod bins;
mod delays;
mod feed;
mod manager;
mod queues;
mod sessions;
mod stall;
#[cfg(test)]
mod tests;
mod ttls;

pub use manager::{Armed, SessionManager, TimesLeft};
pub use sessions::{Renewal, Ttl};

use lictor_proto::MonoTime;

/// Deadlines are rounded up to this, in milliseconds.
const SLOT_MS: u64 = 100;
/// What was proposed is reported again after this time, unless apply reported it done.
const PROPOSE_AGAIN_MS: u64 = 2_000;
/// Bytes of keys or names in one command, if it has more than one: it must stay small enough to be sent to followers.
const NAMES_MAX_BYTES: usize = 1 << 20;

fn slot(at: MonoTime) -> MonoTime {
    MonoTime(at.0.checked_next_multiple_of(SLOT_MS).unwrap_or(u64::MAX))
}
