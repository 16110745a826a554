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
#[derive(Debug, PartialEq, Eq)]
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
    ReadIndex {
        /// Comes back with the answer.
        id: ReadId,
        /// Whether a leader that has a lease may answer by itself; else it asks the others whether it still leads.
        leased: bool,
    },
    /// A member has applied an entry, which therefore is committed. Tells what the leader's next message would.
    Committed(LogPosition),
    /// Nothing came for a moment. To be told while [`crate::Core::owes_commit`].
    Lull,
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
    /// As [`Input::Flushed`], and the entry there put another state in the place of the whole state: those before it are
    /// kept for live followers alone.
    Restored(LogIndex),
    /// Hand the leadership to this member. Given up after an election timeout.
    Transfer(RaftId),
    /// Answers [`Output::WantSnapshot`]: a view of the state is pinned.
    SnapshotReady {
        /// Who shall get it.
        to: RaftId,
        /// The last entry in the view; at or after the begin of the log.
        position: LogPosition,
        /// The members as of `position`; must name `to`.
        members: Membership,
        /// Opaque to raft, a few hundred bytes: how and where `to` fetches the rows.
        descriptor: Vec<u8>,
    },
    /// The sender is done with a snapshot: all its rows were fetched, or it failed, or its view was dropped.
    /// Must follow each [`Output::WantSnapshot`] sooner or later, while this member leads.
    SnapshotSent {
        /// Who should get it.
        to: RaftId,
        /// Whether all was fetched.
        ok: bool,
    },
    /// Answers [`Output::Install`].
    Installed {
        /// Of the snapshot.
        position: LogPosition,
        /// Whether the state durably *is* the snapshot now; if not, it is what it was before.
        ok: bool,
    },
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
    ///
    /// After each [`crate::Core::handle`] the runtime publishes [`Status::commit`] to its readers *before* it
    /// carries out the outputs: a message may tell a follower of a commit, and a lease read that is asked for
    /// later must not see less than a read there (R1).
    Send(PeerMessage),
    /// Queue for the log thread.
    Append(LogTask),
    /// Queue for the log thread: entries up to here are not needed any more.
    Compact(LogPosition),
    /// Queue for the log thread: [`crate::LogWriter::reset`] to this position, an installed snapshot's.
    ResetLog(LogPosition),
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
    /// Leader, term or own role changed. Who leads no more forgets all snapshots it was sending.
    Role(RoleChange),
    /// The lease changed: until when (exclusive) reads may be served here without asking anybody, once what
    /// [`Status::commit`] is at that time is applied. `u64::MAX` for a sole voter. To be published at once, in
    /// its place among the outputs.
    Lease {
        /// `None` if there is no lease.
        until: Option<MonoTime>,
    },
    /// This follower needs entries that are gone: pin a view of the state and answer
    /// [`Input::SnapshotReady`], or [`Input::SnapshotSent`] with `ok: false`. Not asked again before that.
    WantSnapshot {
        /// The follower.
        to: RaftId,
    },
    /// Queue for the apply thread: after all it was given before, fetch the rows, check them, put them
    /// durably in place of the state, and answer [`Input::Installed`]. Until then nothing is given to apply
    /// and nothing is appended.
    Install {
        /// Who has the rows.
        from: RaftId,
        /// The last entry in them.
        position: LogPosition,
        /// The members as of `position`.
        members: Membership,
        /// From [`Input::SnapshotReady`].
        descriptor: Vec<u8>,
    },
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
    /// Another leader's entry was committed in the place of this one, which therefore never will be: it had no effect,
    /// and may be proposed again.
    #[error("replaced by another leader's entry")]
    Replaced,
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
    /// Whether this member stands for election.
    pub is_candidate: bool,
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
    /// When a follower last heard from the leader of this term; `None` for a leader, or if never.
    pub last_contact: Option<MonoTime>,
}

/// What a leader knows of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// Who.
    pub id: RaftId,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// The last entry it is known to have.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// How entries are sent to it.
    pub stage: PeerStage,
    /// Whether it was heard of within the last election timeout or two.
    pub recent_active: bool,
    /// Entries of the log it is not known to have.
    pub lag_entries: u64,
    /// When it was last heard of in this term; `None` if never.
    pub last_contact: Option<MonoTime>,
}

/// How a leader sends entries to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerStage {
    /// One message at a time, to find out what it has.
    Probing,
    /// In a stream.
    Replicating,
    /// Not at all: it is getting a snapshot.
    Snapshotting,
}
