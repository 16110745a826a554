//! # lictor-raft
//!
//! Consensus without IO: a driver around raft-rs' `RawNode` that is told what happened and answers what must
//! be done. It owns no thread, reads no clock and touches no socket or file; the runtime (or a simulator) does.
//! It is the only crate that names raft-rs: none of its types leave.
//!
//! ```text
//!               Input                                   Output
//! clock ──Tick──────────┐                        ┌─Send──────> peers
//! peers ──Peer──────────┤                        ├─Append ───> log thread: LogWriter, one sync a batch,
//! callers ─Propose──────┼─> Core::handle(input) ─┤             then its messages, then Input::Persisted
//!         ─ReadIndex────┤        │               ├─Apply ────> apply thread, then Input::Applied
//! log ────Persisted─────┤        └ LogReader     ├─Compact ──> log thread
//! apply ──Applied───────┤                        ├─Install ──> apply thread, then Input::Installed
//! bulk ───SnapshotReady─┘                        ├─Lease ────> readers
//!                                                └─Role, ReadReady, Rejected, ... ──> callers
//! ```
//!
//! Start with [`open`], which checks the log against the state and answers a [`Core`] for the raft thread and
//! a [`LogWriter`] for the log thread. The first input is [`Input::Start`].
//!
//! ```
//! use lictor_raft::{Config, Input, LogWriter, MemLog, Membership, MonoTime, Output, StateMark, open};
//! use lictor_proto::RaftId;
//!
//! let me = RaftId(7);
//! let state = StateMark::fresh(Membership::of_voters([me]));
//! let (mut core, mut writer) = open(MemLog::default(), Config::new(me, 1), &state)?;
//! let mut out = Vec::new();
//! core.handle(Input::Start, MonoTime(0), &mut out);
//! for output in std::mem::take(&mut out) {
//!     if let Output::Append(task) = output {
//!         writer.append(std::slice::from_ref(&task))?;
//!         core.handle(Input::Persisted(task.ready_no), MonoTime(1), &mut out);
//!     }
//! }
//! assert!(core.status().is_leader);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod core;
mod drain;
mod io;
mod log;
mod member;
mod message;
mod open;

pub use config::Config;
pub use core::Core;
pub use io::{
    Committed, ConfEcho, Input, MonoTime, Output, PeerProgress, PeerStage, Proposal, ProposalId, ReadId,
    RoleChange, Status, Why,
};
pub use log::{
    DecodeError, EntryKind, HardState, LogEntry, LogError, LogPosition, LogReader, LogStore, LogTask,
    LogWriter, Mark, MemLog, MemReader, MemWriter, Recovered, SimDisk, SplitMix,
};
pub use member::{MemberChange, Membership};
pub use message::PeerMessage;
pub use open::{OpenError, StateMark, open};
