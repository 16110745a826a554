//! Wakes many tasks of one thread with one call to that thread.
//!
//! A waker that is run on another thread than its task's costs a lock and a system call. A herd of ten thousand would pay
//! that ten thousand times over, and find its thread awake each time. So a thread that polls waiters may have a [`Relay`]:
//! the wakers of its waiters are handed over as lists, and run there.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Tasks woken in one go; then the thread looks at its sockets, so that other requests do not wait for a whole herd.
const WOKEN_AT_ONCE: usize = 64;

thread_local! {
    static HERE: RefCell<Option<Arc<Relay>>> = const { RefCell::new(None) };
}

/// A thread's list of tasks to be woken on it. Holds no more wakers than waiters slept on that thread.
#[derive(Debug, Default)]
pub struct Relay {
    inbox: Mutex<Vec<Waker>>,
    arrived: Notify,
}

impl Relay {
    /// From now on waiters that sleep on this thread are woken by the future, which must be polled here for as long as
    /// there are any. It does not end.
    pub fn here() -> impl Future<Output = ()> + use<> {
        let relay = Arc::<Self>::default();
        HERE.set(Some(Arc::clone(&relay)));
        async move { relay.run().await }
    }

    /// That of the thread this is called on.
    pub(super) fn of_this_thread() -> Option<Arc<Self>> {
        HERE.with_borrow(Clone::clone)
    }

    /// Has the thread wake all of these.
    pub(super) fn hand_over(&self, wakers: Vec<Waker>) {
        let mut inbox = self.inbox.lock();
        if inbox.is_empty() {
            *inbox = wakers;
        } else {
            inbox.extend(wakers);
        }
        drop(inbox);
        self.arrived.notify_one();
    }

    async fn run(&self) {
        loop {
            self.arrived.notified().await;
            let mut wakers = std::mem::take(&mut *self.inbox.lock()).into_iter();
            while wakers.len() > 0 {
                wakers.by_ref().take(WOKEN_AT_ONCE).for_each(Waker::wake);
                tokio::task::yield_now().await;
            }
        }
    }
}
