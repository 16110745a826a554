//! What the leader does by the clock: session expiries, the ends of lock-delays and of keys with a TTL, the reaping of tombstones.
//!
//! The session manager decides, with the time as a parameter; the thread here sleeps until its next deadline and
//! proposes what it says. Nothing ticks while nothing is due. The manager's lock is held for a few lines only, by
//! this thread, by the apply thread (effects) and by request tasks (renewals, lock-delay checks).

use std::time::Duration;

use lictor_proto::v1::{KvTtlOver, KvTtlRef, LockDelayOver, LockDelayRef, ReapTombstones, SessionDestroy};
use lictor_proto::{Command, ConsulIndex, MonoTime, SessionId};
use lictor_session::{Armed, Renewal, SessionManager};
use lictor_state::{Effect, State};
use parking_lot::{Condvar, Mutex};

use crate::ProposeError;
use crate::node::Shared;
use crate::pipeline::Clock;

/// Expiries proposed in one turn, so that a mass expiry does not starve writes.
const EXPIRIES_MAX: usize = 256;
/// Lock-delays ended by one command.
const DELAYS_MAX: usize = 1024;
/// The pause of a turn in which something was due but nothing could be done yet.
const PAUSE: Duration = Duration::from_millis(50);

/// The session manager, and the thread that acts for it.
#[derive(Debug)]
pub(crate) struct Timers {
    clock: Clock,
    guarded: Mutex<Guarded>,
    /// Tells the thread that a deadline came forward, or that it is to end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Guarded {
    manager: SessionManager,
    /// The deadline that the thread sleeps for.
    armed: Option<MonoTime>,
    stopping: bool,
}

/// What is to be proposed now.
#[derive(Debug)]
struct Due {
    expired: Vec<SessionId>,
    delays: Vec<LockDelayRef>,
    ttls: Vec<KvTtlRef>,
    reap: Option<ConsulIndex>,
}

impl Timers {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            guarded: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Arms everything that the state holds, when this server begins to lead.
    pub(crate) fn lead(&self, state: &State) {
        let mut guarded = self.guarded.lock();
        guarded.manager.become_leader(self.clock.now(), Armed::of(state));
        self.wake_if_earlier(&guarded);
    }

    /// Forgets all timers: another server decides now.
    pub(crate) fn follow(&self) {
        self.guarded.lock().manager.step_down();
    }

    /// Takes in what apply did, up to the visible index `through`.
    pub(crate) fn fold(&self, effects: &[Effect], through: ConsulIndex) {
        let mut guarded = self.guarded.lock();
        guarded.manager.take_in(effects, through, self.clock.now());
        self.wake_if_earlier(&guarded);
    }

    /// Renews a session.
    pub(crate) fn renew(&self, id: SessionId) -> Renewal {
        self.guarded.lock().manager.renew(id, self.clock.now())
    }

    /// Refuses lock verbs on keys whose lock-delay runs, and notes in the command up to where delays were known
    /// (rule R15).
    pub(crate) fn check_locks(&self, command: &mut Command) -> Result<(), ProposeError> {
        if !matches!(command, Command::KvLock(_) | Command::Txn(_)) {
            return Ok(());
        }
        let guarded = self.guarded.lock();
        let checked = guarded.manager.check_command(command, self.clock.now());
        checked.map_err(ProposeError::LockDelay)
    }

    /// For how many milliseconds the lock-delay of a key still runs.
    pub(crate) fn lock_delay_left_ms(&self, key: &[u8]) -> u64 {
        let guarded = self.guarded.lock();
        guarded.manager.lock_delay_left_ms(key, self.clock.now())
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.guarded.lock().stopping = true;
        self.changed.notify_all();
    }

    /// The thread's work: waits for the next deadline and proposes what is due.
    pub(crate) fn run(shared: &Shared) {
        while let Some(due) = shared.timers.wait() {
            for id in due.expired {
                let id = id.0.to_vec().into();
                // Refused when the queue is full: the manager asks again after a while.
                let _ = shared.propose_unheard(Command::SessionDestroy(SessionDestroy { id }));
            }
            if !due.delays.is_empty() {
                // As above.
                let _ = shared.propose_unheard(Command::LockDelayOver(LockDelayOver { delays: due.delays }));
            }
            if !due.ttls.is_empty() {
                // As above.
                let _ = shared.propose_unheard(Command::KvTtlOver(KvTtlOver { ttls: due.ttls }));
            }
            if let Some(index) = due.reap
                && shared
                    .propose_unheard(Command::ReapTombstones(ReapTombstones { index: index.0 }))
                    .is_err()
            {
                let mut guarded = shared.timers.guarded.lock();
                guarded.manager.tombstone(index, shared.timers.clock.now());
            }
        }
    }

    /// Sleeps until something is due; `None` at the end.
    fn wait(&self) -> Option<Due> {
        let mut guarded = self.guarded.lock();
        loop {
            if guarded.stopping {
                return None;
            }
            let now = self.clock.now();
            guarded.armed = guarded.manager.next_deadline();
            match guarded.armed {
                None => self.changed.wait(&mut guarded),
                Some(deadline) if deadline > now => {
                    self.changed
                        .wait_until(&mut guarded, self.clock.instant(deadline));
                }
                Some(_) => {
                    let manager = &mut guarded.manager;
                    let due = Due {
                        expired: manager.expired(now, EXPIRIES_MAX),
                        delays: manager.delays_over(now, DELAYS_MAX),
                        ttls: manager.kv_ttls_over(now, EXPIRIES_MAX),
                        reap: manager.reap_due(now),
                    };
                    if !due.is_empty() {
                        return Some(due);
                    }
                    // Due, but held back after a stall, or a renewed session whose place has to be moved.
                    if guarded.manager.next_deadline().is_some_and(|next| next <= now) {
                        self.changed.wait_for(&mut guarded, PAUSE);
                    }
                }
            }
        }
    }

    fn wake_if_earlier(&self, guarded: &Guarded) {
        let Some(next) = guarded.manager.next_deadline() else {
            return;
        };
        if guarded.armed.is_none_or(|armed| next < armed) {
            self.changed.notify_one();
        }
    }
}

impl Due {
    fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.delays.is_empty() && self.ttls.is_empty() && self.reap.is_none()
    }
}
