//! Runs scripts against a server and takes the figures.
//!
//! ```text
//! thread 1..T: single-threaded runtime, its share of the connections, latencies in a plain vector
//! main thread: waits for all to be connected, lets them warm up, reads the server's counters at both ends
//! ```

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use crate::figures::{Figure, Sample};
use crate::script::{Script, Step};
use crate::server::{Server, Usage};
use crate::wire::Connection;

/// How long scripts run before they are measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// Pause between two looks at whether all scripts have ended.
const END_POLL: Duration = Duration::from_millis(1);

/// How the load side runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Threads of the load program; one leaves the most to the server.
    pub(crate) threads: usize,
    /// Length of the measured window; `None` runs each script to its own end.
    pub(crate) window: Option<Duration>,
}

type Scripts = Vec<Box<dyn Script>>;

/// Whom clients talk to, in turn, and whose counters are read.
pub(crate) struct Aim<'a> {
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) servers: Vec<&'a Server>,
}

impl<'a> From<&'a Server> for Aim<'a> {
    fn from(server: &'a Server) -> Self {
        Self {
            addrs: vec![server.http()],
            servers: vec![server],
        }
    }
}

impl Aim<'_> {
    /// What all servers have used together.
    fn usage(&self) -> Result<Usage> {
        let usages = self.servers.iter().map(|server| server.usage());
        let sum = usages.reduce(|sum, one| Ok(sum?.with(one?)));
        sum.unwrap_or_else(|| Ok(Usage::default()))
    }
}

struct Shared {
    addrs: Vec<SocketAddr>,
    /// All connections are open.
    ready: Barrier,
    stop: watch::Sender<bool>,
    running: AtomicUsize,
}

/// One operation: when it ended and how long it took.
type Record = (Instant, Duration);

/// Lets every script run as one client and measures them together. `units` is by how much one operation counts in
/// the figures per operation (a transaction of 64 sets counts as 64).
pub(crate) fn drive<'a>(aim: impl Into<Aim<'a>>, scripts: Scripts, pace: Pace, units: f64) -> Result<Sample> {
    let aim = aim.into();
    let threads = pace.threads.clamp(1, scripts.len());
    let shared = Arc::new(Shared {
        addrs: aim.addrs.clone(),
        ready: Barrier::new(threads + 1),
        stop: watch::Sender::new(false),
        running: AtomicUsize::new(threads),
    });
    let mut shares: Vec<Scripts> = (0..threads).map(|_| Vec::new()).collect();
    for (n, script) in scripts.into_iter().enumerate() {
        shares[n % threads].push(script);
    }
    let (results, window) = std::thread::scope(|scope| {
        let handles: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(|| run_thread(share, &shared)))
            .collect();
        shared.ready.wait();
        let window = watch_window(&aim, pace, &shared);
        shared.stop.send_replace(true);
        (
            handles
                .into_iter()
                .map(std::thread::ScopedJoinHandle::join)
                .collect::<Vec<_>>(),
            window,
        )
    });
    let mut records = Vec::new();
    for result in results {
        records.extend(result.map_err(|_| anyhow!("a load thread panicked"))??);
    }
    let window = window?;
    records.retain(|(ended, _)| (window.start..=window.end).contains(ended));
    sample(records.iter().map(|&(_, took)| took).collect(), &window, units)
}

/// The measured span and the server's counters at both its ends.
struct Window {
    start: Instant,
    end: Instant,
    before: Usage,
    after: Usage,
}

fn watch_window(aim: &Aim<'_>, pace: Pace, shared: &Shared) -> Result<Window> {
    if pace.window.is_some() {
        std::thread::sleep(WARM_UP);
    }
    let (before, start) = (aim.usage()?, Instant::now());
    match pace.window {
        Some(window) => std::thread::sleep(window),
        None => {
            while shared.running.load(Ordering::Relaxed) > 0 {
                std::thread::sleep(END_POLL);
            }
        }
    }
    Ok(Window {
        start,
        end: Instant::now(),
        before,
        after: aim.usage()?,
    })
}

fn sample(mut latencies: Vec<Duration>, window: &Window, units: f64) -> Result<Sample> {
    latencies.sort_unstable();
    let percentile = |part: usize| latencies.get(latencies.len() * part / 100).copied();
    let p50 = percentile(50).context("no operation ended within the window")?;
    let p99 = percentile(99).context("no operation ended within the window")?;
    let count = crate::figures::float(latencies.len());
    let seconds = (window.end - window.start).as_secs_f64();
    let mut sample = Sample::default();
    sample.set(Figure::Rate, count / seconds);
    sample.set(Figure::P50, p50.as_secs_f64());
    sample.set(Figure::P99, p99.as_secs_f64());
    sample.set(
        Figure::Cpu,
        (window.after.cpu_seconds - window.before.cpu_seconds) / (count * units),
    );
    let load_cpu_seconds = window.after.load_cpu_seconds - window.before.load_cpu_seconds;
    sample.set(Figure::LoadCpu, load_cpu_seconds / (count * units));
    if let (Some(before), Some(after)) = (window.before.written_bytes, window.after.written_bytes) {
        sample.set(Figure::Written, (after - before) / (count * units));
    }
    if let (Some(before), Some(after)) = (window.before.device, window.after.device) {
        sample.set(
            Figure::Device,
            (after.written_bytes - before.written_bytes) / (count * units),
        );
        sample.set(Figure::Flushes, (after.flushes - before.flushes) / seconds);
    }
    Ok(sample)
}

fn run_thread(share: Scripts, shared: &Arc<Shared>) -> Result<Vec<Record>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = LocalSet::new().block_on(&runtime, run_share(share, shared));
    shared.running.fetch_sub(1, Ordering::Relaxed);
    result
}

async fn run_share(share: Scripts, shared: &Arc<Shared>) -> Result<Vec<Record>> {
    let mut connections = Vec::with_capacity(share.len());
    let mut failed = None;
    for (_, &addr) in share.iter().zip(shared.addrs.iter().cycle()) {
        match Connection::open(addr).await {
            Ok(connection) => connections.push(connection),
            Err(error) => failed = Some(error),
        }
    }
    // Also after a failure: the others wait here.
    shared.ready.wait();
    if let Some(error) = failed {
        return Err(error).context("cannot connect");
    }
    let records = Rc::new(RefCell::new(Vec::new()));
    let mut clients = JoinSet::new();
    for (script, connection) in share.into_iter().zip(connections) {
        clients.spawn_local(run_client(script, connection, Rc::clone(&records)));
    }
    let mut stop = shared.stop.subscribe();
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(result) => result??,
                None => break,
            },
            // What is under way is dropped with its connections; a blocking query would sit there for long.
            _ = stop.wait_for(|&stop| stop) => break,
        }
    }
    clients.shutdown().await;
    Ok(records.take())
}

/// Cancel safe: a dropped operation leaves no record.
async fn run_client(
    mut script: Box<dyn Script>,
    mut connection: Connection,
    records: Rc<RefCell<Vec<Record>>>,
) -> Result<()> {
    loop {
        let begun = Instant::now();
        loop {
            let Some(request) = script.next() else {
                return Ok(());
            };
            let answer = connection.call(request).await?;
            if script.judge(&answer)? == Step::Done {
                break;
            }
        }
        let ended = Instant::now();
        records.borrow_mut().push((ended, ended - begun));
    }
}
