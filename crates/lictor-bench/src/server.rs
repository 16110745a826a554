//! The measured servers: start, readiness, kill -9, and what `/proc` says about them.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wire::{Blocking, request};

/// How long a start, also one that has to read a large data directory, may take.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// How long a server may take to notice closed connections.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach a starting server; it bounds the error of the start-up figures.
const POLL_PAUSE: Duration = Duration::from_millis(1);
/// More than any row opens. Consul refuses to start if its descriptor limit is below this.
const CONNECTIONS_MAX: u32 = 15_000;
const FIRST_PORT: u16 = 21_000;
const LAST_PORT: u16 = 32_000;
/// `/proc/PID/stat` counts CPU time in these (`USER_HZ`, fixed at 100 on Linux).
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// Which of the two is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Product {
    Lictor,
    Consul,
}

impl Product {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lictor => "Lictor",
            Self::Consul => "Consul",
        }
    }
}

/// A binary to measure.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub(crate) product: Product,
    pub(crate) path: PathBuf,
}

/// How a server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `-dev`: nothing to be kept.
    Dev,
    /// One durable server with its own data directory.
    Durable,
    /// One of three durable servers that form a cluster.
    Founder,
    /// A durable server that joins one.
    Newcomer,
}

/// A running server; it is killed, and its data removed, when dropped.
pub(crate) struct Server {
    binary: Binary,
    mode: Mode,
    child: Child,
    ports: Ports,
    config: String,
    dir: PathBuf,
    launched: Instant,
}

impl Server {
    /// Starts a server in a fresh directory below `parent`, without waiting for it.
    pub(crate) fn launch(binary: &Binary, mode: Mode, parent: &Path) -> Result<Self> {
        Self::launch_at(binary, mode, parent, Ports::free()?, &[])
    }

    /// The same at given ports, as a member of a cluster that is met at the others' ports.
    pub(crate) fn launch_at(
        binary: &Binary,
        mode: Mode,
        parent: &Path,
        ports: Ports,
        others: &[Ports],
    ) -> Result<Self> {
        let dir = fresh_dir(parent, binary.product)?;
        let config = config(ports, others);
        let (child, launched) = spawn(binary, mode, &dir, &config)?;
        Ok(Self {
            binary: binary.clone(),
            mode,
            child,
            ports,
            config,
            dir,
            launched,
        })
    }

    /// Starts a server and waits until it takes writes and sessions.
    pub(crate) fn start(binary: &Binary, mode: Mode, parent: &Path) -> Result<Self> {
        let mut server = Self::launch(binary, mode, parent)?;
        server.await_first_write()?;
        server.await_first("PUT", "/v1/session/create", b"{\"TTL\":\"10s\"}")?;
        Ok(server)
    }

    pub(crate) fn product(&self) -> Product {
        self.binary.product
    }

    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.http))
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    /// Runs the product's own command line against this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.binary.path)
            .args(arguments)
            .env("CONSUL_HTTP_ADDR", self.http().to_string())
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Where files of a measurement may lie; removed with the server.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Time from the launch of the process to the answer to its first write.
    pub(crate) fn await_first_write(&mut self) -> Result<Duration> {
        self.await_first("PUT", "/v1/kv/bench-ready", b"x")
    }

    /// Time from the launch of the process to the first 200 to this request.
    pub(crate) fn await_first(&mut self, method: &str, target: &str, body: &[u8]) -> Result<Duration> {
        let bytes = request(method, target, body);
        loop {
            if let Ok(mut connection) = Blocking::open(self.http())
                && let Ok(answer) = connection.call(&bytes)
                && answer.status == 200
            {
                return Ok(self.launched.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended at its start with {status}: {}",
                    self.product().name(),
                    self.last_words()
                );
            }
            ensure!(
                self.launched.elapsed() < START_DEADLINE,
                "{} does not answer",
                self.product().name()
            );
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// Ends the process without warning and starts it again on the same data and ports.
    pub(crate) fn kill_and_relaunch(&mut self) -> Result<()> {
        let killed = Instant::now();
        self.kill()?;
        (self.child, _) = spawn(&self.binary, self.mode, &self.dir, &self.config)?;
        self.launched = killed;
        Ok(())
    }

    /// Starts a server that was killed again, on the same data and ports.
    pub(crate) fn relaunch(&mut self) -> Result<()> {
        (self.child, self.launched) = spawn(&self.binary, self.mode, &self.dir, &self.config)?;
        Ok(())
    }

    /// Stops or continues the process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends the process without warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::KILL)?;
            self.child.wait()?;
        }
        Ok(())
    }

    /// The end of the log, since the directory goes with the server.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<f64> {
        let status = fs::read_to_string(self.proc_file("status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024.0)
    }

    /// Waits until the server has noticed that connections are gone.
    pub(crate) fn await_descriptors_below(&self, count: usize) -> Result<()> {
        let begun = Instant::now();
        while fs::read_dir(self.proc_file("fd"))?.count() >= count {
            ensure!(
                begun.elapsed() < CLOSE_DEADLINE,
                "{} keeps closed connections",
                self.product().name()
            );
            std::thread::sleep(POLL_PAUSE);
        }
        Ok(())
    }

    /// Counters of the process so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let cpu_seconds = self::cpu_seconds(&self.proc_file("stat"))?;
        let load_cpu_seconds = self::cpu_seconds(Path::new("/proc/self/stat"))?;
        // Reading another user's counters may be refused; the figure is then left out.
        let written_bytes = fs::read_to_string(self.proc_file("io")).ok().and_then(|io| {
            io.lines()
                .find_map(|line| line.strip_prefix("write_bytes:"))?
                .trim()
                .parse()
                .ok()
        });
        Ok(Usage {
            cpu_seconds,
            load_cpu_seconds,
            written_bytes,
            device: device(&self.dir),
        })
    }

    fn proc_file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing useful can be done about errors here; the directory lies in the folder the user named.
        let _ = self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a server has used since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time of all its threads.
    pub(crate) cpu_seconds: f64,
    /// The same of the load program.
    pub(crate) load_cpu_seconds: f64,
    /// Bytes it caused to be written to disk, if the system tells.
    pub(crate) written_bytes: Option<f64>,
    /// Counters of the whole device that holds its data, if the system tells.
    pub(crate) device: Option<Device>,
}

impl Usage {
    /// The use of this server and another one on the same machine.
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            load_cpu_seconds: other.load_cpu_seconds,
            written_bytes: self
                .written_bytes
                .zip(other.written_bytes)
                .map(|(one, other)| one + other),
            device: other.device,
        }
    }
}

/// Counters of a block device since the machine's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    pub(crate) written_bytes: f64,
    /// Cache flushes: one or more for each fsync that had something to do.
    pub(crate) flushes: f64,
}

/// User and system time from a `stat` file of `/proc`.
fn cpu_seconds(stat: &Path) -> Result<f64> {
    let stat = fs::read_to_string(stat)?;
    // The name in parentheses may hold blanks; utime and stime are the 12th and 13th fields after it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("odd /proc stat")?
        .1
        .split_whitespace()
        .collect();
    let ticks = |n: usize| -> Result<f64> { Ok(fields.get(n).context("short /proc stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / CLOCK_TICKS_PER_SECOND)
}

fn device(dir: &Path) -> Option<Device> {
    let id = fs::metadata(dir).ok()?.dev();
    let stat = format!(
        "/sys/dev/block/{}:{}/stat",
        rustix::fs::major(id),
        rustix::fs::minor(id)
    );
    let stat = fs::read_to_string(stat).ok()?;
    // The 7th field counts sectors of 512 bytes, the 16th flush requests.
    let field = |n: usize| stat.split_whitespace().nth(n)?.parse::<f64>().ok();
    Some(Device {
        written_bytes: field(6)? * 512.0,
        flushes: field(15)?,
    })
}

fn fresh_dir(parent: &Path, product: Product) -> Result<PathBuf> {
    let parent = std::path::absolute(parent)?;
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let mut n = 0;
    loop {
        let dir = parent.join(format!(
            "{}-{}-{n}",
            product.name().to_lowercase(),
            std::process::id()
        ));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", dir.display())),
        }
    }
}

/// The ports of one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) serf_lan: u16,
    pub(crate) serf_wan: u16,
    /// Consensus; how a server is named in `/v1/status/leader`.
    pub(crate) server: u16,
}

impl Ports {
    pub(crate) fn free() -> Result<Self> {
        let [http, serf_lan, serf_wan, server] = free_ports()?;
        Ok(Self {
            http,
            serf_lan,
            serf_wan,
            server,
        })
    }
}

/// Ports nobody listens on now. They lie below the range that outgoing connections draw from, so that none is taken
/// between a kill and the start after it.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    let mut ports = [0; N];
    for port in &mut ports {
        *port = loop {
            let candidate = NEXT.fetch_add(1, Ordering::Relaxed);
            ensure!(
                candidate < LAST_PORT,
                "no free port between {FIRST_PORT} and {LAST_PORT}"
            );
            if TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)).is_ok() {
                break candidate;
            }
        };
    }
    Ok(ports)
}

/// The same for both products: loopback ports, no other services, no limit that load would hit.
fn config(own: Ports, others: &[Ports]) -> String {
    let Ports {
        http,
        serf_lan,
        serf_wan,
        server,
    } = own;
    let others: Vec<String> = others
        .iter()
        .map(|ports| format!("\"127.0.0.1:{}\"", ports.serf_lan))
        .collect();
    format!(
        "node_name = \"bench-{server}\"\nretry_join = [{}]\nports {{\n http = {http}\n serf_lan = {serf_lan}\n serf_wan = {serf_wan}\n server = {server}\n \
         dns = -1\n grpc = -1\n grpc_tls = -1\n}}\nlimits {{\n http_max_conns_per_client = {CONNECTIONS_MAX}\n}}\n",
        others.join(", ")
    )
}

fn spawn(binary: &Binary, mode: Mode, dir: &Path, config: &str) -> Result<(Child, Instant)> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(&binary.path);
    command.args([
        "agent",
        "-bind",
        "127.0.0.1",
        "-client",
        "127.0.0.1",
        "-hcl",
        config,
    ]);
    match mode {
        Mode::Dev => command.arg("-dev"),
        Mode::Durable => command.args(["-server", "-bootstrap-expect=1"]),
        Mode::Founder => command.args(["-server", "-bootstrap-expect=3"]),
        Mode::Newcomer => command.arg("-server"),
    };
    if mode != Mode::Dev {
        command.arg("-data-dir").arg(dir.join("data"));
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir(dir);
    let launched = Instant::now();
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", binary.path.display()))?;
    Ok((child, launched))
}
