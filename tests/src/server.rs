//! The server process under test.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Client, Response};
use crate::wait::until;

/// Longest start; a Consul that bootstraps takes some ten seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Ports lie below the range of outgoing connections, so that no client takes one between a kill and a start.
const FIRST_PORT: u16 = 11_000;
/// Those of one test process, and how many processes may run beside each other.
const PORTS: u16 = 2_000;
const PROCESSES: u16 = 9;
/// Name of the node in all tests.
pub(crate) const NODE: &str = "node-under-test";

/// The binary under test.
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LICTOR_BIN") {
        return fs::canonicalize(&path).with_context(|| format!("LICTOR_BIN names {}", path.display()));
    }
    // The test runs in target/PROFILE/deps.
    let test = std::env::current_exe()?;
    let path = test
        .parent()
        .and_then(Path::parent)
        .context("odd test path")?
        .join("lictor");
    ensure!(
        path.exists(),
        "{} is missing: build the lictor binary first, or set LICTOR_BIN",
        path.display()
    );
    Ok(path)
}

/// Whether the binary under test is a Consul, which proves the tests rather than the product.
///
/// # Errors
/// When the binary cannot be run.
pub fn is_consul() -> Result<bool> {
    let output = Command::new(binary()?).arg("version").output()?;
    Ok(output.stdout.starts_with(b"Consul"))
}

/// A real Consul, where there is one: `$CONSUL_BIN`, else `consul` on `$PATH`.
///
/// # Errors
/// When it cannot be run.
pub fn consul() -> Result<Option<PathBuf>> {
    let named = std::env::var_os("CONSUL_BIN").map(PathBuf::from);
    let path = named.or_else(|| {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders)
            .map(|folder| folder.join("consul"))
            .find(|path| path.is_file())
    });
    let Some(path) = path else {
        return Ok(None);
    };
    let said = Command::new(&path).arg("version").output();
    let said = said.with_context(|| path.display().to_string())?;
    Ok(said.stdout.starts_with(b"Consul").then_some(path))
}

/// Runs the binary to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(args: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?).args(args).stdin(Stdio::null()).output()?)
}

/// A port that nobody listens on, and that no other caller in this process was given.
///
/// # Errors
/// When there is none left.
pub fn free_port() -> Result<u16> {
    static OFFSET: AtomicU16 = AtomicU16::new(0);
    let first = first_port()?;
    for _ in 0..PORTS {
        let port = first + OFFSET.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}

/// The first of the ports that belong to this process while it lives: a server that was killed may be started again on
/// ports that nobody listens on meanwhile.
fn first_port() -> Result<u16> {
    static MINE: Mutex<Option<(u16, File)>> = Mutex::new(None);
    let mut mine = MINE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((first, _)) = *mine {
        return Ok(first);
    }
    for number in 0..PROCESSES {
        let path = std::env::temp_dir().join(format!("lictor-test-ports-{number}"));
        // Another user may have made it.
        let claim = File::open(&path).or_else(|_| File::create(&path));
        let claim = claim.with_context(|| path.display().to_string())?;
        match claim.try_lock() {
            Ok(()) => {
                let first = FIRST_PORT + number * PORTS;
                *mine = Some((first, claim));
                return Ok(first);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    bail!("{PROCESSES} test processes run already")
}

/// Where a server is, and among whom.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Name of the node.
    pub name: String,
    /// Where it binds.
    pub address: Ipv4Addr,
    /// Port of HTTP.
    pub http: u16,
    /// Port at which servers speak with each other.
    pub server: u16,
    /// Port at which servers are joined.
    pub serf_lan: u16,
    /// How many servers are to form the cluster.
    pub expect: usize,
    /// Where other servers are joined, `host:port`.
    pub join: Vec<String>,
    /// The network namespace to run in.
    pub namespace: Option<String>,
}

impl Seat {
    /// A server alone, on loopback.
    ///
    /// # Errors
    /// When no port is free.
    pub fn alone() -> Result<Self> {
        Ok(Self {
            name: NODE.to_owned(),
            address: Ipv4Addr::LOCALHOST,
            http: free_port()?,
            server: free_port()?,
            serf_lan: free_port()?,
            expect: 1,
            join: Vec::new(),
            namespace: None,
        })
    }

    fn hcl(&self) -> Result<String> {
        Ok(format!(
            "ports {{\n http = {}\n server = {}\n serf_lan = {}\n serf_wan = {}\n dns = -1\n grpc = -1\n grpc_tls = -1\n}}\n",
            self.http,
            self.server,
            self.serf_lan,
            free_port()?
        ))
    }
}

/// What a test may choose about its server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its place; alone on loopback if absent.
    pub seat: Option<Seat>,
    /// What is run; the binary under test if absent.
    pub program: Option<PathBuf>,
    /// More configuration, in HCL.
    pub hcl: String,
    /// More arguments.
    pub args: Vec<String>,
    /// Data directory; a fresh temporary one if absent.
    pub data_dir: Option<PathBuf>,
    /// `-dev` instead of a durable server.
    pub dev: bool,
    /// More variables of the environment.
    pub env: Vec<(String, String)>,
    /// An agent without a server.
    pub client: bool,
}

/// A durable single server on loopback, killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    seat: Seat,
    options: Options,
    args: Vec<String>,
    data_dir: PathBuf,
    /// Holds the log, and the data directory unless the test named one.
    temp: TempDir,
}

impl Server {
    /// Starts a server with nothing special and waits until it leads.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub fn start() -> Result<Self> {
        Self::with(Options::default())
    }

    /// Starts a server and waits until it leads.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn with(options: Options) -> Result<Self> {
        let mut server = Self::launch(options)?;
        server.await_ready()?;
        Ok(server)
    }

    /// Starts a server and waits for nothing.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(options: Options) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("lictor-test-").tempdir()?;
        let data_dir = options
            .data_dir
            .clone()
            .unwrap_or_else(|| temp.path().join("data"));
        let seat = options.seat.clone().map_or_else(Seat::alone, Ok)?;
        let args = arguments(&seat, &options, &data_dir)?;
        let child = spawn(&args, &seat, &options, temp.path())?;
        Ok(Self {
            child,
            seat,
            options,
            args,
            data_dir,
            temp,
        })
    }

    /// Waits until there is a leader and the server's own node takes sessions.
    ///
    /// # Errors
    /// When the process ends first, or takes too long.
    pub fn await_ready(&mut self) -> Result<()> {
        let mut client = self.client().with_timeout(Duration::from_secs(5));
        let leader = until("a leader", START_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Err(status)));
            }
            let response = client.get("/v1/status/leader")?;
            let leads =
                response.status == 200 && response.json()?.as_str().is_some_and(|leader| !leader.is_empty());
            let health = client.get(&format!("/v1/health/node/{}", self.seat.name))?;
            Ok((leads && health.text().contains("serfHealth")).then_some(Ok(())))
        })
        .with_context(|| self.log_tail())?;
        leader.map_err(|status| anyhow::anyhow!("the server ended with {status}: {}", self.log_tail()))
    }

    /// Where HTTP is served.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.seat.address, self.seat.http))
    }

    /// Where the server is.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The server's data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process's directory for temporary files, with its log as `log`.
    pub fn temp_dir(&self) -> &Path {
        self.temp.path()
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.seat.name
    }

    /// A new connection to the server.
    pub fn client(&self) -> Client {
        Client::new(self.http())
    }

    /// GET on a connection of its own.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub fn get(&self, target: &str) -> Result<Response> {
        self.client().get(target)
    }

    /// PUT on a connection of its own.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub fn put(&self, target: &str, body: impl AsRef<[u8]>) -> Result<Response> {
        self.client().put(target, body)
    }

    /// DELETE on a connection of its own.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub fn delete(&self, target: &str) -> Result<Response> {
        self.client().delete(target)
    }

    /// Creates a session from JSON and answers its id.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn session(&self, body: &str) -> Result<String> {
        let response = self.put("/v1/session/create", body)?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(response.json()?["ID"].as_str().context("no ID")?.to_owned())
    }

    /// Starts a GET in the background.
    pub fn watch(&self, target: String) -> std::thread::JoinHandle<Result<Response>> {
        let mut client = self.client().with_timeout(Duration::from_secs(120));
        std::thread::spawn(move || client.get(&target))
    }

    /// Waits until `count` queries sit in the server: as many connections of ours are open and quiet.
    ///
    /// # Errors
    /// When they do not arrive.
    pub fn await_open_connections(&self, count: usize) -> Result<()> {
        until("connections to be open", Duration::from_secs(10), || {
            Ok((self.open_connections()? >= count).then_some(()))
        })
    }

    /// Waits until the server says that `count` queries wait in it, beside the one of its own agent.
    ///
    /// # Errors
    /// When they do not arrive.
    pub fn await_waiting_queries(&self, count: usize) -> Result<()> {
        let waiting = |page: &str| {
            let mut lines = page.lines();
            let depth = lines.find_map(|line| line.strip_prefix("lictor_queue_depth{queue=\"watches\"} "));
            depth.and_then(|depth| depth.parse::<usize>().ok())
        };
        until("queries to wait", Duration::from_secs(60), || {
            let page = self.get("/v1/agent/metrics?format=prometheus")?.text();
            Ok(waiting(&page).filter(|&found| found > count).map(|_| ()))
        })
    }

    /// TCP connections established at the HTTP port, as the kernel lists them for the server's side.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn open_connections(&self) -> Result<usize> {
        let local = format!("0100007F:{:04X}", self.seat.http);
        let table = fs::read_to_string("/proc/net/tcp")?;
        let established = |line: &&str| {
            let mut fields = line.split_whitespace();
            fields.nth(1) == Some(&local) && fields.nth(1) == Some("01")
        };
        Ok(table.lines().filter(established).count())
    }

    /// Open descriptors of the process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.id()))?.count())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Stops all threads of the process, and waits until they stand still. `Signal::CONT` lets them go on.
    ///
    /// # Errors
    /// When they do not.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        until("the process to stand still", STOP_LIMIT, || {
            for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
                let stat = fs::read_to_string(task?.path().join("stat"))?;
                // The state follows the name, which stands in parentheses.
                if !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// Ends the process without warning.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it does not.
    pub fn await_exit(&mut self) -> Result<ExitStatus> {
        until("the server to end", STOP_LIMIT, || Ok(self.child.try_wait()?)).with_context(|| self.log_tail())
    }

    /// Starts the ended server again, with the same arguments and data, and waits for nothing.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn relaunch(&mut self) -> Result<()> {
        self.child = spawn(&self.args, &self.seat, &self.options, self.temp.path())?;
        Ok(())
    }

    /// Starts the ended server again at another place, with the same data, and waits for nothing.
    ///
    /// # Errors
    /// As for [`Self::relaunch`].
    pub fn relaunch_at(&mut self, seat: Seat) -> Result<()> {
        self.args = arguments(&seat, &self.options, &self.data_dir)?;
        self.seat = seat;
        self.relaunch()
    }

    /// Leaves log and data when the test is over, and says where.
    pub fn keep_files(&mut self) -> &Path {
        self.temp.disable_cleanup(true);
        self.temp.path()
    }

    /// Kills the server, starts it again and waits until it leads.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.kill()?;
        self.relaunch()?;
        self.await_ready()
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Memory that the process holds, in KiB.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(number.context("no VmRSS")?.trim().parse()?)
    }

    /// Everything the server wrote to standard output and error.
    pub fn log(&self) -> String {
        fs::read(self.temp.path().join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of [`Self::log`].
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "the server's last words:\n{}",
            lines[lines.len().saturating_sub(20)..].join("\n")
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

fn arguments(seat: &Seat, options: &Options, data_dir: &Path) -> Result<Vec<String>> {
    let address = seat.address.to_string();
    let mut args: Vec<String> = [
        "agent", "-bind", &address, "-client", &address, "-node", &seat.name,
    ]
    .map(str::to_owned)
    .into();
    if options.dev {
        args.push("-dev".to_owned());
    } else {
        if !options.client {
            args.push("-server".to_owned());
            args.push(format!("-bootstrap-expect={}", seat.expect));
        }
        args.push("-data-dir".to_owned());
        args.push(data_dir.to_str().context("odd temporary directory")?.to_owned());
    }
    args.extend(["-hcl".to_owned(), seat.hcl()?]);
    for other in &seat.join {
        args.extend(["-retry-join".to_owned(), other.clone()]);
    }
    if !options.hcl.is_empty() {
        args.extend(["-hcl".to_owned(), options.hcl.clone()]);
    }
    args.extend(options.args.iter().cloned());
    Ok(args)
}

fn spawn(args: &[String], seat: &Seat, options: &Options, dir: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let binary = options.program.clone().map_or_else(binary, Ok)?;
    let mut command = match &seat.namespace {
        // It becomes the server: the process id is the server's.
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(&binary);
            command
        }
        None => Command::new(&binary),
    };
    command
        .args(args)
        .current_dir(dir)
        // What a server leaves behind there goes with the test, and can be looked at.
        .env("TMPDIR", dir)
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))
}
