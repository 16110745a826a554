//! The wake thread: wakes spans that hold too many waiters for the thread that changed them.
//!
//! What is to be woken stands in a set, so that many changes of one key in a row are one walk. The set is
//! bounded; when it is full, the caller walks itself, which slows the writer and so the source of the work.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::table::Span;
use super::{Shared, TableId};

/// Spans that may wait for the wake thread.
const SPANS_MAX: usize = 4096;
/// Places looked at before the lock is given free.
const SLICE_STEPS: usize = 512;

/// The work of the wake thread, and the thread.
#[derive(Debug)]
pub(super) struct Herds {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    work: Mutex<Work>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    spans: BTreeSet<(TableId, Span)>,
    stop: bool,
}

impl Herds {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let thread = {
            let (shared, queue) = (Arc::clone(&shared), Arc::clone(&queue));
            thread::Builder::new()
                .name("watch".to_owned())
                .spawn(move || run(&shared, &queue))?
        };
        Ok(Self {
            shared,
            queue,
            thread: Some(thread),
        })
    }

    pub(super) fn add(&self, id: TableId, span: Span) {
        let mut work = self.queue.work.lock();
        if work.spans.len() < SPANS_MAX {
            work.spans.insert((id, span));
            drop(work);
            self.queue.arrived.notify_one();
        } else {
            drop(work);
            walk(&self.shared, id, &span);
        }
    }
}

impl Drop for Herds {
    fn drop(&mut self) {
        self.queue.work.lock().stop = true;
        self.queue.arrived.notify_one();
        // A task that is dropped with its waker can be the last owner of the registry, on the wake thread
        // itself.
        let thread = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            // It returns nothing, and a panic of it was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Takes all that is queued at once, so that a span that is queued over and over cannot starve others.
fn run(shared: &Shared, queue: &Queue) {
    loop {
        let spans = {
            let mut work = queue.work.lock();
            while work.spans.is_empty() && !work.stop {
                queue.arrived.wait(&mut work);
            }
            std::mem::take(&mut work.spans)
        };
        if spans.is_empty() {
            return;
        }
        for (id, span) in spans {
            walk(shared, id, &span);
        }
    }
}

fn walk(shared: &Shared, id: TableId, span: &Span) {
    let mut cursor = None;
    loop {
        let (wakers, next) = shared
            .table(id)
            .lock()
            .signal_slice(span, cursor.as_ref(), SLICE_STEPS);
        shared.run(wakers);
        if next.is_none() {
            return;
        }
        cursor = next;
    }
}
