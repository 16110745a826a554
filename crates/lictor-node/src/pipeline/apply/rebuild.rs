//! A state that turned out wrong and is fetched from another server while the log goes on.
//!
//! ```text
//! Hold ── apply stops at entry a, what comes waits ── Rebuilt(state at p >= a) ── entries up to p are passed over,
//!         those behind are applied ── the durable copy is replaced, the server serves again
//! ```
//! Raft hears of an entry when it was taken off the queue, as always: it never knows of more than it gave. The durable
//! copy stays as it was until apply has reached p, so that no crash leaves it with rows of two states.
//!
//! A restore whose archive no server has any more goes the same way, but for the wait: apply takes the state where it
//! stands. What is served until then is old and not wrong.

use std::sync::Arc;

use lictor_proto::LogIndex;
use lictor_raft::ProposalId;
use lictor_state::{Dirty, State};
use tokio::sync::oneshot;

use super::{ApplyWork, ApplyWorker, CheckpointWork, Event, Install, Installation};
use crate::ProposeError;

/// How far a rebuild is.
#[derive(Debug, Default)]
pub(super) enum Rebuild {
    /// There is none.
    #[default]
    None,
    /// The state is being fetched; what is to be done waits.
    Held(Vec<ApplyWork>),
    /// The state is that of this entry. Entries up to it are in it.
    Skipping(LogIndex),
}

impl ApplyWorker {
    /// Stops here, and says where.
    pub(super) fn hold(&mut self, held: oneshot::Sender<LogIndex>) {
        self.publish();
        self.rebuild = Rebuild::Held(Vec::new());
        // Whoever asked may have gone with the runtime.
        let _ = held.send(self.state.applied().0);
    }

    /// Puts work aside while a state is fetched; gives back what is to be done all the same.
    pub(super) fn put_aside(&mut self, work: ApplyWork) -> Option<ApplyWork> {
        match (&mut self.rebuild, work) {
            (Rebuild::Held(_) | Rebuild::Skipping(_), ApplyWork::Pin { to }) => {
                // Refused only while stopping.
                let _ = self.shared.raft.push(Event::SnapshotSent { to, ok: false });
                None
            }
            (Rebuild::Held(_), work @ (ApplyWork::Rebuilt(_) | ApplyWork::Install { .. })) => Some(work),
            (Rebuild::Held(waiting), work) => {
                waiting.push(work);
                None
            }
            (_, work) => Some(work),
        }
    }

    /// The state has come.
    pub(super) fn take_rebuilt(&mut self, state: State) {
        if state.applied().0 < self.consumed {
            // Asked for by an earlier rebuild, which a snapshot of the leader has ended.
            return;
        }
        let Rebuild::Held(waiting) = &mut self.rebuild else {
            // The leader has sent a snapshot meanwhile.
            return;
        };
        let waiting = std::mem::take(waiting);
        self.go_ahead(state);
        self.finish_rebuild();
        self.work_through(waiting);
    }

    /// Takes the state of another server, and with it all entries that it has.
    pub(super) fn go_ahead(&mut self, state: State) {
        let at = state.applied().0;
        tracing::info!(index = at.0, keys = state.kv_len(), "the state was fetched anew");
        self.state = state.installed(at);
        self.effects.clear();
        // A leader that serves has timers for the old one.
        let progress = &self.shared.progress;
        progress.while_serving(|| self.shared.timers.lead(&self.state));
        self.rebuild = Rebuild::Skipping(at);
    }

    /// Whether the state has an entry already. Whoever proposed it is told that its outcome is not known here.
    pub(super) fn skips(&mut self, index: LogIndex, proposal: Option<ProposalId>) -> bool {
        let skips = matches!(self.rebuild, Rebuild::Skipping(through) if index <= through);
        if skips {
            self.consumed = index;
            if let Some(id) = proposal {
                self.answers.push((id, index, Err(ProposeError::OutcomeUnknown)));
            }
        }
        skips
    }

    /// Goes on as ever once all entries that the state has were passed over.
    pub(super) fn finish_rebuild(&mut self) {
        if !matches!(self.rebuild, Rebuild::Skipping(through) if self.consumed >= through) {
            return;
        }
        self.rebuild = Rebuild::None;
        self.effects.clear();
        self.effects.dirty.push(Dirty::All);
        let install = Install {
            state: self.state.clone(),
            members: Some(self.roster.encode()),
            from: Installation::Copy,
        };
        self.checkpoint_takes(CheckpointWork::Install(Box::new(install)), 1);
        // Served again only after the wrong state is out of sight.
        self.shared.view.store(Arc::new(self.state.clone()));
        self.shared.progress.unbar();
        self.publish();
        tracing::info!(
            index = self.consumed.0,
            "the state is rebuilt: this server serves again"
        );
    }

    /// A snapshot of the leader takes the place of the state: nothing is to be rebuilt any more. Served again is once it has.
    pub(super) fn end_rebuild(&mut self) {
        if let Rebuild::Held(waiting) = std::mem::take(&mut self.rebuild) {
            let entries = waiting.into_iter().filter_map(|work| match work {
                ApplyWork::Entries(entries) => Some(entries),
                _ => None,
            });
            let lost = entries
                .flatten()
                .filter_map(|entry| Some((entry.proposal?, entry.index)));
            self.answers
                .extend(lost.map(|(id, index)| (id, index, Err(ProposeError::OutcomeUnknown))));
        }
    }
}
