//! A node without a disk, for the tests of the layers above.

use lictor_proto::{LogIndex, RaftId};
use lictor_raft::{Config, MemLog};
use lictor_state::State;

use crate::{Begin, Checkpoint, CheckpointError, Identity, Node, Options, StartError, WriteSet};

/// A durable copy that is neither: it takes everything in and forgets it.
#[derive(Debug, Default)]
pub struct MemCheckpoint {
    applied: LogIndex,
}

impl Checkpoint for MemCheckpoint {
    fn write(&mut self, set: &WriteSet) -> Result<(), CheckpointError> {
        self.applied = LogIndex(set.meta.applied_index);
        Ok(())
    }

    fn install(&mut self, state: &State, _members: Option<&[u8]>) -> Result<LogIndex, CheckpointError> {
        self.applied = state.applied().0;
        Ok(self.applied)
    }

    fn flush(&mut self) -> Result<LogIndex, CheckpointError> {
        Ok(self.applied)
    }

    fn space(&self) -> Result<(u64, u64), String> {
        Ok((u64::MAX, u64::MAX))
    }
}

impl Node {
    /// A sole voter on a log in memory, with the whole pipeline but no disk, except for archives while they are on their
    /// way. What it holds is gone with it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn in_memory(identity: Identity) -> Result<Self, StartError> {
        let me = RaftId(1);
        let server = identity.server(me);
        let node = Self::new(Options {
            identity,
            raft_id: me,
            limit_watches: 250_000,
            staging: std::env::temp_dir().join(format!("lictor-{}", uuid::Uuid::new_v4())),
        })?;
        let begin = Begin::founding(Config::new(me, 1), [server]);
        node.begin(begin, MemLog::default(), MemCheckpoint::default())?;
        Ok(node)
    }
}
