//! Measures Lictor: throughput, latency, CPU, disk and memory, alone or in turns with a Consul on the same machine.
//!
//! It starts the servers itself, each with a fresh data directory and on loopback ports, drives them over plain
//! HTTP/1.1, reads what the kernel counted for them, and prints markdown. It does not check the contract beyond what
//! a figure needs to be true: every write must be acknowledged, every list must be complete.
//!
//! ```text
//! rows ── what to measure, goals          bench ── phases: servers, data, turns, rounds
//!                                            │
//! script ── one client, no IO ──> drive ── connections, time, counters ──> figures ──> report
//! watchers, handoff, cluster ── what a closed loop cannot express ─────────────┘
//! ```

mod bench;
mod cluster;
mod drive;
mod figures;
mod handoff;
mod report;
mod rows;
mod script;
mod server;
mod watchers;
mod wire;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::bench::Bench;
use crate::drive::Pace;
use crate::server::{Binary, Product};

/// Descriptors needed: ten thousand watchers, on both sides.
const DESCRIPTORS: u64 = 16_000;

/// Measure a Lictor binary, and a Consul beside it if one is given.
#[derive(Debug, Parser)]
struct Options {
    /// The Lictor binary
    #[arg(long, env = "LICTOR_BIN")]
    lictor: Option<PathBuf>,
    /// A Consul binary to measure in turns with it
    #[arg(long, env = "CONSUL_BIN")]
    consul: Option<PathBuf>,
    /// Folder for data directories, on the disk to measure; what is made there is removed
    #[arg(long, default_value = "bench-data")]
    dir: PathBuf,
    /// How often each row is measured; figures are medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of one measurement in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Threads of the load side
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Measure only rows whose id starts so; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Print the ids of all rows and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed nobody is there to tell.
            let _ = writeln!(std::io::stderr(), "lictor-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if options.list {
        for row in rows::ROWS {
            writeln!(out, "{:16} {}", row.id, row.title)?;
        }
        return Ok(());
    }
    let window = Duration::try_from_secs_f64(options.seconds).context("--seconds")?;
    ensure!(
        !window.is_zero() && options.rounds > 0,
        "--seconds and --rounds must be above 0"
    );
    raise_descriptor_limit();
    let given = [
        (Product::Lictor, options.lictor),
        (Product::Consul, options.consul),
    ];
    let binaries: Vec<Binary> = given
        .into_iter()
        .filter_map(|(product, path)| Some(Binary { product, path: path? }))
        .map(|binary| {
            Ok(Binary {
                path: fs::canonicalize(&binary.path).with_context(|| format!("{}", binary.path.display()))?,
                ..binary
            })
        })
        .collect::<Result<_>>()?;
    ensure!(!binaries.is_empty(), "give --lictor PATH, --consul PATH or both");
    let mut bench = Bench {
        binaries,
        dir: options.dir,
        rounds: options.rounds,
        pace: Pace {
            threads: options.threads,
            window: Some(window),
        },
        only: options.only,
        results: BTreeMap::new(),
    };
    let outcome = bench.run();
    // What was measured before a failure is worth having.
    writeln!(out, "{}", machine(&bench))?;
    writeln!(out, "{}", bench.report())?;
    outcome
}

/// Servers inherit the limit. Where it cannot be raised the watch rows will say what failed.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < DESCRIPTORS) {
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
}

/// What the figures were measured on and with.
fn machine(bench: &Bench) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let field = |text: &str, name: &str| -> String {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let mut lines = format!(
        "Machine: {cores} x {}, {} memory, Linux {}\n",
        field(&cpus, "model name"),
        field(&memory, "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
    );
    for binary in &bench.binaries {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{}: {}", binary.product.name(), version(&binary.path));
    }
    let seconds = bench.pace.window.unwrap_or_default().as_secs_f64();
    lines
        + &format!(
            "{} rounds of {seconds} s, {} load thread(s)\n",
            bench.rounds, bench.pace.threads
        )
}

fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("version").output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or("unknown version").to_owned()
}
