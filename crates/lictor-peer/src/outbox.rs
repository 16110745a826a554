//! A bounded queue from many senders, none of which ever waits, to the one task of a connection, which takes all that
//! is there at a time.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Something with a size in bytes.
pub(crate) trait Weigh {
    fn weight_bytes(&self) -> usize;
}

impl Weigh for bytes::Bytes {
    fn weight_bytes(&self) -> usize {
        self.len()
    }
}

#[derive(Debug)]
pub(crate) struct Outbox<T> {
    queue: Mutex<Queue<T>>,
    filled: Notify,
    max_len: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    bytes: usize,
    open: bool,
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Closed,
    Full,
}

impl<T: Weigh> Outbox<T> {
    /// An open, empty queue.
    pub(crate) fn new(max_len: usize, max_bytes: usize) -> Self {
        let queue = Queue {
            items: VecDeque::new(),
            bytes: 0,
            open: true,
        };
        Self {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            max_len,
            max_bytes,
        }
    }

    pub(crate) fn push(&self, item: T) -> Result<(), NotTaken> {
        let weight = item.weight_bytes();
        let mut queue = self.queue.lock();
        if !queue.open {
            return Err(NotTaken::Closed);
        }
        if queue.items.len() >= self.max_len || queue.bytes + weight > self.max_bytes {
            return Err(NotTaken::Full);
        }
        queue.bytes += weight;
        queue.items.push_back(item);
        let first = queue.items.len() == 1;
        drop(queue);
        // The reader looks again before it sleeps, so only the first of many has to wake it.
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// How many are there, and how many there may be.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.queue.lock().items.len(), self.max_len)
    }

    /// Waits until something is there. Cancel safe. For one waiter.
    pub(crate) async fn filled(&self) {
        while self.queue.lock().items.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Hands what is there to `take`, until that answers that it has enough.
    pub(crate) fn drain(&self, mut take: impl FnMut(T) -> bool) {
        let mut queue = self.queue.lock();
        while let Some(item) = queue.items.pop_front() {
            queue.bytes -= item.weight_bytes();
            if !take(item) {
                break;
            }
        }
    }

    /// Takes out what `unwanted` says.
    pub(crate) fn remove_if(&self, unwanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut queue = self.queue.lock();
        let mut out = Vec::new();
        for _ in 0..queue.items.len() {
            match queue.items.pop_front() {
                Some(item) if unwanted(&item) => out.push(item),
                Some(item) => queue.items.push_back(item),
                None => break,
            }
        }
        queue.bytes -= out.iter().map(Weigh::weight_bytes).sum::<usize>();
        out
    }

    /// Takes nothing more, and gives back what is there.
    pub(crate) fn close(&self) -> VecDeque<T> {
        let mut queue = self.queue.lock();
        queue.open = false;
        queue.bytes = 0;
        std::mem::take(&mut queue.items)
    }

    pub(crate) fn open(&self) {
        self.queue.lock().open = true;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn both_bounds_hold_and_draining_makes_room() {
        let outbox = Outbox::new(2, 10);

        assert_eq!(outbox.push(Bytes::from_static(b"12345678")), Ok(()));
        assert_eq!(outbox.push(Bytes::from_static(b"123")), Err(NotTaken::Full));
        assert_eq!(outbox.push(Bytes::from_static(b"12")), Ok(()));
        assert_eq!(outbox.push(Bytes::new()), Err(NotTaken::Full));
        outbox.drain(|_| false);
        assert_eq!(outbox.push(Bytes::from_static(b"12345678")), Ok(()));
    }

    #[test]
    fn a_closed_queue_takes_nothing_until_it_is_opened() {
        let outbox = Outbox::new(2, 10);
        outbox.push(Bytes::from_static(b"1")).unwrap();

        assert_eq!(outbox.close().len(), 1);
        assert_eq!(outbox.push(Bytes::from_static(b"1")), Err(NotTaken::Closed));
        outbox.open();
        assert_eq!(outbox.push(Bytes::from_static(b"1")), Ok(()));
    }
}
