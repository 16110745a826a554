//! Standing in line for fair locks, on behalf of clients of this server.
//!
//! ```text
//! client ──> enter_queue ──QueueEnter──> log ──> apply: granted, or waits
//!              │ Attempt: registered with the watch registry, counted here
//!              ├ granted by apply ──────────────> woken, answers
//!              └ gone, or out of patience ──────> left ──> the leader's timers end the entry if all who came have left
//! a follower's reporter ──who waits, who left──> leader's timers      (see `cluster/waits.rs`)
//! ```
//! That somebody waits is known to the timers of the leader alone and is not logged. On the leader they look it up here
//! when a wait is about to lapse; other servers report it. An entry counts all requests that came to it; here those of
//! this server are counted that left it without the lock, for as long as the entry is there.
//!
//! Lock order: the timers' manager, then the callers here.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_proto::limits::QUEUE_WAIT_TTL;
use lictor_proto::v1::{QueueEnter, QueueReport, QueueReportReply};
use lictor_proto::{Command, RaftId};
use lictor_state::{Area, Effect, Explained, Outcome, QueueAnswer, State};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::node::{LEADER_WAIT, RETRY_PAUSE, Shared};
use crate::{Node, ProposeError, TooManyWaiters, Topic, Waiter};

/// How long somebody who leaves a queue waits until that is done.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// A wait is reported so many times before it would lapse.
const REPORTS_PER_TTL: u64 = 3;
/// Longest and shortest time between two reports.
const REPORT_EVERY_MAX_MS: u64 = 20_000;
const REPORT_EVERY_MIN_MS: u64 = 300;
/// More entries that were left or answered are looked through for those that are gone.
const KEPT_MAX: usize = 64;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct QueueAsk {
    /// The name of the lock.
    pub name: Bytes,
    /// What its entry is found by; an entry of its own without it.
    pub value: Option<Bytes>,
    /// The length of its lease in milliseconds; 0 never lapses once the lock is held.
    pub ttl_ms: u64,
    /// Only if the lock is had at once.
    pub at_once: bool,
}

/// What became of it.
#[derive(Debug)]
pub enum Entered {
    /// It has a place, the first or another.
    Stands(QueueAttempt),
    /// An entry of the same value holds the lock, and its lease begins anew.
    Held {
        /// The entry.
        index: u64,
    },
    /// The lock is not to be had at once.
    Busy,
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has the lock.
    Holds,
    /// Others come before.
    Waits,
    /// Its entry was taken out, by somebody else or because nobody was heard of it.
    Gone,
}

/// The wait of one client. Dropping it leaves the queue, unless others wait for the same entry.
#[derive(Debug)]
pub struct QueueAttempt {
    shared: Arc<Shared>,
    name: Bytes,
    index: u64,
    waiter: Option<Waiter>,
    is_over: bool,
}

/// The clients of this server that stand in line.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    inner: Mutex<Inner>,
    /// Tells the reporter that it has something new to say, or has to say it sooner.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    standing: BTreeMap<u64, Standing>,
    /// Entries that all clients of this server have left, until they are gone.
    left: BTreeMap<u64, Left>,
    /// From so many on, those that are gone are looked for.
    left_room: usize,
    /// Entries, by the name of their lock, of which a client was told that it has the lock, until they are gone: they end
    /// by their lease alone, whoever else comes to them and leaves.
    answered: BTreeMap<u64, Bytes>,
    /// From so many on, those that are gone are looked for.
    answered_room: usize,
    /// When the reporter comes by itself.
    report_every_ms: u64,
    /// Requests for locks of keys that are under way, and what they were given.
    locks: BTreeMap<Bytes, Option<Explained>>,
}

/// Clients of this server at one entry.
#[derive(Debug)]
struct Standing {
    attempts: usize,
    ttl_ms: u64,
    /// Those who ever came, and were not told that they have the lock.
    came: u64,
}

#[derive(Debug)]
struct Left {
    name: Bytes,
    came: u64,
    /// To be told whether the entry is taken out.
    told: Option<oneshot::Sender<bool>>,
    /// Whether the leader knows; the next will have to be told.
    is_noted: bool,
}

impl Callers {
    /// Whether a client of this server stands at an entry.
    pub(crate) fn is_waited_for(&self, index: u64) -> bool {
        self.inner.lock().standing.contains_key(&index)
    }

    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    pub(crate) fn add(&self, index: u64, ttl_ms: u64) {
        let mut inner = self.inner.lock();
        let every_ms = report_every_ms(ttl_ms);
        let is_sooner = inner.report_every_ms == 0 || every_ms < inner.report_every_ms;
        // Whoever left before is told that the entry stays: somebody waits for it again.
        let came_before = inner.left.remove(&index).map_or(0, |left| left.came);
        let standing = inner.standing.entry(index).or_insert(Standing {
            attempts: 0,
            ttl_ms,
            came: came_before,
        });
        standing.attempts += 1;
        standing.came += 1;
        if came_before > 0 {
            self.changed.notify_one();
        }
        if is_sooner {
            inner.report_every_ms = every_ms;
            self.changed.notify_one();
        }
    }

    /// One client less. If it was the last, and none was ever told that it has the lock: how many have come.
    pub(crate) fn remove(&self, index: u64) -> Option<u64> {
        let mut inner = self.inner.lock();
        let standing = inner.standing.get_mut(&index)?;
        standing.attempts -= 1;
        if standing.attempts > 0 {
            return None;
        }
        let came = inner.standing.remove(&index).map(|standing| standing.came);
        came.filter(|_| !inner.answered.contains_key(&index))
    }

    /// The same for one that was told that it has the lock, or may have it.
    fn remove_answered(&self, name: &Bytes, index: u64, state: &State) {
        let mut inner = self.inner.lock();
        if inner.answered.len() >= inner.answered_room {
            inner.prune(state);
            inner.answered_room = (2 * inner.answered.len()).max(KEPT_MAX);
        }
        inner.answered.insert(index, name.clone());
        drop(inner);
        self.remove(index);
    }

    fn note_left(&self, index: u64, left: Left, state: &State) {
        let mut inner = self.inner.lock();
        if inner.left.len() >= inner.left_room {
            inner.prune(state);
            inner.left_room = (2 * inner.left.len()).max(KEPT_MAX);
        }
        inner.left.insert(index, left);
    }

    /// A request for the lock of a key is under way: what it is given will be known by [`Self::granted`].
    pub(crate) fn expect(&self, request: Bytes) {
        self.inner.lock().locks.insert(request, None);
    }

    /// Nobody wants to know any more.
    pub(crate) fn forget(&self, request: &Bytes) {
        self.inner.lock().locks.remove(request);
    }

    /// What a request was given. Known before the state is published that shows it.
    pub(crate) fn granted(&self, request: &Bytes) -> Option<Explained> {
        self.inner.lock().locks.get(request)?.clone()
    }

    /// Told by apply of what it did.
    pub(crate) fn note(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::LockGranted { request, granted, .. } = effect
                && let Some(told) = self.inner.lock().locks.get_mut(request)
            {
                *told = Some(granted.clone());
            }
        }
    }

    /// Another server leads, or this one: it has to be told of all that was left.
    pub(crate) fn leader_changed(&self) {
        for left in self.inner.lock().left.values_mut() {
            left.is_noted = false;
        }
    }

    /// What the leader is to be told.
    pub(crate) fn report(&self, state: &State) -> QueueReport {
        let mut inner = self.inner.lock();
        inner.prune(state);
        let left = || inner.left.iter().filter(|(_, left)| !left.is_noted);
        QueueReport {
            waiting: inner.standing.keys().copied().collect(),
            left: left().map(|(index, _)| *index).collect(),
            left_callers: left().map(|(_, left)| left.came).collect(),
        }
    }

    /// The leader has taken a report in.
    pub(crate) fn reported(&self, report: &QueueReport, reply: &QueueReportReply) {
        let mut inner = self.inner.lock();
        for index in &report.left {
            let is_going = reply.going.contains(index);
            let Some(left) = inner.left.get_mut(index) else {
                continue;
            };
            if let Some(told) = left.told.take() {
                // Whoever left may not care.
                let _ = told.send(is_going);
            }
            left.is_noted = true;
        }
    }

    /// How long until the next report; `None` while there is nothing to say.
    pub(crate) fn next_report(&self) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let ttls = inner.standing.values().map(|standing| standing.ttl_ms);
        let every_ms = ttls.map(report_every_ms).min().unwrap_or(0);
        inner.report_every_ms = every_ms;
        if inner.left.values().any(|left| !left.is_noted) {
            return Some(Duration::from_millis(REPORT_EVERY_MIN_MS));
        }
        (every_ms > 0).then(|| Duration::from_millis(every_ms))
    }
}

impl Inner {
    /// Forgets what was left or answered and is gone. What this server has not applied yet may still come.
    fn prune(&mut self, state: &State) {
        let stands = |name: &Bytes, index: u64| {
            state.queue_entry(name, index).is_some()
                || state.lock_wait(name, index).is_some()
                || !is_applied(state, index)
        };
        self.left.retain(|index, left| stands(&left.name, *index));
        self.answered.retain(|index, name| stands(name, *index));
    }
}

/// Whether a state is as new as the entry of that index.
pub(crate) fn is_applied(state: &State, index: u64) -> bool {
    state.visible(state.applied().0).0 >= index
}

fn report_every_ms(ttl_ms: u64) -> u64 {
    let wait_ms = u64::try_from(QUEUE_WAIT_TTL.as_millis()).unwrap_or(u64::MAX);
    let ttl_ms = if ttl_ms == 0 { wait_ms } else { ttl_ms };
    (ttl_ms / REPORTS_PER_TTL).clamp(REPORT_EVERY_MIN_MS, REPORT_EVERY_MAX_MS)
}

/// Sees a request to its end even if its client goes: the command stands, and somebody has to leave the queue for it.
/// What came of it is dropped where nobody is there to take it, and that leaves the queue.
pub(crate) async fn to_its_end<T: Send + 'static>(
    request: impl Future<Output = Result<T, ProposeError>> + Send + 'static,
) -> Result<T, ProposeError> {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        // Refused where nobody waits.
        let _ = tell.send(request.await);
    });
    told.await.unwrap_or(Err(ProposeError::Stopping))
}

impl Node {
    /// Stands in line for a fair lock. The place is kept as long as the [`QueueAttempt`] is; whoever stops waiting for
    /// this gives it up.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub async fn enter_queue(&self, ask: QueueAsk) -> Result<Entered, ProposeError> {
        let node = self.clone();
        to_its_end(async move { node.stand_in_line(ask).await }).await
    }

    async fn stand_in_line(&self, ask: QueueAsk) -> Result<Entered, ProposeError> {
        let QueueAsk {
            name,
            value,
            ttl_ms,
            at_once,
        } = ask;
        let command = Command::QueueEnter(QueueEnter {
            name: name.clone(),
            value,
            ttl_ms,
            request: Bytes::copy_from_slice(Uuid::new_v4().as_bytes()),
            at_once,
        });
        let answer = as_queue(self.propose_until_known(command).await?)?;
        let (QueueAnswer::Granted { index } | QueueAnswer::Waits { index }) = answer else {
            return Ok(match answer {
                QueueAnswer::Held { index } => Entered::Held { index },
                _ => Entered::Busy,
            });
        };
        self.shared().callers.add(index, ttl_ms);
        Ok(Entered::Stands(QueueAttempt {
            shared: Arc::clone(self.shared()),
            name,
            index,
            waiter: None,
            is_over: false,
        }))
    }

    /// Proposes a command that finds what it did before, and so may be proposed again where that is not known.
    pub(crate) async fn propose_until_known(&self, command: Command) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            match self.propose(command.clone()).await {
                Err(ProposeError::OutcomeUnknown) if Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// Proposes a command on fair queues.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub async fn propose_queue(&self, command: Command) -> Result<QueueAnswer, ProposeError> {
        as_queue(self.propose(command).await?)
    }
}

fn as_queue(outcome: Outcome) -> Result<QueueAnswer, ProposeError> {
    match outcome {
        Outcome::Queue(answer) => Ok(answer),
        outcome => {
            tracing::error!(
                ?outcome,
                "a command on a fair queue was answered in another's terms"
            );
            Err(ProposeError::OutcomeUnknown)
        }
    }
}

impl QueueAttempt {
    /// The index of the entry.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Where it stands now, as this server sees it.
    pub fn place(&self) -> Place {
        let state = self.shared.view.load();
        match state.queue_entry(&self.name, self.index) {
            // This server lags behind the leader that entered it.
            None if !is_applied(&state, self.index) => Place::Waits,
            None => Place::Gone,
            Some(entry) if entry.granted_index > 0 => Place::Holds,
            Some(_) => Place::Waits,
        }
    }

    /// Resolves when [`Self::place`] may have changed since it was last asked for. Cancel safe.
    ///
    /// # Errors
    /// [`TooManyWaiters`] when nobody more can wait on this server.
    pub async fn changed(&mut self) -> Result<(), TooManyWaiters> {
        match &mut self.waiter {
            Some(waiter) => waiter.changed().await,
            // It has to be looked at once more: what happened before was not heard.
            none => {
                let topic = Topic::Row(Area::Queue, &self.index.to_be_bytes());
                *none = Some(self.shared.watches.register(&[topic])?);
            }
        }
        Ok(())
    }

    /// The client is told that it has the lock, which it keeps from now on by itself.
    pub fn answered(self) {
        self.stay();
    }

    /// Ends the attempt but keeps the place as long as its lease lasts: the server stops, and the client may find its
    /// place again through another.
    pub fn stay(mut self) {
        self.is_over = true;
        let state = self.shared.view.load();
        self.shared
            .callers
            .remove_answered(&self.name, self.index, &state);
    }

    /// Leaves the queue. Resolves when the entry is gone, or others wait for it as well, or after a second at the
    /// latest.
    pub async fn leave(mut self) {
        self.is_over = true;
        let (told, is_going) = oneshot::channel();
        let left = self.shared.leave_queue(&self.name, self.index, Some(told));
        let gone = async {
            let is_going = match left {
                Some(is_going) => is_going,
                None => is_going.await.unwrap_or(false),
            };
            while is_going && self.place() != Place::Gone && self.changed().await.is_ok() {}
        };
        // Whatever it is now, the client has waited long enough.
        let _ = within(LEAVE_WAIT, gone).await;
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, work).await.ok()
}

impl Drop for QueueAttempt {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.leave_queue(&self.name, self.index, None);
        }
    }
}

impl Shared {
    /// A client of this server leaves an entry. Answers whether the entry ends with it, if that is known here; `told`
    /// hears it later otherwise.
    pub(crate) fn leave_queue(
        &self,
        name: &Bytes,
        index: u64,
        told: Option<oneshot::Sender<bool>>,
    ) -> Option<bool> {
        let Some(came) = self.callers.remove(index) else {
            return Some(false);
        };
        let is_going = self.timers.queue_left(self.me, index, came);
        // Kept until it is gone: the next leader has to hear of it if this one does not get it done.
        let left = Left {
            name: name.clone(),
            came,
            told,
            is_noted: is_going.is_some(),
        };
        self.callers.note_left(index, left, &self.view.load());
        if is_going.is_none() {
            self.callers.changed.notify_one();
        }
        is_going
    }

    /// What another server says of its clients. `None` unless this server leads.
    pub(crate) fn take_queue_report(&self, from: RaftId, report: &QueueReport) -> Option<Vec<u64>> {
        self.progress
            .is_serving()
            .then(|| self.timers.queue_report(from, report))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use lictor_proto::{LogIndex, Term};

    use super::*;

    #[test]
    fn a_wait_of_a_second_is_reported_three_times_a_second_and_a_long_one_seldom() {
        assert_eq!(report_every_ms(1_000), 333);
        assert_eq!(report_every_ms(1), 300);
        assert_eq!(report_every_ms(0), 20_000);
        assert_eq!(report_every_ms(u64::MAX), 20_000);
    }

    #[test]
    fn whoever_was_told_that_he_has_the_lock_is_not_left_by_the_others() {
        let (callers, state, name) = (Callers::default(), State::default(), Bytes::from_static(b"n"));
        callers.add(1, 1_000);
        callers.add(1, 1_000);

        callers.remove_answered(&name, 1, &state);
        assert_eq!(callers.remove(1), None, "the other has the lock");

        callers.add(1, 1_000);
        assert_eq!(
            callers.remove(1),
            None,
            "whoever comes to it later leaves nothing either"
        );
        callers.add(2, 1_000);
        assert_eq!(callers.remove(2), Some(1));
        assert!(!callers.is_waited_for(2));
    }

    fn left(came: u64, told: Option<oneshot::Sender<bool>>) -> Left {
        Left {
            name: Bytes::new(),
            came,
            told,
            is_noted: false,
        }
    }

    #[test]
    fn those_who_came_are_counted_as_long_as_the_entry_is_there() {
        let (callers, state) = (Callers::default(), State::default());
        callers.add(5, 1_000);
        callers.add(5, 1_000);
        assert_eq!(callers.remove(5), None, "one is there");
        assert_eq!(callers.remove(5), Some(2));
        callers.note_left(5, left(2, None), &state);

        callers.add(5, 1_000);

        assert_eq!(callers.remove(5), Some(3));
    }

    #[test]
    fn what_a_request_was_given_is_known_while_somebody_wants_to_know() {
        let callers = Callers::default();
        let granted = Explained {
            done: true,
            ..Explained::refused(None)
        };
        let [mine, other] = [&b"mine"[..], b"other"].map(Bytes::from_static);
        let effects = [&mine, &other].map(|request| Effect::LockGranted {
            request: request.clone(),
            place: None,
            granted: granted.clone(),
        });
        callers.expect(mine.clone());
        assert_eq!(callers.granted(&mine), None);

        callers.note(&effects);

        assert_eq!(
            (callers.granted(&mine), callers.granted(&other)),
            (Some(granted), None)
        );
        callers.forget(&mine);
        assert_eq!(callers.granted(&mine), None);
    }

    #[test]
    fn an_entry_that_was_left_and_is_waited_for_again_is_not_reported_as_left() {
        let (callers, state) = (Callers::default(), State::default());
        let (told, mut is_going) = oneshot::channel();
        callers.inner.lock().left.insert(5, left(1, Some(told)));

        callers.add(5, 1_000);

        assert_eq!(callers.report(&state).left, [] as [u64; 0]);
        assert_eq!(callers.report(&state).waiting, [5]);
        assert!(is_going.try_recv().is_err(), "it does not go");
    }

    #[test]
    fn what_was_left_is_reported_until_it_is_gone_or_others_wait_for_it() {
        let (callers, mut state) = (Callers::default(), State::default());
        assert_eq!(callers.next_report(), None);
        callers.add(3, 30_000);
        assert_eq!(callers.next_report(), Some(Duration::from_secs(10)));

        let (told, mut is_going) = oneshot::channel();
        callers.inner.lock().left.insert(7, left(2, Some(told)));
        assert_eq!(
            callers.next_report(),
            Some(Duration::from_millis(REPORT_EVERY_MIN_MS))
        );
        let report = callers.report(&state);
        assert_eq!((&report.left[..], &report.left_callers[..]), (&[7][..], &[2][..]));
        let reply = |going| QueueReportReply { leads: true, going };
        callers.reported(&report, &reply(vec![7]));
        assert_eq!(is_going.try_recv(), Ok(true));
        assert_eq!(callers.report(&state).left, [] as [u64; 0], "the leader knows");
        assert_eq!(callers.next_report(), Some(Duration::from_secs(10)));
        callers.leader_changed();
        assert_eq!(callers.report(&state).left, [7], "another does not");

        state.apply_empty(LogIndex(8), Term(1));
        assert!(callers.report(&state).left.is_empty(), "no such entry is there");
        assert_eq!(callers.report(&state).waiting, [3]);
    }
}
