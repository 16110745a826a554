//! What the leader does by the clock: session expiries, the ends of lock-delays and of keys with a TTL, the reaping of
//! tombstones, the lapse of leases in fair queues.
//!
//! The session manager decides, with the time as a parameter; the thread here sleeps until its next deadline and
//! proposes what it says. Nothing ticks while nothing is due. The manager's lock is held for a few lines only, by
//! this thread, by the apply thread (effects) and by request tasks (renewals, lock-delay checks, looks at the time left).

use std::time::Duration;

use lictor_proto::v1::{
    KvTtlOver, KvTtlRef, LockDelayOver, LockDelayRef, QueueDrop, QueueDropRef, QueueForget, QueueReport,
    ReapTombstones, SessionDestroy,
};
use lictor_proto::{Command, ConsulIndex, MonoTime, RaftId, SessionId, Term};
use lictor_session::{Armed, Renewal, SessionManager, TimesLeft};
use lictor_state::{Effect, State};
use parking_lot::{Condvar, Mutex};

use crate::ProposeError;
use crate::node::Shared;
use crate::pipeline::Clock;
use crate::queues::Callers;

/// Expiries proposed in one turn, so that a mass expiry does not starve writes.
const EXPIRIES_MAX: usize = 256;
/// Lock-delays ended by one command.
const DELAYS_MAX: usize = 1024;
/// Entries of fair queues taken out by one command.
const QUEUE_DROPS_MAX: usize = 4096;
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
    /// In which this server began to lead; what follows from these timers is proposed in no other.
    term: Term,
    /// The deadline that the thread sleeps for.
    armed: Option<MonoTime>,
    stopping: bool,
}

/// What is to be proposed now.
#[derive(Debug)]
struct Due {
    term: Term,
    expired: Vec<SessionId>,
    delays: Vec<LockDelayRef>,
    ttls: Vec<KvTtlRef>,
    reap: Option<ConsulIndex>,
    lapsed: Vec<QueueDropRef>,
    forget: Option<ConsulIndex>,
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
        // A leader that serves has applied an entry of its term.
        guarded.term = state.applied().1;
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

    /// Sessions that this leader watches over.
    pub(crate) fn timed_sessions(&self) -> usize {
        self.guarded.lock().manager.timed_sessions()
    }

    /// Renews a session.
    pub(crate) fn renew(&self, id: SessionId) -> Renewal {
        self.guarded.lock().manager.renew(id, self.clock.now())
    }

    /// Takes in what a server says of its clients in fair queues; answers which entries end therefore. `None` while this
    /// server does not lead.
    pub(crate) fn queue_report(&self, from: RaftId, report: &QueueReport) -> Option<Vec<u64>> {
        let mut guarded = self.guarded.lock();
        let (now, manager) = (self.clock.now(), &mut guarded.manager);
        manager.queue_waited_for(report.waiting.iter().copied(), now);
        let mut going = Vec::new();
        for (&index, &callers) in report.left.iter().zip(&report.left_callers) {
            if manager.queue_left(from, index, callers, now)? {
                going.push(index);
            }
        }
        self.wake_if_earlier(&guarded);
        Some(going)
    }

    /// The same for one entry that clients of this server have left.
    pub(crate) fn queue_left(&self, me: RaftId, index: u64, callers: u64) -> Option<bool> {
        let mut guarded = self.guarded.lock();
        let now = self.clock.now();
        let is_going = guarded.manager.queue_left(me, index, callers, now);
        self.wake_if_earlier(&guarded);
        is_going
    }

    /// Refuses lock verbs on keys whose lock-delay runs, and notes in the command up to where delays were known
    /// (rule R15).
    pub(crate) fn check_locks(&self, command: &mut Command) -> Result<(), ProposeError> {
        if !matches!(
            command,
            Command::KvLock(_) | Command::KvLockEnter(_) | Command::Txn(_)
        ) {
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

    /// Looks at how long things still last, all at one moment and within a few look-ups. `None` while this server does not
    /// lead.
    pub(crate) fn times_left<T>(&self, look: impl FnOnce(TimesLeft<'_>) -> T) -> Option<T> {
        let guarded = self.guarded.lock();
        guarded.manager.times_left(self.clock.now()).map(look)
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.guarded.lock().stopping = true;
        self.changed.notify_all();
    }

    /// The thread's work: waits for the next deadline and proposes what is due, if nobody else can lead (rule R16).
    pub(crate) fn run(shared: &Shared) {
        while shared.timers.wait() {
            if shared.confirm_leadership() {
                propose(shared, shared.timers.take_due(&shared.callers));
            } else {
                shared.timers.pause();
            }
        }
    }

    /// Sleeps until something is due; `false` at the end.
    fn wait(&self) -> bool {
        let mut guarded = self.guarded.lock();
        loop {
            if guarded.stopping {
                return false;
            }
            guarded.armed = guarded.manager.next_deadline();
            match guarded.armed {
                None => self.changed.wait(&mut guarded),
                Some(deadline) if deadline > self.clock.now() => {
                    self.changed
                        .wait_until(&mut guarded, self.clock.instant(deadline));
                }
                Some(_) => return true,
            }
        }
    }

    /// What is due. Pauses if it is held back after a stall, or only the place of a renewed session was to be moved.
    fn take_due(&self, callers: &Callers) -> Due {
        let mut guarded = self.guarded.lock();
        let now = self.clock.now();
        let manager = &mut guarded.manager;
        let due = Due {
            expired: manager.expired(now, EXPIRIES_MAX),
            delays: manager.delays_over(now, DELAYS_MAX),
            ttls: manager.kv_ttls_over(now, EXPIRIES_MAX),
            reap: manager.reap_due(now),
            lapsed: manager.queues_expired(now, QUEUE_DROPS_MAX, |index| callers.is_waited_for(index)),
            forget: manager.free_queues_due(now),
            term: guarded.term,
        };
        if due.is_empty() && guarded.manager.next_deadline().is_some_and(|next| next <= now) {
            self.changed.wait_for(&mut guarded, PAUSE);
        }
        due
    }

    /// Lets some time go by, unless something changes.
    fn pause(&self) {
        let mut guarded = self.guarded.lock();
        if !guarded.stopping {
            self.changed.wait_for(&mut guarded, PAUSE);
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
        self.expired.is_empty()
            && self.delays.is_empty()
            && self.ttls.is_empty()
            && self.reap.is_none()
            && self.lapsed.is_empty()
            && self.forget.is_none()
    }
}

fn propose(shared: &Shared, due: Due) {
    for id in due.expired {
        let id = id.0.to_vec().into();
        // Refused when the queue is full: the manager asks again after a while.
        let destroy = Command::SessionDestroy(SessionDestroy { id });
        if shared.propose_unheard(due.term, destroy).is_ok() {
            shared.metrics.sessions_expired.one();
        }
    }
    if !due.delays.is_empty() {
        // As above.
        let over = LockDelayOver { delays: due.delays };
        let _ = shared.propose_unheard(due.term, Command::LockDelayOver(over));
    }
    if !due.ttls.is_empty() {
        // As above.
        let over = KvTtlOver { ttls: due.ttls };
        let _ = shared.propose_unheard(due.term, Command::KvTtlOver(over));
    }
    if let Some(index) = due.reap {
        let reap = Command::ReapTombstones(ReapTombstones { index: index.0 });
        if shared.propose_unheard(due.term, reap).is_err() {
            let mut guarded = shared.timers.guarded.lock();
            guarded.manager.tombstone(index, shared.timers.clock.now());
        }
    }
    if !due.lapsed.is_empty() {
        // As above.
        let drop = QueueDrop { entries: due.lapsed };
        let _ = shared.propose_unheard(due.term, Command::QueueDrop(drop));
    }
    if let Some(index) = due.forget {
        let forget = Command::QueueForget(QueueForget { index: index.0 });
        if shared.propose_unheard(due.term, forget).is_err() {
            let mut guarded = shared.timers.guarded.lock();
            guarded.manager.queue_free(index, shared.timers.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use lictor_proto::v1::{NodeRow, Register, SessionCreate, SessionRow};
    use lictor_proto::{LogIndex, RaftId};
    use lictor_raft::RoleChange;
    use lictor_state::Effects;

    use super::*;
    use crate::mailbox::Drained;
    use crate::pipeline::Event;
    use crate::{Identity, Node, Options, ReadError};

    const REIGN: Term = Term(3);
    const ID: SessionId = SessionId([7; 16]);

    /// A state with a session that runs out soon.
    fn state() -> State {
        let (mut state, mut effects) = (State::default(), Effects::default());
        let node = NodeRow {
            node: "n".to_owned(),
            address: "127.0.0.1".to_owned(),
            ..NodeRow::default()
        };
        let register = Register {
            node: Some(node),
            ..Register::default()
        };
        let session = SessionRow {
            id: ID.0.to_vec().into(),
            node: "n".to_owned(),
            ttl_ms: 1,
            ..SessionRow::default()
        };
        let create = SessionCreate {
            session: Some(session),
        };
        let commands = [Command::Register(register), Command::SessionCreate(create)];
        for (index, command) in (1..).zip(&commands) {
            state.apply(LogIndex(index), REIGN, command, &mut effects);
        }
        state
    }

    /// A leader in [`REIGN`] whose pipeline is played by the test.
    fn leader() -> Node {
        let options = Options {
            identity: Identity::of_a_test(),
            raft_id: RaftId(1),
            limit_watches: 10,
            staging: std::env::temp_dir().join("lictor-unused"),
        };
        let node = Node::new(options).unwrap();
        let shared = node.shared();
        shared.progress.set_role(&RoleChange {
            leader: Some(RaftId(1)),
            term: REIGN,
            is_leader: true,
            no_op: LogIndex(2),
        });
        shared
            .progress
            .serve_from(LogIndex(2), || shared.timers.lead(&state()));
        node
    }

    fn next_event(shared: &Shared) -> Event {
        let mut events = Vec::new();
        let limit = Instant::now() + Duration::from_secs(60);
        assert_eq!(shared.raft.drain(&mut events, Some(limit)), Drained::Items);
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// Runs the timers of a leader, and `test` as its raft thread.
    fn with_timers(node: &Node, test: impl FnOnce(&Arc<Shared>)) {
        let shared = node.shared();
        std::thread::scope(|scope| {
            let timers = scope.spawn(|| Timers::run(shared));
            let stop = StopOnDrop(shared);
            test(shared);
            drop(stop);
            timers.join().unwrap();
        });
    }

    /// A test that fails is to end too.
    struct StopOnDrop<'a>(&'a Shared);

    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.timers.stop();
            self.0.gate.close();
        }
    }

    fn is_end_of_the_session(event: &Event) -> bool {
        let Event::ProposeIn(REIGN, proposal) = event else {
            return false;
        };
        let command = Command::from_entry_bytes(proposal.data.clone().into()).unwrap();
        matches!(command, Some(Command::SessionDestroy(end)) if end.id == ID.0.as_slice())
    }

    #[test]
    fn r16_without_a_lease_an_expiry_is_proposed_only_after_a_round_with_the_voters() {
        with_timers(&leader(), |shared| {
            // Nobody answers the first two.
            for _ in 0..2 {
                assert!(matches!(next_event(shared), Event::Read));
                let (round, _) = shared.gate.begin().unwrap();
                shared.gate.end(round, &Err(ReadError::NoLeader));
            }
            assert!(matches!(next_event(shared), Event::Read));
            let (round, _) = shared.gate.begin().unwrap();
            shared.gate.end(round, &Ok(LogIndex(2)));

            let event = next_event(shared);
            assert!(is_end_of_the_session(&event), "{event:?}");
        });
    }

    #[test]
    fn r16_under_a_lease_an_expiry_needs_no_round() {
        let node = leader();
        node.shared().progress.set_lease(Some(MonoTime(u64::MAX - 1)));

        with_timers(&node, |shared| {
            let event = next_event(shared);
            assert!(is_end_of_the_session(&event), "{event:?}");
        });
    }

    #[tokio::test]
    async fn r16_what_a_leader_concluded_is_proposed_in_its_term_only() {
        let node = Node::in_memory(Identity::of_a_test()).unwrap();
        node.read(crate::Consistency::Default).await.unwrap();
        let term = node.shared().progress.term();
        let command = Command::ReapTombstones(ReapTombstones { index: 1 });

        let before = node.propose_in(Term(term.0 - 1), command.clone()).await;
        let now = node.propose_in(term, command).await;

        assert!(matches!(before, Err(ProposeError::NoLeader)), "{before:?}");
        assert!(now.is_ok(), "{now:?}");
        tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
    }
}
