//! The three threads that carry a write, and the one that keeps the durable copy.
//!
//! They are plain OS threads: their steps block or burn CPU, and a stalled request task must never delay them.
//! Each owns what it works on; mailboxes are all that they share, beside what they publish in `Shared`.

mod apply;
mod checkpoint;
mod convoy;
mod log;
mod raft;
mod stage;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};
use lictor_raft::{
    LogPosition, MemberChange, Membership, MonoTime, PeerMessage, PeerProgress, Proposal, ProposalId,
};
use tokio::sync::oneshot;

pub(crate) use apply::{ApplyWork, ApplyWorker};
pub(crate) use checkpoint::{BACKLOG_BYTES, CheckpointThread, CheckpointWork, SPACE_MIN_BYTES};
pub(crate) use convoy::Convoy;
pub(crate) use log::{LogWork, LogWorker};
pub(crate) use raft::RaftThread;
pub(crate) use stage::Stage;

/// What all pipeline threads share with the handle.
pub(crate) type Shared = Arc<crate::node::Shared>;

/// What the raft thread is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A command to be proposed.
    Propose(Proposal),
    /// A command that follows from what a leader knew in this term, and is not to be proposed in any other.
    ProposeIn(Term, Proposal),
    /// The log thread has made all up to this ready durable.
    Persisted(ReadyNo),
    /// The apply thread has applied up to here.
    Applied(LogIndex),
    /// The apply thread has stopped at this conf-change entry.
    AtConfChange(LogIndex),
    /// The durable copy of the state holds everything up to here.
    Flushed(LogIndex),
    /// The same, after a restore at this entry.
    Restored(LogIndex),
    /// A message of another member.
    Peer(PeerMessage),
    /// Messages to this member were lost.
    Unreachable(RaftId),
    /// Reads have joined a round that is to begin.
    Read,
    /// Another server has applied this entry.
    Committed(LogPosition),
    /// The members are to be changed; with `term` only in that.
    ChangeMembers {
        id: ProposalId,
        term: Option<Term>,
        changes: Vec<MemberChange>,
        context: Vec<u8>,
    },
    /// A view is pinned for a follower.
    SnapshotReady {
        to: RaftId,
        position: LogPosition,
        members: Membership,
        descriptor: Vec<u8>,
    },
    /// A follower has fetched its view, or never will.
    SnapshotSent { to: RaftId, ok: bool },
    /// The durable copy of the state is the snapshot, or the snapshot could not be had.
    Installed { position: LogPosition, ok: bool },
    /// The state is wrong: apply is to stop, and another is to be fetched.
    Rebuild,
    /// Hand the leadership over; to the most caught-up voter if nobody is named.
    Transfer(Option<RaftId>),
    /// Tell what this leader knows of the others.
    Survey(oneshot::Sender<Survey>),
    /// Carry through what was proposed, refuse the rest, and end.
    Stop,
}

/// What a server knows of the other members, at one moment.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Consensus.
    pub status: lictor_raft::Status,
    /// The moment, on the clock of `peers`.
    pub now: MonoTime,
    /// All members but this one, if this one leads; else empty.
    pub peers: Vec<PeerProgress>,
}

/// A monotonic clock that counts from the start of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> MonoTime {
        self.at(Instant::now())
    }

    pub(crate) fn at(self, instant: Instant) -> MonoTime {
        let elapsed = instant.saturating_duration_since(self.0);
        MonoTime(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// The first moment at which this clock reads `time`.
    pub(crate) fn instant(self, time: MonoTime) -> Instant {
        self.0 + Duration::from_millis(time.0)
    }
}

/// Ends the process after a failure that must not be survived: what memory holds may no longer be what the
/// disk holds, and recovery from the log is the only safe way on.
pub(crate) fn fatal(what: &str, error: &dyn fmt::Display) -> ! {
    tracing::error!(
        "{what}: {error}; the process ends here and recovers from the raft log at its next start"
    );
    std::process::abort();
}
