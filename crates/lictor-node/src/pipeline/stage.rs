//! A pipeline thread with its work, and the short cut past it.
//!
//! Handing work to another thread costs two context switches. Where the next stage has nothing to do and the raft thread
//! can spare the time, it does that stage's work itself: a single client's write to a lone server then wakes one thread
//! instead of four. Under load the stages run beside each other.
//!
//! Why the order holds: only one thread sends to a stage, and it takes the short cut only when all that it sent
//! before is done (`work_done_by_the_sender_never_overtakes_what_was_sent`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::mailbox::{Drained, Mailbox};

/// What a stage does with its work.
pub(crate) trait Worker<T> {
    /// Does all of it, in order, and leaves `items` empty.
    fn work(&mut self, items: &mut Vec<T>);
}

/// A stage of the pipeline. One thread calls [`Self::run`], one other sends.
#[derive(Debug)]
pub(crate) struct Stage<T, W> {
    inbox: Mailbox<T>,
    worker: Mutex<W>,
    /// What was sent and is not done yet.
    backlog: Arc<AtomicUsize>,
}

impl<T, W: Worker<T>> Stage<T, W> {
    pub(crate) fn new(worker: W) -> Self {
        Self {
            inbox: Mailbox::new(usize::MAX),
            worker: Mutex::new(worker),
            backlog: Arc::default(),
        }
    }

    /// Counts what was sent and is not done yet.
    pub(crate) fn backlog(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.backlog)
    }

    /// Leaves the item to the stage's thread; gives it back when the stage has ended.
    pub(crate) fn send(&self, item: T) -> Result<(), T> {
        self.backlog.fetch_add(1, Ordering::Relaxed);
        self.inbox.push(item)
    }

    /// Does the work here if the stage has none of its own, else leaves it to the stage's thread.
    pub(crate) fn do_here_or_send(&self, item: T) -> Result<(), T> {
        // Acquire: what the stage's thread did before is seen here.
        if self.backlog.load(Ordering::Acquire) == 0
            && let Some(mut worker) = self.worker.try_lock()
        {
            worker.work(&mut vec![item]);
            return Ok(());
        }
        self.send(item)
    }

    /// As [`Self::do_here_or_send`], all of it at once.
    pub(crate) fn do_all_here_or_send(&self, items: &mut Vec<T>) -> Result<(), T> {
        if self.backlog.load(Ordering::Acquire) == 0
            && let Some(mut worker) = self.worker.try_lock()
        {
            worker.work(items);
            return Ok(());
        }
        items.drain(..).try_for_each(|item| self.send(item))
    }

    /// The stage's thread: works until the inbox is closed and empty.
    pub(crate) fn run(&self) {
        let mut items = Vec::new();
        while self.inbox.drain(&mut items, None) == Drained::Items {
            let count = items.len();
            self.worker.lock().work(&mut items);
            self.backlog.fetch_sub(count, Ordering::Release);
        }
    }

    /// Ends the thread once it has done what was sent.
    pub(crate) fn close(&self) {
        self.inbox.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Collect(Vec<u32>);

    impl Worker<u32> for Collect {
        fn work(&mut self, items: &mut Vec<u32>) {
            self.0.append(items);
        }
    }

    #[test]
    fn work_done_by_the_sender_never_overtakes_what_was_sent() {
        let stage = Arc::new(Stage::new(Collect(Vec::new())));
        let thread = std::thread::spawn({
            let stage = Arc::clone(&stage);
            move || stage.run()
        });

        for item in 0..20_000 {
            let sent = if item % 3 == 0 {
                stage.send(item)
            } else {
                stage.do_here_or_send(item)
            };
            assert_eq!(sent, Ok(()));
        }
        stage.close();
        thread.join().unwrap();

        assert!(stage.worker.lock().0.iter().copied().eq(0..20_000));
    }

    #[test]
    fn an_idle_stages_work_is_done_by_the_sender() {
        let stage = Stage::new(Collect(Vec::new()));

        stage.do_here_or_send(7).unwrap();

        assert_eq!(stage.worker.lock().0, [7]);
    }
}
