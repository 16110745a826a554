//! A bounded queue from many senders, none of which ever waits, to the one task of a connection, which takes all that
//! is there at a time.
//!
//! Waking that task costs more than writing a small message. So while it has nothing to write it may lend the connection
//! to the senders ([`Outbox::lend`]): they write there themselves as much as it takes at once, and give it back with the
//! rest.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::wire::{LENGTH_BYTES, length_prefix};

/// A sender writes no more than this itself: copying it takes some microseconds.
const WRITE_HERE_MAX_BYTES: usize = 64 * 1024;

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
    /// Where senders may write, while the queue is empty and the connection's task has nothing to write.
    lent: Option<Arc<TcpStream>>,
    /// The rest of a message that a sender has begun to write; goes before all others.
    begun: Bytes,
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
            lent: None,
            begun: Bytes::new(),
        };
        Self {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            max_len,
            max_bytes,
        }
    }

    pub(crate) fn push(&self, item: T) -> Result<(), NotTaken> {
        self.push_into(self.queue.lock(), item)
    }

    fn push_into(&self, mut queue: MutexGuard<'_, Queue<T>>, item: T) -> Result<(), NotTaken> {
        let weight = item.weight_bytes();
        // Nothing may overtake it.
        queue.lent = None;
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
        while self.queue.lock().is_empty() {
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
        queue.lent = None;
        queue.begun = Bytes::new();
        std::mem::take(&mut queue.items)
    }

    pub(crate) fn open(&self) {
        self.queue.lock().open = true;
    }
}

impl<T> Queue<T> {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.begun.is_empty()
    }
}

impl Outbox<Bytes> {
    /// As [`Self::push`]; writes the message, framed, if the connection is lent and takes it.
    pub(crate) fn send(&self, message: Bytes) -> Result<(), NotTaken> {
        let mut queue = self.queue.lock();
        let socket = queue.lent.take_if(|_| message.len() <= WRITE_HERE_MAX_BYTES);
        let Some(socket) = socket else {
            return self.push_into(queue, message);
        };
        let head = length_prefix(message.len());
        // The task finds out what is wrong with a connection, and ends it.
        let written = socket.try_write_vectored(&[IoSlice::new(&head), IoSlice::new(&message)]);
        match written.unwrap_or(0) {
            0 => return self.push_into(queue, message),
            count if count == LENGTH_BYTES + message.len() => {
                queue.lent = Some(socket);
                return Ok(());
            }
            count => {
                let mut whole = head.as_slice().chain(message);
                whole.advance(count);
                queue.begun = whole.copy_to_bytes(whole.remaining());
            }
        }
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Lets senders write, unless there is something to write already.
    pub(crate) fn lend(&self, socket: &Arc<TcpStream>) {
        let mut queue = self.queue.lock();
        if queue.open && queue.is_empty() {
            queue.lent = Some(Arc::clone(socket));
        }
    }

    /// What is to be written before anything that [`Self::drain`] gives, as it is.
    pub(crate) fn take_begun(&self) -> Bytes {
        std::mem::take(&mut self.queue.lock().begun)
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
