//! The raft log as the core sees it: the traits a store implements, and what travels through them.
//!
//! ```text
//! raft thread: Core ── entries not yet durable, and the last few MiB, from memory ── LogReader (the rest)
//! log thread:  LogWriter::append(tasks) = one batch, one sync
//! ```
//! The core alone knows where the log begins and ends *now*; a store knows it once, when it is opened.

mod cache;
mod codec;
mod disk;
mod mem;
pub(crate) mod storage;
#[cfg(test)]
mod tests;

pub use codec::Mark;
pub use disk::{SimDisk, SplitMix};
pub use mem::{MemLog, MemReader, MemWriter};

use std::fmt;

use bytes::Bytes;
use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};

use crate::PeerMessage;

/// An entry's place and term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogPosition {
    /// Its place.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

impl LogPosition {
    /// Before the first entry of an empty log.
    pub const ZERO: Self = Self {
        index: LogIndex(0),
        term: Term(0),
    };
    /// Where a new cluster begins; see [`crate::StateMark::fresh`].
    pub const FOUNDING: Self = Self {
        index: LogIndex(1),
        term: Term(1),
    };

    /// A position.
    pub const fn new(index: u64, term: u64) -> Self {
        Self {
            index: LogIndex(index),
            term: Term(term),
        }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of term {}", self.index, self.term)
    }
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A command, or nothing (a leader's no-op).
    Normal,
    /// A change of members, in raft's old form.
    Conf,
    /// A change of members.
    ConfV2,
}

/// An entry of the log. Cloning shares its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// What it holds.
    pub kind: EntryKind,
    /// The bytes.
    pub data: Bytes,
}

/// What a member must remember beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The last term seen.
    pub term: Term,
    /// Who got the vote of that term; 0 for nobody.
    pub vote: RaftId,
    /// A commit index known then; may be behind the truth (it is not synced for its own sake).
    pub commit: LogIndex,
}

/// One piece of work for the log thread.
#[derive(Debug, Clone)]
pub struct LogTask {
    /// Reported in [`crate::Input::Persisted`].
    pub ready_no: ReadyNo,
    /// To append; contiguous. What the log has at or after the first of them is replaced.
    pub entries: Vec<LogEntry>,
    /// To remember.
    pub hard_state: Option<HardState>,
    /// Whether it must be durable before `messages` are sent and the task is reported.
    pub must_sync: bool,
    /// To send once this task, and all before it, are durable. [`crate::Input::Persisted`] is queued *before*
    /// they are sent: the answer to a vote must not overtake it.
    pub messages: Vec<PeerMessage>,
}

/// Why the log failed. After a failed write nothing that was not durable before may be trusted: the caller
/// ends the process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk or the database failed.
    #[error("raft log: {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was read makes no sense.
    #[error("raft log is damaged: {0}")]
    Corrupt(String),
}

/// What opening a store found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The last hard state.
    pub hard_state: HardState,
    /// The last entry cut from the front.
    pub truncated: LogPosition,
    /// The last entry, or `truncated` if there is none.
    pub last: LogPosition,
    /// An index the log is proven to have durably reached.
    pub synced_through: LogIndex,
}

/// Reads entries that were given to the writer; used on the raft thread. The core asks only for what it knows
/// to be there.
pub trait LogReader: Clone + Send + 'static {
    /// Entries `low..high`, as many as fit in `max_bytes` of data but at least one.
    ///
    /// # Errors
    /// [`LogError`], also if an entry is missing.
    fn entries(&self, low: LogIndex, high: LogIndex, max_bytes: u64) -> Result<Vec<LogEntry>, LogError>;

    /// The term of an entry.
    ///
    /// # Errors
    /// As for [`Self::entries`].
    fn term(&self, index: LogIndex) -> Result<Term, LogError>;
}

/// Writes the log; used on the log thread.
pub trait LogWriter: Send + 'static {
    /// Writes all tasks as one batch, with one sync if any of them must be durable.
    ///
    /// # Errors
    /// [`LogError`]; the caller ends the process and never tries again.
    fn append(&mut self, tasks: &[LogTask]) -> Result<(), LogError>;

    /// Forgets the entries up to and with `to`. Not synced: a crash may bring them back.
    ///
    /// # Errors
    /// As for [`Self::append`].
    fn compact(&mut self, to: LogPosition) -> Result<(), LogError>;

    /// Forgets all entries; the next one follows `to`. Synced.
    ///
    /// # Errors
    /// As for [`Self::append`].
    fn reset(&mut self, to: LogPosition) -> Result<(), LogError>;
}

/// An opened log.
pub trait LogStore {
    /// The half for the raft thread.
    type Reader: LogReader;
    /// The half for the log thread.
    type Writer: LogWriter;

    /// What opening found, and the two halves.
    fn split(self) -> (Recovered, Self::Reader, Self::Writer);
}

/// A stored entry's bytes make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes are no log entry")]
pub struct DecodeError;
