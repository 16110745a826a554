//! Wakes many tasks of a worker with one call to it.
//!
//! ```text
//! apply, raft, wake thread ──wake──> [tasks to wake] ──one bell──> worker ──> its tasks
//! ```
//!
//! A waker that is run on another thread than its task's costs a lock and a system call, and takes the worker out of what it
//! does. Answers come in batches: all writes that one sync made durable, all reads that shared a round, all queries that
//! waited for one key. So what a handler sleeps on gets a waker that only notes its task, and rings if it is the first.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Tasks woken in one go; then the worker looks at its sockets, so that other requests do not wait for a whole herd.
const WOKEN_AT_ONCE: usize = 64;

thread_local! {
    static HERE: RefCell<Option<Arc<Relay>>> = const { RefCell::new(None) };
}

/// What is to be woken on one worker. Bounded by what can wake its tasks: each of them waits for one thing at a time.
#[derive(Debug, Default)]
struct Relay {
    noted: Mutex<Vec<Waker>>,
    bell: Notify,
}

/// The waker of one task, run on the worker that polls it.
#[derive(Debug)]
pub(crate) struct Relayed {
    task: Waker,
    relay: Arc<Relay>,
}

/// From now on tasks of this thread may sleep on relayed wakers. The future runs them; it must be polled here for as long
/// as there are any, and does not end.
pub(crate) fn start() -> impl Future<Output = ()> {
    let relay = Arc::<Relay>::default();
    HERE.set(Some(Arc::clone(&relay)));
    async move { relay.run().await }
}

/// A waker to sleep on instead of `task`, the one of `last` time if that will do. On threads without a relay there is none.
pub(crate) fn relayed(task: &Waker, last: &mut Option<Arc<Relayed>>) -> Option<Waker> {
    if last.as_ref().is_none_or(|last| !last.task.will_wake(task)) {
        *last = HERE.with_borrow(Clone::clone).map(|relay| {
            Arc::new(Relayed {
                task: task.clone(),
                relay,
            })
        });
    }
    last.clone().map(Waker::from)
}

impl Wake for Relayed {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_here =
            HERE.with_borrow(|here| here.as_ref().is_some_and(|here| Arc::ptr_eq(here, &self.relay)));
        if is_here {
            self.task.wake_by_ref();
        } else {
            self.relay.note(self.task.clone());
        }
    }
}

impl Relay {
    fn note(&self, task: Waker) {
        let mut noted = self.noted.lock();
        let is_first = noted.is_empty();
        noted.push(task);
        drop(noted);
        if is_first {
            self.bell.notify_one();
        }
    }

    async fn run(&self) {
        loop {
            self.bell.notified().await;
            let mut tasks = std::mem::take(&mut *self.noted.lock()).into_iter();
            while tasks.len() > 0 {
                tasks.by_ref().take(WOKEN_AT_ONCE).for_each(Waker::wake);
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Context;

    use tokio::sync::oneshot;

    /// As a handler is polled.
    async fn through_the_relay<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let mut last = None;
        poll_fn(|cx| {
            let waker = relayed(cx.waker(), &mut last).expect("this thread has a relay");
            future.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }

    #[test]
    fn tasks_that_wait_for_other_threads_and_for_each_other_all_go_on() {
        const TASKS: u64 = 1000;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answers, asked): (Vec<_>, Vec<_>) = (0..TASKS).map(|_| oneshot::channel()).unzip();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let answering = std::thread::spawn(move || {
            is_ready.recv().unwrap();
            for (at, answer) in (0..TASKS).zip(answers) {
                answer.send(at).unwrap();
            }
        });

        let sum = runtime.block_on(async {
            tokio::spawn(start());
            let mut tasks = tokio::task::JoinSet::new();
            for answer in asked {
                tasks.spawn(async move {
                    let answer = through_the_relay(answer).await.unwrap();
                    // And once by a task of the same thread.
                    let (here, waits) = oneshot::channel();
                    tokio::spawn(async move { here.send(answer) });
                    through_the_relay(waits).await.unwrap()
                });
            }
            tokio::task::yield_now().await;
            ready.send(()).unwrap();
            tasks.join_all().await.into_iter().sum::<u64>()
        });

        answering.join().unwrap();
        assert_eq!(sum, TASKS * (TASKS - 1) / 2);
    }

    #[test]
    fn a_thread_without_a_relay_sleeps_on_its_own_waker() {
        let mut last = None;
        assert!(relayed(Waker::noop(), &mut last).is_none());
        assert!(last.is_none());
    }
}
