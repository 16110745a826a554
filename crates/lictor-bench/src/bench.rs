//! The phases: which servers run when, what is stored in them, and which work is measured.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cluster::{Cluster, Fault};
use crate::drive::{Aim, Pace, drive};
use crate::figures::{Figure, Sample, float};
use crate::handoff;
use crate::rows::{Phase, ROWS, Row};
use crate::script::{
    Dice, Get, Keys, List, LockCycle, Mixed, Put, Register, Script, SessionCycle, TXN_OPS, Txn, session_id,
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
/// Services, which share names in groups of [`INSTANCES`] and have [`CHECKS`] checks each.
const SERVICES: usize = 10_000;
const INSTANCES: usize = 100;
const CHECKS: usize = 2;
/// How long a server is left alone to see what it does by itself.
const ALONE: Duration = Duration::from_secs(10);
const WAKE_ONE_TIMES: usize = 300;
const WAKE_ALL_TIMES: usize = 5;
/// How often the leader of a cluster is lost in each way.
const FAULTS: usize = 10;

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
            (Phase::Services, Self::services),
            (Phase::Cluster, Self::cluster),
            (Phase::ClusterMillion, Self::cluster_million),
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
    fn load<'a>(&self, aim: impl Into<Aim<'a>>, keys: Keys) -> Result<Sample> {
        let scripts = clients(CLIENTS, |n| Txn::load(keys, n, CLIENTS));
        let mut sample = drive(
            aim,
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

        let mut watchers = Watchers::open(&[server.http()], WATCHED, false)?;
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
        let mut watchers = Watchers::open(&[server.http()], WATCHED, true)?;
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

    fn services(&mut self, binary: &Binary) -> Result<()> {
        let all = |register: fn(usize) -> Vec<u8>| {
            clients(CLIENTS, |n| Register::new(register, n, CLIENTS, SERVICES))
        };
        let once = Pace {
            window: None,
            ..self.pace
        };
        let server = Server::start(binary, Mode::Durable, &self.dir)?;
        drive(&server, all(in_catalog), once, 1.0)?;
        std::thread::sleep(PAUSE);
        let name = service_name(0);
        let lists = clients(8, |_| {
            List::new(&format!("/v1/health/service/{name}"), INSTANCES * CHECKS)
        });
        let sample = drive(&server, lists, self.pace, 1.0)?;
        self.note("services-health", binary.product, sample);
        // Consul's agent takes minutes for as many, since it looks at all of them for each.
        if binary.product == Product::Consul {
            return Ok(());
        }
        let server = Server::start(binary, Mode::Durable, &self.dir)?;
        drive(&server, all(at_agent), once, 1.0)?;
        std::thread::sleep(SETTLE);
        let before = server.usage()?.cpu_seconds;
        std::thread::sleep(ALONE);
        let idle = (server.usage()?.cpu_seconds - before) / ALONE.as_secs_f64();
        self.note("services-idle", binary.product, Sample::of(Figure::Idle, idle));
        Ok(())
    }

    fn cluster(&mut self, binary: &Binary) -> Result<()> {
        let mut cluster = Cluster::start(binary, &self.dir)?;
        let leader = cluster.leader()?;
        self.load(cluster.aim_at(&[&cluster.servers()[leader]]), SMALL)?;
        let rows = ROWS.iter().filter(|row| row.phase == Phase::Cluster);
        let rows: Vec<&Row> = rows.filter(|row| self.wants(row)).collect();
        for row in rows {
            std::thread::sleep(PAUSE);
            let sample = self
                .measure_cluster(row.id, &mut cluster)
                .with_context(|| format!("{} on {}", row.id, binary.product.name()))?;
            self.note(row.id, binary.product, sample);
        }
        Ok(())
    }

    fn measure_cluster(&self, id: &str, cluster: &mut Cluster) -> Result<Sample> {
        let fault = match id {
            "cluster-kill" => Some(Fault::Kill),
            "cluster-pause" => Some(Fault::Pause),
            _ => None,
        };
        if let Some(fault) = fault {
            let took = (0..FAULTS).map(|_| cluster.lose_leader(fault));
            return Ok(percentiles(took.collect::<Result<_>>()?));
        }
        if id == "cluster-transfer" {
            let (longest, failed) = cluster.hand_over()?;
            let mut sample = Sample::of(Figure::Time, longest.as_secs_f64());
            sample.set(Figure::Failed, float(failed));
            return Ok(sample);
        }
        if id == "cluster-watch-memory" {
            return self.watch_cluster(cluster);
        }
        let (leader, followers) = (&cluster.servers()[cluster.leader()?], cluster.followers()?);
        let (servers, scripts) = match id {
            "cluster-put-64" => (vec![leader], clients(64, |n| Put::new(SMALL, n))),
            "cluster-put-1" => (vec![leader], clients(1, |n| Put::new(SMALL, n))),
            "cluster-put-followers" => (followers, clients(64, |n| Put::new(SMALL, n))),
            "cluster-get-default" => (vec![followers[0]], clients(64, |n| Get::new(SMALL, "", n))),
            "cluster-get-stale" => (vec![followers[0]], clients(64, |n| Get::new(SMALL, "?stale", n))),
            "cluster-get-consistent" => (
                vec![followers[0]],
                clients(64, |n| Get::new(SMALL, "?consistent", n)),
            ),
            other => bail!("no scripts for {other}"),
        };
        drive(cluster.aim_at(&servers), scripts, self.pace, 1.0)
    }

    fn watch_cluster(&self, cluster: &Cluster) -> Result<Sample> {
        let leader = cluster.leader()?;
        self.load(cluster.aim_at(&[&cluster.servers()[leader]]), WATCHED)?;
        std::thread::sleep(SETTLE);
        let resident = || -> Result<f64> { cluster.servers().iter().map(Server::resident_bytes).sum() };
        let before = resident()?;
        let addrs: Vec<_> = cluster.servers().iter().map(Server::http).collect();
        let watchers = Watchers::open(&addrs, WATCHED, false)?;
        std::thread::sleep(SETTLE);
        let each = (resident()? - before) / float(watchers.count());
        // Consul keeps an abandoned query until its wait is over, so all are answered before they are dropped.
        self.load(cluster.aim_at(&[&cluster.servers()[leader]]), WATCHED)?;
        Ok(Sample::of(Figure::Memory, each))
    }

    fn cluster_million(&mut self, binary: &Binary) -> Result<()> {
        let mut cluster = Cluster::start(binary, &self.dir)?;
        let leader = cluster.leader()?;
        self.load(cluster.aim_at(&[&cluster.servers()[leader]]), MILLION)?;
        std::thread::sleep(SETTLE);
        let file = cluster.servers()[leader].dir().join("snapshot");
        let file = file.to_str().context("the folder's name is no text")?.to_owned();
        let timed = |cluster: &Cluster, verb: &str| -> Result<Sample> {
            let begun = Instant::now();
            cluster.servers()[leader].command(&["snapshot", verb, &file])?;
            Ok(Sample::of(Figure::Time, begun.elapsed().as_secs_f64()))
        };
        self.note("cluster-snapshot-save", binary.product, timed(&cluster, "save")?);

        let alone = drive(
            cluster.aim_at(&[&cluster.servers()[leader]]),
            clients(CLIENTS, |n| Put::new(SMALL, n)),
            self.pace,
            1.0,
        )?;
        let last = format!("/v1/kv/{}?stale", MILLION.name(MILLION.count - 1));
        let addrs = vec![cluster.servers()[leader].http()];
        let (pace, dir) = (self.pace, self.dir.clone());
        let caught_up = AtomicBool::new(false);
        let (took, during) = std::thread::scope(|scope| {
            // Writes to the end, however long that takes; the first window is the sample.
            let writing = scope.spawn(|| {
                let write = || {
                    let aim = Aim {
                        addrs: addrs.clone(),
                        servers: Vec::new(),
                    };
                    drive(aim, clients(CLIENTS, |n| Put::new(SMALL, n)), pace, 1.0)
                };
                let first = write()?;
                while !caught_up.load(Ordering::Relaxed) {
                    write()?;
                }
                Ok(first)
            });
            let took = cluster.add_server(binary, &dir, &last);
            caught_up.store(true, Ordering::Relaxed);
            (took, writing.join())
        });
        let during: Result<Sample> = during.map_err(|_| anyhow!("a load thread panicked"))?;
        let mut sample = Sample::of(Figure::Time, took?.as_secs_f64());
        if let (Some(alone), Some(during)) = (alone.get(Figure::P99), during?.get(Figure::P99)) {
            sample.set(Figure::P99, during);
            sample.set(Figure::Kept, alone / during);
        }
        self.note("cluster-catch-up", binary.product, sample);

        self.note(
            "cluster-snapshot-restore",
            binary.product,
            timed(&cluster, "restore")?,
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

fn service_name(n: usize) -> String {
    format!("bench-{}", n / INSTANCES)
}

/// Registers service `n` and its checks, on one of a hundred nodes.
fn in_catalog(n: usize) -> Vec<u8> {
    let (name, node) = (service_name(n), n % INSTANCES);
    let check = |check: usize| {
        format!(
            r#"{{"Node":"bench-{node}","CheckID":"{n}-{check}","Name":"check {check}","Status":"passing","ServiceID":"{n}"}}"#
        )
    };
    let body = format!(
        r#"{{"Node":"bench-{node}","Address":"127.0.0.1","SkipNodeUpdate":true,"Service":{{"ID":"{n}","Service":"{name}","Port":80,"Tags":["a","b"]}},"Checks":[{},{}]}}"#,
        check(1),
        check(2)
    );
    request("PUT", "/v1/catalog/register", body.as_bytes())
}

/// The same at the server's own agent, with checks that pass for an hour.
fn at_agent(n: usize) -> Vec<u8> {
    let name = service_name(n);
    let body = format!(
        r#"{{"ID":"{n}","Name":"{name}","Port":80,"Checks":[{{"TTL":"1h","Status":"passing"}},{{"TTL":"1h","Status":"passing"}}]}}"#
    );
    request("PUT", "/v1/agent/service/register", body.as_bytes())
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
            clients(64, |n| LockCycle::new(&sessions[n]))
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
