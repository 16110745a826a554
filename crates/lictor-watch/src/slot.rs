//! The signal of one waiter.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::relay::Relay;

/// Set by whoever changes something, consumed by the waiter. Shared by the waiter and its places in the
/// tables.
#[derive(Debug, Default)]
pub(super) struct Slot {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    signalled: bool,
    sleeper: Option<Sleeper>,
}

/// How to wake a waiter that sleeps.
#[derive(Debug)]
pub(super) struct Sleeper {
    pub(super) waker: Waker,
    /// Of the thread that it sleeps on.
    pub(super) relay: Option<Arc<Relay>>,
}

/// What a signal did.
#[derive(Debug)]
pub(super) enum Signal {
    /// An earlier one stands unconsumed.
    Old,
    /// It is new; the waiter is to be woken if it sleeps, once no lock is held.
    New(Option<Sleeper>),
}

impl Slot {
    pub(super) fn signal(&self) -> Signal {
        let mut inner = self.inner.lock();
        if inner.signalled {
            return Signal::Old;
        }
        inner.signalled = true;
        Signal::New(inner.sleeper.take())
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if inner.signalled {
            inner.signalled = false;
            return Poll::Ready(());
        }
        let same = |sleeper: &Sleeper| sleeper.waker.will_wake(cx.waker());
        if !inner.sleeper.as_ref().is_some_and(same) {
            let old = inner.sleeper.replace(Sleeper {
                waker: cx.waker().clone(),
                relay: Relay::of_this_thread(),
            });
            drop(inner);
            drop(old);
        }
        Poll::Pending
    }
}
