//! One of several who want the lock: of one holder at a time, or of some.

use std::time::Duration;

use super::mutex::Mutex;
use super::semaphore::Semaphore;
use super::{LockError, Plan, Watcher};
use crate::client::{Client, ClientError};

/// How long a read waits for a change while the lock is with others.
pub(super) const WAIT: &str = "15000ms";
/// Pause before a lock is asked for again that was refused though nobody holds it: its last holder was lost, and its
/// delay runs.
pub(super) const DELAYED_PAUSE: Duration = Duration::from_secs(5);
/// Pause before a server that could not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What became of the lock's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleanup {
    /// It is gone.
    Done,
    /// Somebody else holds the lock.
    InUse,
}

/// The side of this process.
#[derive(Debug)]
pub(super) enum Holder {
    Mutex(Mutex),
    Semaphore(Semaphore),
}

impl Holder {
    pub(super) fn new(plan: &Plan, client: Client, session: String) -> Self {
        if plan.limit == 1 {
            Self::Mutex(Mutex::new(client, &plan.key(), session))
        } else {
            Self::Semaphore(Semaphore::new(client, &plan.folder(), session, plan.limit))
        }
    }

    /// Waits until the lock is ours. When this is dropped before, the lock may be ours or not.
    pub(super) async fn acquire(&mut self) -> Result<(), LockError> {
        match self {
            Self::Mutex(mutex) => mutex.acquire().await,
            Self::Semaphore(semaphore) => semaphore.acquire().await,
        }
    }

    /// Looks after the lock in the background.
    pub(super) fn watch(&self, client: Client, retries: u32) -> Watcher {
        match self {
            Self::Mutex(mutex) => Watcher::new(mutex.clone_for(client).watch(retries)),
            Self::Semaphore(semaphore) => Watcher::new(semaphore.clone_for(client).watch(retries)),
        }
    }

    /// Gives the lock back; does nothing if it is not ours.
    pub(super) async fn release(&mut self) -> Result<(), LockError> {
        match self {
            Self::Mutex(mutex) => mutex.release().await,
            Self::Semaphore(semaphore) => semaphore.release().await,
        }
    }

    /// Removes the lock's key unless somebody holds the lock.
    pub(super) async fn clean_up(&mut self) -> Result<Cleanup, LockError> {
        match self {
            Self::Mutex(mutex) => mutex.clean_up().await,
            Self::Semaphore(semaphore) => semaphore.clean_up().await,
        }
    }
}

/// How often a watch asks again before it takes the lock for lost.
#[derive(Debug)]
pub(super) struct Retries {
    most: u32,
    left: u32,
}

impl Retries {
    pub(super) fn new(most: u32) -> Self {
        Self { most, left: most }
    }

    /// The server answered.
    pub(super) fn reset(&mut self) {
        self.left = self.most;
    }

    /// Waits and answers true if it is worth asking again.
    pub(super) async fn again(&mut self, error: &ClientError) -> bool {
        if !error.may_pass() || self.left == 0 {
            return false;
        }
        self.left -= 1;
        tokio::time::sleep(RETRY_PAUSE).await;
        true
    }
}
