//! The signal of one waiter.

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Set by whoever changes something, consumed by the waiter. Shared by the waiter and its places in the
/// tables.
#[derive(Debug, Default)]
pub(super) struct Slot {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    signalled: bool,
    waker: Option<Waker>,
}

/// What a signal did.
#[derive(Debug)]
pub(super) enum Signal {
    /// An earlier one stands unconsumed.
    Old,
    /// It is new; the waker is there if the waiter sleeps, to be run once no lock is held.
    New(Option<Waker>),
}

impl Slot {
    pub(super) fn signal(&self) -> Signal {
        let mut inner = self.inner.lock();
        if inner.signalled {
            return Signal::Old;
        }
        inner.signalled = true;
        Signal::New(inner.waker.take())
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if inner.signalled {
            inner.signalled = false;
            return Poll::Ready(());
        }
        if !inner
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            let old = inner.waker.replace(cx.waker().clone());
            drop(inner);
            drop(old);
        }
        Poll::Pending
    }
}
