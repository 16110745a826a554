//! Standing in line for the locks of keys, on behalf of clients of this server.
//!
//! The line is in the state, and what keeps a place in it is what keeps one in a fair queue (see `queues.rs`): a client that
//! waits. Whoever gets the lock leaves the line with it, so a state does not show any more what a request was given; apply
//! tells it to those who asked, before it publishes that state.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lictor_proto::limits::LOCK_WAIT_TTL;
use lictor_proto::v1::{KvLock, KvLockEnter};
use lictor_proto::{Command, ConsulIndex, LogIndex, SessionId};
use lictor_state::{ApplyError, Area, Explained, Outcome, QueueAnswer, State};
use uuid::Uuid;

use crate::node::{LEADER_WAIT, Shared};
use crate::queues::{is_applied, to_its_end};
use crate::{Node, ProposeError, TooManyWaiters, Topic, Waiter};

/// What became of a session that asked for a lock.
#[derive(Debug)]
pub enum LockEntered {
    /// It has it.
    Granted(Explained),
    /// It stands in line.
    Stands(LockAttempt),
    /// There is no such session.
    Failed(ApplyError),
}

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockPlace {
    /// The session has, or had, the lock by this request.
    Granted(Explained),
    /// Others come before, or a lock-delay runs.
    Waits,
    /// It has left the line, and was not given the lock.
    Left,
    /// Its session has ended.
    NoSession,
    /// The state was replaced as a whole, and it is not known whether it was given the lock before.
    Unknown,
}

/// The wait of one client. Dropping it leaves the line, if it still stands there.
#[derive(Debug)]
pub struct LockAttempt {
    expected: Expected,
    key: Bytes,
    session: String,
    index: u64,
    /// As of which whole state it began.
    replaced_at: LogIndex,
    waiter: Option<Waiter>,
    is_over: bool,
}

/// Apply is to remember what a request is given, until this is dropped.
#[derive(Debug)]
struct Expected {
    shared: Arc<Shared>,
    request: Bytes,
}

impl Expected {
    fn new(shared: &Arc<Shared>, request: Bytes) -> Self {
        shared.callers.expect(request.clone());
        Self {
            shared: Arc::clone(shared),
            request,
        }
    }

    fn granted(&self) -> Option<Explained> {
        self.shared.callers.granted(&self.request)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.shared.callers.forget(&self.request);
    }
}

impl Node {
    /// Takes the lock of a key for a session, or stands in line for it. The place is kept as long as the [`LockAttempt`]
    /// is; whoever stops waiting for this gives it up.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub async fn enter_line(&self, lock: KvLock) -> Result<LockEntered, ProposeError> {
        let node = self.clone();
        to_its_end(async move { node.stand_in_line_for(lock).await }).await
    }

    async fn stand_in_line_for(&self, lock: KvLock) -> Result<LockEntered, ProposeError> {
        let shared = self.shared();
        let request = Bytes::copy_from_slice(Uuid::new_v4().as_bytes());
        // Before it is proposed: apply may give it the lock before the answer is here.
        let expected = Expected::new(shared, request.clone());
        let replaced_at = self.view().replaced_at();
        let (key, session) = (lock.key.clone(), lock.session.clone());
        let command = Command::KvLockEnter(KvLockEnter {
            lock: Some(lock),
            request,
        });
        let outcome = match self.propose_until_known(command).await {
            Err(ProposeError::OutcomeUnknown) => match expected.granted() {
                Some(granted) => return Ok(LockEntered::Granted(granted)),
                None => return Err(ProposeError::OutcomeUnknown),
            },
            outcome => outcome?,
        };
        match outcome {
            Outcome::Explained(granted) => Ok(LockEntered::Granted(granted)),
            Outcome::Failed(error) => Ok(LockEntered::Failed(error)),
            Outcome::Queue(QueueAnswer::Waits { index }) => {
                let ttl_ms = u64::try_from(LOCK_WAIT_TTL.as_millis()).unwrap_or(u64::MAX);
                shared.callers.add(index, ttl_ms);
                Ok(LockEntered::Stands(LockAttempt {
                    expected,
                    key,
                    session,
                    index,
                    replaced_at,
                    waiter: None,
                    is_over: false,
                }))
            }
            outcome => {
                tracing::error!(?outcome, "a request for a lock was answered in another's terms");
                Err(ProposeError::OutcomeUnknown)
            }
        }
    }
}

impl LockAttempt {
    /// Where it stands now, as this server sees it.
    pub fn place(&self) -> LockPlace {
        let state = self.expected.shared.view.load();
        let waits = state.lock_wait(&self.key, self.index).is_some() || !is_applied(&state, self.index);
        // What was granted is told before a state shows it.
        match self.expected.granted() {
            Some(granted) => LockPlace::Granted(granted),
            None if waits => LockPlace::Waits,
            None => self.why_gone(&state),
        }
    }

    fn why_gone(&self, state: &State) -> LockPlace {
        let row = state.kv_get(&self.key);
        let holds = row.filter(|row| row.session() == Some(&self.session));
        if let Some(row) = holds {
            // Whoever has a lock and asks for it again is told that he has it.
            return LockPlace::Granted(Explained {
                done: true,
                modify_index: Some(ConsulIndex(row.modify_index())),
                lock_index: Some(row.lock_index()),
                refused: None,
            });
        }
        if state.replaced_at() != self.replaced_at {
            return LockPlace::Unknown;
        }
        match SessionId::parse(&self.session).and_then(|id| state.session(id)) {
            Some(_) => LockPlace::Left,
            None => LockPlace::NoSession,
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
                *none = Some(self.expected.shared.watches.register(&[topic])?);
            }
        }
        Ok(())
    }

    /// Ends the attempt but keeps the place for a while: the server stops, and the session may ask again through another.
    pub fn stay(mut self) {
        self.is_over = true;
        self.expected.shared.callers.remove(self.index);
    }

    /// Leaves the line. Answers where the attempt stood then, which is [`LockPlace::Unknown`] if the end of its place could
    /// not be recorded in time: it may still get the lock.
    pub async fn leave(mut self) -> LockPlace {
        self.end();
        let left = async { while self.place() == LockPlace::Waits && self.changed().await.is_ok() {} };
        let in_time: Result<(), _> = tokio::time::timeout(LEAVE_WAIT, left).await;
        match self.place() {
            LockPlace::Waits => {
                tracing::warn!(
                    is_late = in_time.is_err(),
                    "nobody takes note of who leaves a line"
                );
                LockPlace::Unknown
            }
            place => place,
        }
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let shared = &self.expected.shared;
        if self.expected.granted().is_some() {
            shared.callers.remove(self.index);
        } else {
            shared.leave_queue(&self.key, self.index, None);
        }
    }
}

/// How long somebody who leaves a line waits until that is done.
const LEAVE_WAIT: Duration = LEADER_WAIT;

impl Drop for LockAttempt {
    fn drop(&mut self) {
        self.end();
    }
}
