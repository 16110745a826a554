//! The phases: which servers run when, what is stored in them, and which work is measured.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::drive::{Pace, drive};
use crate::figures::{Figure, Sample, float};
use crate::handoff;
use crate::rows::{Phase, ROWS, Row};
use crate::script::{
    Dice, Get, Keys, List, LockCycle, Mixed, Put, Script, SessionCycle, TXN_OPS, Txn, session_id,
};
use crate::server::{Binary, Mode, Product, Server};
use crate::watchers::Watchers;
use crate::wire::{Blocking, request};

const SMALL: Keys = Keys::flat("bench/small/", 10_000);
const LIST: Keys = Keys::flat("bench/list/", 1_000);
const TREE: Keys = Keys::folders("bench/tree/", 100_000);
const WATCHED: Keys = Keys::flat("bench/watch/", 10_000);
const MILLION: Keys = Keys::flat("bench/million/", 1_000_000);
/// Clients of the rows that name no other number, and of loading.
const CLIENTS: usize = 64;
/// How long a server rests before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);
/// Rest between two measurements, so that what the last one left does not run into the next.
const PAUSE: Duration = Duration::from_millis(300);
const WAKE_ONE_TIMES: usize = 300;
const WAKE_ALL_TIMES: usize = 5;

type Scripts = Vec<Box<dyn Script>>;

/// What to measure, and what was measured.
pub(crate) struct Bench {
    pub(crate) binaries: Vec<Binary>,
    /// Folder for the servers' data, on the disk to be measured.
    pub(crate) dir: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) pace: Pace,
    /// Starts of ids of the rows to measure; all if empty.
    pub(crate) only: Vec<String>,
    pub(crate) results: BTreeMap<(&'static str, Product), Vec<Sample>>,
}

impl Bench {
    /// Measures all selected rows.
    pub(crate) fn run(&mut self) -> Result<()> {
        ensure!(ROWS.iter().any(|row| self.wants(row)), "--only names no row");
        for phase in [Phase::Small, Phase::Tree] {
            self.take_turns(phase)?;
        }
        for (phase, measure) in [
            (Phase::Watch, Self::watch as fn(&mut Self, &Binary) -> Result<()>),
            (Phase::Million, Self::million),
            (Phase::Start, Self::start),
        ] {
            if ROWS.iter().any(|row| row.phase == phase && self.wants(row)) {
                for round in 0..self.rounds {
                    for binary in self.order(round) {
                        measure(self, &binary)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn wants(&self, row: &Row) -> bool {
        self.only.is_empty() || self.only.iter().any(|start| row.id.starts_with(start.as_str()))
    }

    /// Every other round the peer goes first.
    fn order(&self, round: usize) -> Vec<Binary> {
        let mut order = self.binaries.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        order
    }

    fn note(&mut self, id: &'static str, product: Product, sample: Sample) {
        let figures: Vec<String> = sample
            .figures()
            .map(|(figure, value)| format!("{} {}", figure.name(), figure.show(value)))
            .collect();
        // Progress only; a closed standard error must not end the run.
        let _ = writeln!(
            std::io::stderr(),
            "{id:16} {:6} {}",
            product.name(),
            figures.join(", ")
        );
        self.results.entry((id, product)).or_default().push(sample);
    }

    /// Both servers stay up and are measured in turn, row by row.
    fn take_turns(&mut self, phase: Phase) -> Result<()> {
        let rows: Vec<&Row> = ROWS
            .iter()
            .filter(|row| row.phase == phase && self.wants(row))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut servers = BTreeMap::new();
        for binary in &self.binaries {
            let server = Server::start(binary, Mode::Durable, &self.dir)?;
            for keys in if phase == Phase::Small {
                &[SMALL, LIST][..]
            } else {
                &[TREE]
            } {
                self.load(&server, *keys)?;
            }
            servers.insert(binary.product, server);
        }
        for round in 0..self.rounds {
            for row in &rows {
                for binary in self.order(round) {
                    std::thread::sleep(PAUSE);
                    let server = &servers[&binary.product];
                    let sample = self
                        .measure(row.id, server)
                        .with_context(|| format!("{} on {}", row.id, binary.product.name()))?;
                    self.note(row.id, binary.product, sample);
                }
            }
        }
        Ok(())
    }

    fn measure(&self, id: &str, server: &Server) -> Result<Sample> {
        let contenders = match id {
            "handoff-2" => 2,
            "handoff-100" => 100,
            _ => {
                let units = if id == "txn-64" { float(TXN_OPS) } else { 1.0 };
                return drive(server, scripts(id, server)?, self.pace, units);
            }
        };
        let sessions = create_sessions(server, contenders)?;
        Ok(percentiles(handoff::measure(
            server.http(),
            sessions,
            self.pace.window.unwrap_or_default(),
        )?))
    }

    /// Sets each key once by transactions; the rate is in keys.
    fn load(&self, server: &Server, keys: Keys) -> Result<Sample> {
        let scripts = clients(CLIENTS, |n| Txn::load(keys, n, CLIENTS));
        let mut sample = drive(
            server,
            scripts,
            Pace {
                window: None,
                ..self.pace
            },
            float(TXN_OPS),
        )?;
        if let Some(rate) = sample.get(Figure::Rate) {
            sample.set(Figure::Rate, rate * float(TXN_OPS));
        }
        Ok(sample)
    }

    /// After a rest: ten thousand connections that come or go leave work behind.
    fn puts(&self, server: &Server) -> Result<Sample> {
        std::thread::sleep(SETTLE);
        drive(server, clients(CLIENTS, |n| Put::new(SMALL, n)), self.pace, 1.0)
    }

    fn watch(&mut self, binary: &Binary) -> Result<()> {
        let server = Server::start(binary, Mode::Durable, &self.dir)?;
        self.load(&server, SMALL)?;
        self.load(&server, WATCHED)?;
        std::thread::sleep(SETTLE);
        let resident = server.resident_bytes()?;

        let mut watchers = Watchers::open(server.http(), WATCHED, false)?;
        std::thread::sleep(SETTLE);
        let each = (server.resident_bytes()? - resident) / float(watchers.count());
        self.note("watch-memory", binary.product, Sample::of(Figure::Memory, each));
        let mut with = self.puts(&server)?;
        let mut took = Vec::with_capacity(WAKE_ONE_TIMES);
        let mut dice = Dice::new(7);
        for _ in 0..WAKE_ONE_TIMES {
            took.push(watchers.wake_one(dice.below(WATCHED.count))?);
        }
        self.note("watch-wake-one", binary.product, percentiles(took));
        // Consul keeps an abandoned query until its wait is over, so all are answered before they are dropped.
        self.load(&server, WATCHED)?;
        drop(watchers);
        server.await_descriptors_below(WATCHED.count / 2)?;
        let without = self.puts(&server)?;
        let mut watchers = Watchers::open(server.http(), WATCHED, true)?;
        let again = self.puts(&server)?;
        if let (Some(first), Some(without), Some(again)) = (
            with.get(Figure::Rate),
            without.get(Figure::Rate),
            again.get(Figure::Rate),
        ) {
            with.set(Figure::Kept, f64::midpoint(first, again) / without);
        }
        self.note("watch-put", binary.product, with);
        for _ in 0..WAKE_ALL_TIMES {
            std::thread::sleep(Duration::from_secs(1));
            let took = watchers.wake_all()?;
            self.note(
                "watch-wake-all",
                binary.product,
                Sample::of(Figure::Time, took.as_secs_f64()),
            );
        }
        Ok(())
    }

    fn million(&mut self, binary: &Binary) -> Result<()> {
        let mut server = Server::start(binary, Mode::Durable, &self.dir)?;
        let sample = self.load(&server, MILLION)?;
        self.note("million-load", binary.product, sample);
        std::thread::sleep(SETTLE);
        let resident = server.resident_bytes()?;
        self.note(
            "million-memory",
            binary.product,
            Sample::of(Figure::Memory, resident),
        );
        let sample = drive(
            &server,
            clients(CLIENTS, |n| Get::new(MILLION, "", n)),
            self.pace,
            1.0,
        )?;
        self.note("million-get", binary.product, sample);
        server.kill_and_relaunch()?;
        let last = format!("/v1/kv/{}?consistent", MILLION.name(MILLION.count - 1));
        let took = server.await_first("GET", &last, b"")?;
        self.note(
            "million-restart",
            binary.product,
            Sample::of(Figure::Time, took.as_secs_f64()),
        );
        Ok(())
    }

    fn start(&mut self, binary: &Binary) -> Result<()> {
        let took = Server::launch(binary, Mode::Dev, &self.dir)?.await_first_write()?;
        self.note(
            "start-dev",
            binary.product,
            Sample::of(Figure::Time, took.as_secs_f64()),
        );
        let mut server = Server::launch(binary, Mode::Durable, &self.dir)?;
        let took = server.await_first_write()?;
        self.note(
            "start-durable",
            binary.product,
            Sample::of(Figure::Time, took.as_secs_f64()),
        );
        std::thread::sleep(SETTLE);
        let resident = server.resident_bytes()?;
        self.note(
            "empty-memory",
            binary.product,
            Sample::of(Figure::Memory, resident),
        );
        Ok(())
    }
}

fn percentiles(mut took: Vec<Duration>) -> Sample {
    took.sort_unstable();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64();
    let mut sample = Sample::of(Figure::P50, at(50));
    sample.set(Figure::P99, at(99));
    sample
}

fn clients<S: Script + 'static>(count: usize, script: impl Fn(usize) -> S) -> Scripts {
    (0..count)
        .map(|n| Box::new(script(n)) as Box<dyn Script>)
        .collect()
}

/// The clients of a row of the phases that take turns.
fn scripts(id: &str, server: &Server) -> Result<Scripts> {
    Ok(match id {
        "put-1" => clients(1, |n| Put::new(SMALL, n)),
        "put-8" => clients(8, |n| Put::new(SMALL, n)),
        "put-64" => clients(64, |n| Put::new(SMALL, n)),
        "put-256" => clients(256, |n| Put::new(SMALL, n)),
        "get-1" => clients(1, |n| Get::new(SMALL, "", n)),
        "get-64" => clients(64, |n| Get::new(SMALL, "", n)),
        "get-consistent" => clients(64, |n| Get::new(SMALL, "?consistent", n)),
        "recurse" => clients(8, |_| List::new("/v1/kv/bench/list/?recurse", LIST.count)),
        "keys-separator" => clients(1, |_| {
            List::new("/v1/kv/bench/tree/?keys&separator=/", TREE.count / 100)
        }),
        "session-cycle" => clients(64, |_| SessionCycle::default()),
        "lock-cycle" => {
            let sessions = create_sessions(server, 64)?;
            clients(64, |n| LockCycle::new(&sessions[n], n))
        }
        "txn-64" => clients(CLIENTS, |n| Txn::endless(SMALL, n, CLIENTS)),
        "mixed" => clients(64, |n| Mixed::new(SMALL, n)),
        other => bail!("no scripts for {other}"),
    })
}

fn create_sessions(server: &Server, count: usize) -> Result<Vec<String>> {
    let mut connection = Blocking::open(server.http())?;
    let create = request("PUT", "/v1/session/create", b"{\"LockDelay\":\"0s\"}");
    (0..count)
        .map(|_| session_id(connection.call(&create)?.body))
        .collect()
}
