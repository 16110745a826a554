//! What goes into the core and what comes out of it.

use bytes::Bytes;
pub use lictor_proto::MonoTime;
use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};

use crate::{LogPosition, LogTask, MemberChange, Membership, PeerMessage};

/// The caller's name for one proposal; unique while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// The caller's name for one ReadIndex round; unique while the process runs. Thousands of reads may wait for
/// one round: the caller batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// A command on its way into the log.
#[derive(Debug)]
pub struct Proposal {
    /// Comes back in [`Committed::proposal`] or [`Output::Rejected`], exactly once.
    pub id: ProposalId,
    /// The entry's bytes; never empty, since an empty entry is the leader's no-op.
    pub data: Vec<u8>,
}

/// What happened. The core never asks.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The first input. A sole voter campaigns at once.
    Start,
    /// One tick interval ([`crate::Config::tick_ms`]) is over. Ticks missed in a stall are not made up for.
    Tick,
    /// A message of another member.
    Peer(PeerMessage),
    /// The transport could not deliver to this member.
    Unreachable(RaftId),
    /// Commands to append, all in one raft message.
    Propose(Vec<Proposal>),
    /// A change of the members; one at a time.
    ChangeMembers {
        /// Comes back as for [`Proposal::id`].
        id: ProposalId,
        /// At least one; several make a joint step that is left by itself.
        changes: Vec<MemberChange>,
        /// Opaque to raft; handed to apply with the entry.
        context: Vec<u8>,
    },
    /// Asks for an index that a linearizable read must wait for.
    ReadIndex(ReadId),
    /// All tasks up to this one are written, and synced if they asked for it; their messages are sent.
    Persisted(ReadyNo),
    /// Apply has reached an index.
    Applied {
        /// All entries up to this one are in the state; with `conf` all entries *before* this one.
        index: LogIndex,
        /// Apply has reached the conf-change entry at `index` and waits for [`Output::Members`].
        conf: Option<ConfEcho>,
    },
    /// The state is durable up to here, so a restart needs no entry at or below it.
    Flushed(LogIndex),
    /// Hand the leadership to this member.
    Transfer(RaftId),
}

/// Apply's answer to [`Output::ApplyConf`]: it has stopped at the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfEcho {
    /// The state takes the change; raft does now.
    Accept,
    /// The state refuses the change (a deterministic decision); raft forgets it.
    Refuse,
}

/// What must be done now, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Send now; does not wait for the log.
    Send(PeerMessage),
    /// Queue for the log thread.
    Append(LogTask),
    /// Queue for the log thread: entries up to here are not needed any more.
    Compact(LogPosition),
    /// Queue for the apply thread. Never holds a conf-change entry.
    Apply(Vec<Committed>),
    /// Queue for the apply thread, which stops there and answers [`Input::Applied`] with a [`ConfEcho`].
    /// Nothing more to apply is given out until that entry is reported applied.
    ApplyConf(Committed),
    /// The members after the conf-change entry at `index`: apply writes them together with the applied index
    /// and goes on.
    Members {
        /// The conf-change entry.
        index: LogIndex,
        /// To be stored; [`Membership::encode`] gives the bytes.
        members: Membership,
    },
    /// A linearizable read may be served once `index` is applied.
    ReadReady {
        /// Whose round it was.
        id: ReadId,
        /// The index to wait for.
        index: LogIndex,
    },
    /// No round could be had in time: no leader, or no contact to a quorum.
    ReadFailed(ReadId),
    /// Leader, term or own role changed.
    Role(RoleChange),
    /// The proposal will not come back as committed.
    Rejected(ProposalId, Why),
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The command; empty for a leader's no-op. For a conf change the proposer's context.
    pub data: Bytes,
    /// Set when this process proposed it and still waits.
    pub proposal: Option<ProposalId>,
}

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    /// The leader, if one is known.
    pub leader: Option<RaftId>,
    /// The current term.
    pub term: Term,
    /// Whether this member leads.
    pub is_leader: bool,
    /// For a leader the index of its no-op: what was committed before its election is known to be applied
    /// once that index is. 0 otherwise.
    pub no_op: LogIndex,
}

/// Why a proposal is not in the log, or is not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// This member does not lead; nothing was proposed. The caller may forward.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if one is known.
        leader: Option<RaftId>,
    },
    /// A bound is reached; nothing was proposed.
    #[error("too many proposals in flight")]
    Overloaded,
    /// The leader is handing over; nothing was proposed.
    #[error("leadership is being transferred")]
    Transferring,
    /// A change of members is not finished; nothing was proposed.
    #[error("another change of members is under way")]
    ChangePending,
    /// The proposal is empty or not well-formed; nothing was proposed.
    #[error("invalid proposal")]
    Invalid,
    /// The entry may or may not become committed.
    #[error("outcome unknown: leadership changed at term {term}")]
    OutcomeUnknown {
        /// The term it was proposed in.
        term: Term,
    },
}

/// Where consensus stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The current term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<RaftId>,
    /// Whether this member leads.
    pub is_leader: bool,
    /// The last committed entry known here.
    pub commit: LogIndex,
    /// The last entry reported applied.
    pub applied: LogIndex,
    /// The first entry still in the log.
    pub first: LogIndex,
    /// The last entry of the log, persisted or not.
    pub last: LogIndex,
    /// The last entry that is durable here.
    pub persisted: LogIndex,
}
