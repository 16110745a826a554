//! Where consensus stands, as the pipeline threads publish it for everybody else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lictor_proto::{LogIndex, Term};
use tokio::sync::watch;

use crate::{Identity, ProposeError, ReadError, Status};

/// Whether this server may answer reads and take proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    /// No leader is known, or the leader's first entry of its term is not applied yet.
    No,
    /// This server leads and has applied an entry of its term.
    Yes,
    /// The pipeline has ended or is about to.
    Stopping,
}

/// An index that is never applied.
const NEVER: u64 = u64::MAX;

/// Published by the raft, log and apply threads; read by anyone without a lock.
#[derive(Debug)]
pub(crate) struct Progress {
    serving: watch::Sender<Serving>,
    /// The same as a flag, for the path of each request.
    is_serving: AtomicBool,
    disk_full: AtomicBool,
    /// The leader's no-op: once it is applied this server serves. [`NEVER`] while it does not lead.
    lead_from: AtomicU64,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    last: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            serving: watch::Sender::new(Serving::No),
            is_serving: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            lead_from: AtomicU64::new(NEVER),
            term: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Acquire)
    }

    /// Waits until this server serves. Cancel safe.
    pub(crate) async fn serving(&self) -> Result<(), ReadError> {
        let mut serving = self.serving.subscribe();
        match serving.wait_for(|now| *now != Serving::No).await.map(|now| *now) {
            Ok(Serving::Yes) => Ok(()),
            Ok(Serving::No | Serving::Stopping) | Err(_) => Err(ReadError::Stopping),
        }
    }

    /// Told by the raft thread: this server leads from the application of that entry on, or does not lead.
    pub(crate) fn set_lead_from(&self, no_op: Option<LogIndex>) {
        self.lead_from
            .store(no_op.map_or(NEVER, |index| index.0), Ordering::Release);
        if no_op.is_none() {
            self.set_serving(false);
        }
    }

    /// Asked by the apply thread: whether this batch made this server a leader that may serve.
    pub(crate) fn begins_to_serve(&self, applied: LogIndex) -> bool {
        !self.is_serving() && applied.0 >= self.lead_from.load(Ordering::Acquire)
    }

    pub(crate) fn set_serving(&self, serves: bool) {
        self.publish(if serves { Serving::Yes } else { Serving::No });
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.serving.borrow() == Serving::Stopping
    }

    pub(crate) fn set_stopping(&self) {
        self.publish(Serving::Stopping);
    }

    fn publish(&self, next: Serving) {
        self.serving.send_if_modified(|now| {
            let changes = *now != next && *now != Serving::Stopping;
            if changes {
                *now = next;
                self.is_serving.store(next == Serving::Yes, Ordering::Release);
            }
            changes
        });
    }

    /// Refuses proposals while the disk is nearly full, before writes to it begin to fail.
    pub(crate) fn check_disk(&self) -> Result<(), ProposeError> {
        if self.disk_full.load(Ordering::Relaxed) {
            return Err(ProposeError::Storage(
                "the disk of the data directory is nearly full: writes are refused until there is room"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Returns whether this is news.
    pub(crate) fn set_disk_full(&self, full: bool) -> bool {
        self.disk_full.swap(full, Ordering::Relaxed) != full
    }

    pub(crate) fn set_raft(&self, term: Term, commit: LogIndex, last: LogIndex) {
        self.term.store(term.0, Ordering::Relaxed);
        self.commit.store(commit.0, Ordering::Relaxed);
        self.last.store(last.0, Ordering::Relaxed);
    }

    pub(crate) fn set_applied(&self, applied: LogIndex) {
        self.applied.store(applied.0, Ordering::Relaxed);
    }

    pub(crate) fn status(&self, identity: &Identity) -> Status {
        let own = format!("{}:{}", identity.address, identity.server_port);
        let is_leader = self.is_serving();
        Status {
            leader: if is_leader { own.clone() } else { String::new() },
            is_leader,
            peers: vec![own],
            term: Term(self.term.load(Ordering::Relaxed)),
            commit: LogIndex(self.commit.load(Ordering::Relaxed)),
            applied: LogIndex(self.applied.load(Ordering::Relaxed)),
            last: LogIndex(self.last.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_learns_that_the_server_serves() {
        let progress = std::sync::Arc::new(Progress::new());
        let waiting = tokio::spawn({
            let progress = std::sync::Arc::clone(&progress);
            async move { progress.serving().await }
        });

        progress.set_serving(true);

        assert!(waiting.await.unwrap().is_ok());
        assert!(progress.is_serving());
    }

    #[tokio::test]
    async fn a_stopping_server_never_serves_again() {
        let progress = Progress::new();
        progress.set_stopping();

        progress.set_serving(true);

        assert!(!progress.is_serving());
        assert!(matches!(progress.serving().await, Err(ReadError::Stopping)));
    }
}
