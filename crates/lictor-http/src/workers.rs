//! The threads that connections live on.
//!
//! Each worker is one thread with a runtime of its own. A connection is given to one worker and stays there, so its
//! requests never wait for a lock of a scheduler, and an answer is written by the thread that read the request. What
//! takes long must therefore not run on a worker in one piece: it is cut into chunks, or goes to
//! [`tokio::task::spawn_blocking`].
//!
//! Waking a thread that sleeps costs more than a small request does, several times over on virtual machines. So a
//! worker with few requests polls its sockets for a moment before it sleeps. See [`linger`].

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Instant;

use lictor_node::Linger;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::relay;

/// A worker that gives as many answers between two looks at its sockets has enough to do; polling would only take the
/// processor away from its clients.
const FEW_EVENTS: u32 = 4;

/// All workers of a server. Dropping it drops their connections.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    load: Arc<AtomicUsize>,
    /// Dropped to end the thread.
    _stop: oneshot::Sender<()>,
}

/// Counts one connection of a worker.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// One worker for each processor.
    ///
    /// # Errors
    /// When the operating system refuses a thread or what a runtime needs.
    pub(crate) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let workers = (0..count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// Runs a task on the worker that has the fewest. `task` is called there, so that what it makes belongs to that
    /// worker's runtime.
    pub(crate) fn spawn<F, T>(&self, task: F)
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let load = |worker: &&Worker| worker.load.load(Ordering::Relaxed);
        if let Some(worker) = self.workers.iter().min_by_key(load) {
            worker.load.fetch_add(1, Ordering::Relaxed);
            let load = Load(Arc::clone(&worker.load));
            worker.runtime.spawn(async move {
                task().await;
                drop(load);
            });
        }
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                runtime.spawn(linger());
                runtime.spawn(relay::start());
                // An error says that the other end was dropped, which is the sign.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            runtime: handle,
            load: Arc::default(),
            _stop: stop,
        })
    }
}

/// What happened on a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// A request was taken that has to wait for other threads. What it waits for may be a disk, or other servers, and
    /// then takes longer than polling is worth.
    Taken,
    /// An answer was given; the client may have its next request at hand.
    Answered,
}

thread_local! {
    /// Requests taken and answers given since the worker last looked at its sockets.
    static EVENTS: Cell<u32> = const { Cell::new(0) };
    /// The last of them.
    static LAST: Cell<Event> = const { Cell::new(Event::Answered) };
    /// Set while the worker's [`linger`] sleeps.
    static LINGERER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// To be called on the worker for each request and each answer.
pub(crate) fn note(event: Event) {
    LAST.set(event);
    EVENTS.set(EVENTS.get().saturating_add(1));
    if let Some(lingerer) = LINGERER.take() {
        lingerer.wake();
    }
}

/// A task that keeps its worker awake for a moment after a request or an answer, while there are few of them and it
/// pays. It gives way at every turn: to the worker's other tasks, to the sockets, and to other threads that want the
/// processor.
async fn linger() {
    let (mut after_requests, mut after_answers) = (Linger::default(), Linger::default());
    loop {
        event().await;
        // Resumed after the next look at the sockets, so that this counts all there was to do before it.
        tokio::task::yield_now().await;
        if EVENTS.take() >= FEW_EVENTS {
            continue;
        }
        let linger = match LAST.get() {
            Event::Taken => &mut after_requests,
            Event::Answered => &mut after_answers,
        };
        let Some(until) = linger.until(Instant::now()) else {
            continue;
        };
        while EVENTS.get() == 0 && Instant::now() < until {
            thread::yield_now();
            tokio::task::yield_now().await;
        }
        if EVENTS.get() > 0 {
            linger.paid();
        } else {
            linger.was_in_vain();
        }
    }
}

/// Resolves once there is an event that [`linger`] has not taken.
async fn event() {
    poll_fn(|cx| {
        if EVENTS.get() > 0 {
            return Poll::Ready(());
        }
        LINGERER.set(Some(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}
