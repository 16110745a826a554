//! Three servers as one: forming, who leads, and what becomes of a writer when the leader goes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;

use crate::drive::Aim;
use crate::server::{Binary, Mode, Ports, Server};
use crate::wire::{Blocking, request};

/// How long a cluster may be without a leader, or a newcomer without the data.
const DEADLINE: Duration = Duration::from_secs(300);
/// Pause between two looks at something that takes seconds.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// A writer that gets no answer for so long after a fault tries anew.
const PATIENCE: Duration = Duration::from_millis(250);
/// Rest after a fault, so that the next one meets a whole cluster.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a writer goes on before and after a hand-over.
const AROUND: Duration = Duration::from_secs(1);

/// What happens to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9`; it is started again afterwards.
    Kill,
    /// SIGSTOP; it is continued afterwards.
    Pause,
}

/// A running cluster; killed, and its data removed, when dropped.
pub(crate) struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts three servers and waits until each takes writes.
    pub(crate) fn start(binary: &Binary, parent: &Path) -> Result<Self> {
        let ports = [Ports::free()?, Ports::free()?, Ports::free()?];
        let servers = ports
            .iter()
            .map(|own| Server::launch_at(binary, Mode::Founder, parent, *own, &ports));
        let mut cluster = Self {
            servers: servers.collect::<Result<_>>()?,
        };
        cluster.await_whole()?;
        Ok(cluster)
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The place of the leader.
    pub(crate) fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        loop {
            let named = self.servers.iter().find_map(|server| named_leader(server).ok());
            let leader = |port| {
                self.servers
                    .iter()
                    .position(|server| server.ports().server == port)
            };
            if let Some(leader) = named.and_then(leader) {
                return Ok(leader);
            }
            ensure!(begun.elapsed() < DEADLINE, "no leader");
            std::thread::sleep(POLL_PAUSE);
        }
    }

    pub(crate) fn followers(&self) -> Result<Vec<&Server>> {
        let leader = self.leader()?;
        let others = self.servers.iter().enumerate().filter(|(at, _)| *at != leader);
        Ok(others.map(|(_, server)| server).collect())
    }

    /// Clients that talk to some of the servers; the counters are those of all.
    pub(crate) fn aim_at<'a>(&'a self, servers: &[&Server]) -> Aim<'a> {
        Aim {
            addrs: servers.iter().map(|server| server.http()).collect(),
            servers: self.servers.iter().collect(),
        }
    }

    /// Time from a fault of the leader to the first write that a survivor acknowledges.
    pub(crate) fn lose_leader(&mut self, fault: Fault) -> Result<Duration> {
        let leader = self.leader()?;
        let begun = Instant::now();
        match fault {
            Fault::Kill => self.servers[leader].kill()?,
            Fault::Pause => self.servers[leader].signal(Signal::STOP)?,
        }
        let survivors = self.servers.iter().enumerate().filter(|(at, _)| *at != leader);
        let survivors: Vec<&Server> = survivors.map(|(_, server)| server).collect();
        let took = first_write(&survivors, begun);
        match fault {
            Fault::Kill => self.servers[leader].relaunch()?,
            Fault::Pause => self.servers[leader].signal(Signal::CONT)?,
        }
        self.await_whole()?;
        std::thread::sleep(SETTLE);
        took
    }

    /// The longest time between two answers to a writer at a follower while the leadership is handed over, and how many
    /// of its requests failed.
    pub(crate) fn hand_over(&self) -> Result<(Duration, usize)> {
        let leader = &self.servers[self.leader()?];
        let writer = self.followers()?[0].http();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| -> Result<(Duration, usize)> {
                let mut connection = Blocking::open(writer)?;
                let (mut longest, mut failed, mut last) = (Duration::ZERO, 0, Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    let answer = connection.call(&request("PUT", "/v1/kv/bench-ready", b"x"))?;
                    failed += usize::from(answer.status != 200);
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                Ok((longest, failed))
            });
            std::thread::sleep(AROUND);
            let asked = hand_over(leader);
            std::thread::sleep(AROUND);
            stop.store(true, Ordering::Relaxed);
            let outcome = writing.join().map_err(|_| anyhow!("the writer panicked"))?;
            asked?;
            outcome
        })
    }

    /// Starts an empty fourth server; answers the time until it can read `target` from its own data.
    pub(crate) fn add_server(&mut self, binary: &Binary, parent: &Path, target: &str) -> Result<Duration> {
        let known: Vec<Ports> = self.servers.iter().map(Server::ports).collect();
        let mut newcomer = Server::launch_at(binary, Mode::Newcomer, parent, Ports::free()?, &known)?;
        let took = newcomer.await_first("GET", target, b"");
        self.servers.push(newcomer);
        took
    }

    /// Waits until a write through each server is acknowledged.
    fn await_whole(&mut self) -> Result<()> {
        for server in &mut self.servers {
            server.await_first_write()?;
        }
        Ok(())
    }
}

/// Has a leader give its place to another server.
fn hand_over(leader: &Server) -> Result<()> {
    let mut connection = Blocking::open(leader.http())?;
    let answer = connection.call(&request("POST", "/v1/operator/raft/transfer-leader", b""))?;
    ensure!(
        answer.status == 200,
        "the leadership was not handed over: {}",
        answer.excerpt()
    );
    Ok(())
}

/// The consensus port of the leader that a server names.
fn named_leader(server: &Server) -> Result<u16> {
    let mut connection = Blocking::open_within(server.http(), PATIENCE)?;
    let answer = connection.call(&request("GET", "/v1/status/leader", b""))?;
    let text = std::str::from_utf8(answer.body)?.trim().trim_matches('"');
    Ok(text.rsplit_once(':').context("no leader")?.1.parse()?)
}

fn first_write(survivors: &[&Server], begun: Instant) -> Result<Duration> {
    let done = AtomicBool::new(false);
    let attempts = |server: &Server| {
        while !done.load(Ordering::Relaxed) && begun.elapsed() < DEADLINE {
            let written = Blocking::open_within(server.http(), PATIENCE)
                .and_then(|mut connection| {
                    let write = request("PUT", "/v1/kv/bench-ready", b"x");
                    Ok(connection.call(&write)?.status == 200)
                })
                .unwrap_or(false);
            if written {
                done.store(true, Ordering::Relaxed);
                return Some(begun.elapsed());
            }
        }
        None
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = survivors
            .iter()
            .map(|server| scope.spawn(|| attempts(server)))
            .collect();
        let took = threads
            .into_iter()
            .filter_map(|thread| thread.join().ok().flatten())
            .min();
        took.context("no survivor takes writes")
    })
}
