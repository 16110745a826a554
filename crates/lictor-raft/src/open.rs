//! Opening: the log and the state, each durable on its own, are brought together.

use lictor_proto::LogIndex;

use crate::{
    Config, Core, LogError, LogPosition, LogReader, LogStore, LogWriter as _, Membership, Recovered,
};

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
    let (mut log, reader, mut writer) = store.split();
    check_proofs(&log)?;
    if !covers(&log, &reader, state)? {
        writer.reset(state.applied)?;
        (log.truncated, log.last) = (state.applied, state.applied);
    }
    if log.truncated.index > state.applied.index {
        return Err(OpenError::Gap {
            first: log.truncated.index,
            state: state.applied.index,
        });
    }
    // Commit indexes are not synced for their own sake, and the state may have been flushed since (R5).
    log.hard_state.commit = log.hard_state.commit.max(state.applied.index);
    log.hard_state.term = log.hard_state.term.max(log.last.term);
    let core = Core::new(config, reader, &log, state).map_err(|error| OpenError::Raft(error.to_string()))?;
    Ok((core, writer))
}

/// What the log itself proves about its end.
fn check_proofs(log: &Recovered) -> Result<(), OpenError> {
    let proofs = [
        (log.synced_through, "its synced-through mark"),
        (log.hard_state.commit, "its recorded commit index"),
    ];
    for (proven, proof) in proofs {
        if log.last.index < proven {
            return Err(OpenError::LogLost {
                last: log.last.index,
                proven,
                proof,
            });
        }
    }
    Ok(())
}

/// Whether the log holds, or once held, the state's last entry. Where it does not, an installed state rules
/// (R6): the crash came between the installation and its record in the log. Any other state was reached by
/// applying entries that were durable, so their absence is a loss.
fn covers<R: LogReader>(log: &Recovered, reader: &R, state: &StateMark) -> Result<bool, OpenError> {
    let index = state.applied.index;
    if index > log.last.index {
        let proof = "the applied state";
        let lost = OpenError::LogLost {
            last: log.last.index,
            proven: index,
            proof,
        };
        return if state.installed { Ok(false) } else { Err(lost) };
    }
    if index < log.truncated.index {
        return Ok(true);
    }
    let term = if index == log.truncated.index {
        log.truncated.term
    } else {
        reader.term(index)?
    };
    let log = LogPosition { index, term };
    if term == state.applied.term {
        Ok(true)
    } else if state.installed {
        Ok(false)
    } else {
        Err(OpenError::Diverged {
            state: state.applied,
            log,
        })
    }
}

#[cfg(test)]
mod tests;
