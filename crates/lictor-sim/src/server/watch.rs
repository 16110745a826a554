//! Blocking queries over the product's watch registry: register, read, sleep, in the order of the real ones, with
//! everything else happening in between.

use std::task::{Context as Task, Waker};

use bytes::Bytes;
use lictor_state::State;
use lictor_watch::{Topic, Waiter};

use super::{Context, Inner, Process, Server};
use crate::check::{Checked, ensure};
use crate::request::{Caller, Query, Reply, Version};

/// How long a query waits.
const WAIT_MS: u64 = 1000;

/// A query that has registered.
pub(super) struct Sleeper {
    waiter: Waiter,
    query: Query,
    caller: Caller,
    /// What the client has.
    known: Version,
    /// Since its last look nothing has woken it.
    sleeps: bool,
}

impl Sleeper {
    pub(super) fn caller(&self) -> Caller {
        self.caller
    }

    fn is_woken(&mut self) -> bool {
        self.waiter
            .poll_changed(&mut Task::from_waker(Waker::noop()))
            .is_ready()
    }
}

impl Server {
    /// Registers, and reads a moment later.
    pub(super) fn watch(&mut self, caller: Caller, query: Query, known: Version, context: &mut Context<'_>) {
        let wait = self.span(WAIT_MS);
        let Some(process) = &mut self.process else { return };
        let topic = match &query {
            Query::Key(key) => Topic::Key(key),
            Query::Below(prefix) => Topic::Prefix(prefix),
        };
        let Ok(waiter) = process.watches.register(&[topic]) else {
            return self.answer(caller, Reply::Refused, context);
        };
        let number = process.number();
        let sleeper = Sleeper {
            waiter,
            query,
            caller,
            known,
            sleeps: false,
        };
        process.sleepers.insert(number, sleeper);
        let soon = context.random.below(2_000);
        context.later(Inner::Look(number), soon);
        context.later(Inner::WaitEnds(number), wait);
    }

    /// A query reads: it answers what is new, or goes to sleep.
    pub(super) fn look(&mut self, number: u64, context: &mut Context<'_>) {
        let soon = context.random.below(2_000);
        let Some(process) = &mut self.process else { return };
        let Some(sleeper) = process.sleepers.get_mut(&number) else {
            return;
        };
        if version(&process.state, &sleeper.query) != sleeper.known {
            context.counts.woken += 1;
            self.end_wait(number, context);
        } else if sleeper.is_woken() {
            // Something changed while it read.
            context.later(Inner::Look(number), soon);
        } else {
            sleeper.sleeps = true;
        }
    }

    /// A query answers what there is.
    pub(super) fn end_wait(&mut self, number: u64, context: &mut Context<'_>) {
        let Some(process) = &mut self.process else { return };
        if let Some(Sleeper { query, caller, .. }) = process.sleepers.remove(&number) {
            let rows = process.read(&query);
            let version = version(&process.state, &query);
            self.answer(caller, Reply::Changed(rows, version), context);
        }
    }

    /// After a view was published: whoever is woken looks soon, and nobody sleeps on who should not.
    pub(super) fn rouse(&mut self, context: &mut Context<'_>) -> Checked {
        let id = self.id;
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        for change in process.dirty.drain(..) {
            // One by one, so that no call wakes more than it may wake by itself.
            process.watches.wake(std::slice::from_ref(&change));
        }
        let asleep = process.sleepers.iter_mut().filter(|(_, sleeper)| sleeper.sleeps);
        for (number, sleeper) in asleep {
            if sleeper.is_woken() {
                sleeper.sleeps = false;
                let soon = context.random.below(2_000);
                context.later(Inner::Look(*number), soon);
                continue;
            }
            let now = version(&process.state, &sleeper.query);
            ensure(now == sleeper.known, || {
                format!(
                    "a query for {:?} on {id} sleeps on: it knows {:?}, there is {now:?}",
                    sleeper.query, sleeper.known
                )
            })?;
        }
        Ok(())
    }
}

impl Process {
    pub(super) fn waiting_callers(&self) -> impl Iterator<Item = Caller> {
        self.sleepers.values().map(Sleeper::caller)
    }
}

/// What a query finds, as far as a change of it can be told.
fn version(state: &State, query: &Query) -> Version {
    let row = |row: &lictor_state::KvRow| (Bytes::copy_from_slice(row.key()), row.modify_index());
    match query {
        Query::Key(key) => state.kv_get(key).map(row).into_iter().collect(),
        Query::Below(prefix) => state.kv_list(prefix).map(row).collect(),
    }
}
