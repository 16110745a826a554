//! Opening: the log and the state, each durable on its own, are brought together.

use lictor_proto::LogIndex;

use crate::{Config, Core, LogError, LogPosition, LogStore, Membership};

/// Where the durable state stands.
#[derive(Debug, Clone)]
pub struct StateMark {
    /// The last entry that is in the durable (flushed) state.
    pub applied: LogPosition,
    /// Whether the state was installed whole at exactly `applied` (a snapshot, a bootstrap) rather than
    /// reached by applying entries. The log may then know nothing of it yet.
    pub installed: bool,
    /// The members as of `applied`.
    pub members: Membership,
}

impl StateMark {
    /// An empty state whose founding members are known. Members that join such a cluster later must receive a
    /// snapshot first, since no entry names the founders; so it begins at position (1, 1), which leaves a gap
    /// that only a snapshot can close.
    pub fn fresh(members: Membership) -> Self {
        Self {
            applied: LogPosition::FOUNDING,
            installed: true,
            members,
        }
    }
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The log could not be read or reset.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Acknowledged entries are missing from the end of the log.
    #[error(
        "the raft log ends at {last} but {proof} proves that it reached {proven}: it has lost acknowledged entries"
    )]
    LogLost {
        /// Where it ends.
        last: LogIndex,
        /// Where it once ended at least.
        proven: LogIndex,
        /// What says so.
        proof: &'static str,
    },
    /// The log and the state disagree about an applied entry.
    #[error("the state applied {state} but the raft log has {log} there")]
    Diverged {
        /// The state's last entry.
        state: LogPosition,
        /// The log's entry at that index.
        log: LogPosition,
    },
    /// The log begins after the state ends.
    #[error("the raft log begins after {first} but the state ends at {state}: entries between them are gone")]
    Gap {
        /// The last entry cut from the log.
        first: LogIndex,
        /// The state's last entry.
        state: LogIndex,
    },
    /// raft-rs refuses the settings or the members.
    #[error("consensus cannot start: {0}")]
    Raft(String),
}

/// Brings log and state together; answers the core for the raft thread and the writer for the log thread.
///
/// # Errors
/// See [`OpenError`]. All but [`OpenError::Log`] with an IO cause and [`OpenError::Raft`] mean damage that no
/// restart heals.
pub fn open<S: LogStore>(
    store: S,
    config: Config,
    state: &StateMark,
) -> Result<(Core<S::Reader>, S::Writer), OpenError> {
    let _ = (store, config, state);
    todo!()
}
