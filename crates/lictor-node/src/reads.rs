//! The read gate: when the published view is fresh enough for a read.

use std::time::Instant;

use lictor_proto::LogIndex;
use lictor_raft::LogPosition;
use lictor_telemetry::journey;

use crate::cluster::Proof;
use crate::node::{LEADER_WAIT, Node, RETRY_PAUSE};
use crate::pipeline::Event;
use crate::progress::Role;
use crate::{Consistency, ReadError, ReadMeta};

/// What an answer says that is as fresh as can be.
const FRESH: ReadMeta = ReadMeta {
    known_leader: true,
    last_contact_ms: 0,
};

impl Node {
    /// Whether the published view is linearizable now.
    ///
    /// It is on a sole voter that leads: a write is acknowledged only after the view that shows it was published, and
    /// nobody else can acknowledge writes. It is on a leader with a lease that has applied all it knows to be
    /// committed: followers learn of a commit only after it is known here, and show it then (rule R1).
    pub(crate) fn is_fresh(&self) -> bool {
        let progress = &self.shared().progress;
        progress.is_serving()
            && progress.has_lease(|| self.shared().clock.now())
            && (progress.is_alone() || progress.applied_index() >= progress.commit_index())
    }

    /// Answers at once where no waiting is needed, which is the usual case on a leader.
    pub fn try_read(&self, consistency: Consistency) -> Option<ReadMeta> {
        let progress = &self.shared().progress;
        if progress.is_barred() {
            return None;
        }
        let is_enough = match consistency {
            Consistency::Stale => return Some(self.stale_meta()),
            Consistency::Default => self.is_fresh(),
            Consistency::Consistent => progress.is_serving() && progress.is_alone(),
        };
        is_enough.then_some(FRESH)
    }

    fn stale_meta(&self) -> ReadMeta {
        let progress = &self.shared().progress;
        let (known_leader, last_contact_ms) = match progress.role() {
            Role::Leads => (true, 0),
            Role::Follows(_) => (true, progress.silence_ms(self.shared().clock.now())),
            Role::NoLeader | Role::Stopping => (false, progress.silence_ms(self.shared().clock.now())),
        };
        ReadMeta {
            known_leader,
            last_contact_ms,
        }
    }

    /// Waits until a [`Self::view`] taken afterwards is fresh enough.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, consistency: Consistency) -> Result<ReadMeta, ReadError> {
        if let Some(meta) = self.try_read(consistency) {
            return Ok(meta);
        }
        let from = Instant::now();
        let deadline = from + LEADER_WAIT;
        let progress = &self.shared().progress;
        let fresh = async {
            progress.unbarred().await;
            if consistency == Consistency::Stale {
                return Ok(self.stale_meta());
            }
            self.become_fresh(consistency).await.map(|()| FRESH)
        };
        let fresh = tokio::time::timeout_at(deadline.into(), fresh).await;
        journey::add(journey::Stage::Gate, from.elapsed());
        match fresh {
            Ok(done) => done,
            Err(_) if progress.is_barred() => Err(ReadError::Rebuilding),
            Err(_) => Err(ReadError::NoLeader),
        }
    }

    async fn become_fresh(&self, consistency: Consistency) -> Result<(), ReadError> {
        let progress = &self.shared().progress;
        let mut roles = progress.roles();
        let proof = match consistency {
            Consistency::Consistent => Proof::Quorum,
            Consistency::Default | Consistency::Stale => Proof::Lease,
        };
        loop {
            let role = *roles.borrow_and_update();
            match role {
                Role::Stopping => return Err(ReadError::Stopping),
                Role::NoLeader => {}
                Role::Leads | Role::Follows(_) => {
                    // Commit first, lease second: what is committed later is of no concern to this read.
                    let commit = progress.commit_index();
                    let has_lease = consistency == Consistency::Default
                        && progress.is_serving()
                        && progress.has_lease(|| self.shared().clock.now());
                    if has_lease {
                        return progress.applied(commit).await;
                    }
                    if let Ok(index) = self.read_index(proof).await {
                        return progress.applied(index).await;
                    }
                    // No leader, or no contact to a quorum: the caller's time bounds how often.
                    let _ = tokio::time::timeout(RETRY_PAUSE, roles.changed()).await;
                    continue;
                }
            }
            if roles.changed().await.is_err() {
                return Err(ReadError::Stopping);
            }
        }
    }

    /// Joins the next round with the voters; answers the index that a linearizable read must have applied.
    async fn read_index(&self, proof: Proof) -> Result<LogIndex, ReadError> {
        self.shared().metrics.reads_joined.one();
        let (answer, begins) = self.shared().gate.join(proof);
        if begins && self.shared().raft.push(Event::Read).is_err() {
            return Err(ReadError::Stopping);
        }
        answer.await.unwrap_or(Err(ReadError::Stopping))
    }

    /// Waits until what a leader has done shows here too. `false` when that takes too long; a server that is none of the
    /// members any more would wait for ever.
    pub(crate) async fn caught_up(&self, with: LogIndex, deadline: Instant) -> bool {
        let applied = self.shared().progress.applied(with);
        matches!(
            tokio::time::timeout_at(deadline.into(), applied).await,
            Ok(Ok(()))
        )
    }

    /// As [`Self::caught_up`], with an entry that a leader has applied: it is committed, and this server need not wait
    /// until raft tells it so.
    pub(crate) async fn caught_up_with(&self, entry: LogPosition, deadline: Instant) -> bool {
        if self.shared().progress.commit_index() < entry.index {
            // Refused only while stopping.
            let _ = self.shared().raft.push(Event::Committed(entry));
        }
        self.caught_up(entry.index, deadline).await
    }
}
