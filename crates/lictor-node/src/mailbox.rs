//! A queue between two pipeline threads that hands over everything at once.
//!
//! The receiver takes all that is queued in one swap, so a busy receiver batches by itself and nobody waits for
//! company. The lock is held for a push or a swap of two vectors only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A closable queue with one receiver.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    queue: Mutex<Queue<T>>,
    filled: Condvar,
    drained: Condvar,
    /// Whether there are items or the mailbox is closed, for a look without the lock.
    is_ready: AtomicBool,
    /// Senders block while the queued weight is above this.
    weight_limit: usize,
}

#[derive(Debug)]
struct Queue<T> {
    items: Vec<T>,
    weight: usize,
    closed: bool,
}

/// What ended a [`Mailbox::drain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is at least one item.
    Items,
    /// The deadline passed with nothing queued.
    TimedOut,
    /// Closed, and everything that was queued has been taken.
    Closed,
}

impl<T> Mailbox<T> {
    pub(crate) fn new(weight_limit: usize) -> Self {
        let queue = Queue {
            items: Vec::new(),
            weight: 0,
            closed: false,
        };
        Self {
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            drained: Condvar::new(),
            is_ready: AtomicBool::new(false),
            weight_limit,
        }
    }

    /// Queues an item of no weight; gives it back when the mailbox is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        self.push_weighing(item, 0)
    }

    /// Queues an item of no weight unless `max` items wait already.
    pub(crate) fn push_if_below(&self, max: usize, item: T) -> Result<(), T> {
        if self.queue.lock().items.len() >= max {
            return Err(item);
        }
        self.push(item)
    }

    /// Queues an item, waiting first while the mailbox holds more than its limit.
    pub(crate) fn push_weighing(&self, item: T, weight: usize) -> Result<(), T> {
        let mut queue = self.queue.lock();
        while weight > 0 && queue.weight > self.weight_limit && !queue.closed {
            self.drained.wait(&mut queue);
        }
        if queue.closed {
            return Err(item);
        }
        queue.items.push(item);
        queue.weight += weight;
        let was_empty = queue.items.len() == 1;
        self.is_ready.store(true, Ordering::Relaxed);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// How many items are queued, and what they weigh.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.items.len(), queue.weight)
    }

    /// Whether [`Self::push_weighing`] would not wait.
    pub(crate) fn has_room(&self) -> bool {
        let queue = self.queue.lock();
        queue.weight <= self.weight_limit
    }

    /// Takes everything that is queued, waiting until there is something or `until` has come.
    pub(crate) fn drain(&self, into: &mut Vec<T>, until: Option<Instant>) -> Drained {
        debug_assert!(
            into.is_empty(),
            "the receiver handles a batch before it takes the next"
        );
        let mut queue = self.queue.lock();
        while queue.items.is_empty() {
            if queue.closed {
                return Drained::Closed;
            }
            match until {
                None => self.filled.wait(&mut queue),
                Some(until) => {
                    if self.filled.wait_until(&mut queue, until).timed_out() && queue.items.is_empty() {
                        return Drained::TimedOut;
                    }
                }
            }
        }
        std::mem::swap(&mut queue.items, into);
        self.is_ready.store(queue.closed, Ordering::Relaxed);
        if std::mem::take(&mut queue.weight) > 0 {
            self.drained.notify_all();
        }
        Drained::Items
    }

    /// Polls until [`Self::drain`] need not sleep, or `until` has come; says which. Gives way to other threads at
    /// every turn.
    pub(crate) fn poll_until(&self, until: Instant) -> bool {
        loop {
            if self.is_ready.load(Ordering::Relaxed) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            thread::yield_now();
        }
    }

    /// Refuses further items and wakes everybody; what is queued can still be drained.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.is_ready.store(true, Ordering::Relaxed);
        self.filled.notify_all();
        self.drained.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_drain_takes_everything_in_order() {
        let mailbox = Mailbox::new(0);
        for item in 0..3 {
            mailbox.push(item).unwrap();
        }
        let mut taken = Vec::new();

        assert_eq!(mailbox.drain(&mut taken, None), Drained::Items);

        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn a_closed_mailbox_gives_out_what_it_holds_and_then_ends() {
        let mailbox = Mailbox::new(0);
        mailbox.push(1).unwrap();
        mailbox.close();
        let mut taken = Vec::new();

        assert_eq!(mailbox.push(2), Err(2));
        assert_eq!(mailbox.drain(&mut taken, None), Drained::Items);
        taken.clear();
        assert_eq!(mailbox.drain(&mut taken, None), Drained::Closed);
    }

    #[test]
    fn a_deadline_ends_the_wait_for_an_item() {
        let mailbox = Mailbox::<u8>::new(0);

        assert_eq!(
            mailbox.drain(&mut Vec::new(), Some(Instant::now())),
            Drained::TimedOut
        );
    }

    #[test]
    fn polling_sees_an_item_and_the_close() {
        let mailbox = Mailbox::new(0);
        let long = Instant::now() + std::time::Duration::from_secs(60);
        assert!(!mailbox.poll_until(Instant::now()));

        mailbox.push(1).unwrap();
        assert!(mailbox.poll_until(long));
        mailbox.drain(&mut Vec::new(), None);
        assert!(!mailbox.poll_until(Instant::now()));
        mailbox.close();
        assert!(mailbox.poll_until(long));
    }

    #[test]
    fn a_sender_over_the_limit_waits_for_the_receiver() {
        let mailbox = Arc::new(Mailbox::new(10));
        mailbox.push_weighing(1, 11).unwrap();
        let sender = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || mailbox.push_weighing(2, 1).unwrap()
        });
        let mut taken = Vec::new();

        mailbox.drain(&mut taken, None);
        sender.join().unwrap();

        assert_eq!(taken, [1]);
        taken.clear();
        mailbox.drain(&mut taken, None);
        assert_eq!(taken, [2]);
    }
}
