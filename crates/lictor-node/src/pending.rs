//! Proposals on their way through the pipeline, and the bound on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lictor_proto::LogIndex;
use lictor_raft::ProposalId;
use lictor_state::Outcome;
use lictor_telemetry::{Counter, journey};
use parking_lot::Mutex;
use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::ProposeError;

/// Entries that may be in flight. Each takes at least [`UNIT_BYTES`] of the byte bound.
const LIMIT_ENTRIES: usize = 8192;
/// Bytes that may be in flight.
const LIMIT_BYTES: usize = 32 * 1024 * 1024;
/// What one permit stands for, so that a single semaphore holds both bounds.
const UNIT_BYTES: usize = LIMIT_BYTES / LIMIT_ENTRIES;

pub(crate) type Answer = Result<Outcome, ProposeError>;

/// An answer, and the index of the entry that it is about; 0 if there is none.
pub(crate) type Told = (LogIndex, Answer);

/// What the answer to a proposal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Whether it was done.
    Whether,
    /// Also what it did, or why it did not.
    Why,
}

/// A proposal's place in the table: where the answer goes, and its share of the bound until then.
#[derive(Debug)]
struct Slot {
    answer: oneshot::Sender<Told>,
    telling: Telling,
    _permit: OwnedSemaphorePermit,
}

/// All proposals that wait for their outcome.
#[derive(Debug)]
pub(crate) struct Pending {
    slots: Mutex<Slab<Slot>>,
    bound: Arc<Semaphore>,
    /// How many of them were entered to be told why since the start: while there are none apply need not look.
    asked_why: AtomicU64,
    refused: Counter,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self {
            slots: Mutex::new(Slab::new()),
            bound: Arc::new(Semaphore::new(LIMIT_ENTRIES)),
            asked_why: AtomicU64::new(0),
            refused: Counter::new(),
        }
    }

    /// How much of the bound is taken, and how much there is.
    pub(crate) fn room(&self) -> (usize, usize) {
        (LIMIT_ENTRIES - self.bound.available_permits(), LIMIT_ENTRIES)
    }

    /// How many found no room since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Takes the share of a command of `bytes` out of the bound, waiting for room. Cancel safe.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ProposeError> {
        if let Ok(permit) = self.take(bytes) {
            return Ok(permit);
        }
        let acquire = Arc::clone(&self.bound).acquire_many_owned(units(bytes)?);
        let from = Instant::now();
        let acquired = tokio::time::timeout(crate::node::OVERLOAD_WAIT, acquire).await;
        journey::add(journey::Stage::Room, from.elapsed());
        match acquired {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(ProposeError::Stopping),
            Err(_) => {
                self.refused.one();
                Err(ProposeError::Overloaded)
            }
        }
    }

    /// As [`Self::reserve`], without waiting.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ProposeError> {
        self.take(bytes).inspect_err(|_| self.refused.one())
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ProposeError> {
        let permit = Arc::clone(&self.bound).try_acquire_many_owned(units(bytes)?);
        permit.map_err(|_| ProposeError::Overloaded)
    }

    /// Enters a proposal and says where its answer will come.
    pub(crate) fn enter(
        &self,
        permit: OwnedSemaphorePermit,
        telling: Telling,
    ) -> (ProposalId, oneshot::Receiver<Told>) {
        let (answer, receiver) = oneshot::channel();
        if telling == Telling::Why {
            self.asked_why.fetch_add(1, Ordering::Relaxed);
        }
        let key = self.slots.lock().insert(Slot {
            answer,
            telling,
            _permit: permit,
        });
        (ProposalId(key as u64), receiver)
    }

    /// What the answer to a proposal that waits is to say. The lock of the table, or the mailbox that brought the
    /// proposal here, carries the count to whoever asks.
    pub(crate) fn telling(&self, ProposalId(id): ProposalId) -> Telling {
        if self.asked_why.load(Ordering::Relaxed) == 0 {
            return Telling::Whether;
        }
        let slots = self.slots.lock();
        let slot = usize::try_from(id).ok().and_then(|key| slots.get(key));
        slot.map_or(Telling::Whether, |slot| slot.telling)
    }

    /// Answers one proposal; its id is free from now on.
    pub(crate) fn answer(&self, id: ProposalId, answer: Answer) {
        self.answer_all(std::iter::once((id, LogIndex(0), answer)));
    }

    /// Answers a batch under one lock.
    pub(crate) fn answer_all(&self, answers: impl Iterator<Item = (ProposalId, LogIndex, Answer)>) {
        let mut slots = self.slots.lock();
        let take = |(ProposalId(id), index, answer)| {
            let slot = usize::try_from(id).ok().and_then(|key| slots.try_remove(key))?;
            Some((slot, (index, answer)))
        };
        let answers: SmallVec<[(Slot, Told); 16]> = answers.filter_map(take).collect();
        drop(slots);
        // The lock is free again before the first listener wakes and perhaps proposes its next command.
        for (slot, answer) in answers {
            // Nobody listens any more when the client has gone away; the write stands all the same.
            let _ = slot.answer.send(answer);
        }
    }

    /// Answers everything that is still waiting, when the pipeline has ended.
    pub(crate) fn answer_rest(&self, error: &ProposeError) {
        self.bound.close();
        for slot in self.slots.lock().drain() {
            // As above: a listener that has gone needs no answer.
            let _ = slot.answer.send((LogIndex(0), Err(error.clone())));
        }
    }
}

fn units(bytes: usize) -> Result<u32, ProposeError> {
    u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).map_err(|_| ProposeError::TooLarge(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn proposals_over_the_bound_are_refused_after_the_wait() {
        tokio::time::pause();
        let pending = Pending::new();
        let _held = pending.reserve(LIMIT_BYTES).await.unwrap();

        let refused = pending.reserve(1).await;

        assert!(matches!(refused, Err(ProposeError::Overloaded)));
        assert_eq!(
            (pending.refused(), pending.room()),
            (1, (LIMIT_ENTRIES, LIMIT_ENTRIES))
        );
    }

    #[tokio::test]
    async fn an_answer_frees_its_share_of_the_bound() {
        let pending = Pending::new();
        let permit = pending.reserve(LIMIT_BYTES).await.unwrap();
        let (id, receiver) = pending.enter(permit, Telling::Whether);

        pending.answer(id, Ok(Outcome::Bool(true)));

        assert!(matches!(receiver.await.unwrap().1, Ok(Outcome::Bool(true))));
        assert_eq!(pending.bound.available_permits(), LIMIT_ENTRIES);
    }

    #[tokio::test]
    async fn the_end_of_the_pipeline_answers_everybody() {
        let pending = Pending::new();
        let permit = pending.reserve(1).await.unwrap();
        let (_, receiver) = pending.enter(permit, Telling::Whether);

        pending.answer_rest(&ProposeError::OutcomeUnknown);

        assert!(matches!(
            receiver.await.unwrap().1,
            Err(ProposeError::OutcomeUnknown)
        ));
        assert!(matches!(
            pending.reserve(LIMIT_BYTES + 1).await,
            Err(ProposeError::Stopping)
        ));
    }
}
