//! `agent`: from arguments to a running server and back to an exit code.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::args::agent::AgentArgs;
use crate::args::raft_kv_demo::DemoArgs;
use crate::commands::version::VERSION;
use crate::config::{ConfigError, DataDir, Definitions, Listen, RuntimeConfig, Sources};
use crate::life::{self, Control, LevelHandle, Monitors, PidFile};

/// How long tasks that outlive the server may take to end.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_secs(1);

/// All that a server is started with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub config: RuntimeConfig,
    /// Where everything durable lives; exists, and is empty at the first start.
    pub data_dir: PathBuf,
    /// Requests to stop and to reload.
    pub control: Control,
    /// Changes the level of the log.
    pub log_level: LevelHandle,
    /// The log for clients that watch it.
    pub monitors: Monitors,
}

impl Start {
    /// To be called when HTTP is being served: tells people where to go.
    pub fn ready(&self) {
        for listen in &self.config.http {
            tracing::info!(address = %listen, "serving HTTP");
        }
        for listen in &self.config.https {
            tracing::info!(address = %listen, "serving HTTPS");
        }
        if let (true, Some(listen)) = (self.config.dev, self.config.http.first()) {
            // Nobody may be there to read it.
            let _ = banner(listen, &self.config.node_name);
        }
    }
}

fn banner(listen: &Listen, node: &str) -> io::Result<()> {
    let curl = match listen {
        Listen::Tcp(address) => format!("curl http://{address}"),
        Listen::Unix(path) => format!("curl --unix-socket {} http://localhost", path.display()),
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "==> Lictor v{VERSION} is ready; node {node:?}, development mode: nothing is kept"
    )?;
    writeln!(out, "    {curl}/v1/status/leader")?;
    writeln!(out, "    {curl}/v1/kv/hello -X PUT -d world")?;
    writeln!(out, "    {curl}/v1/kv/hello?raw")?;
    out.flush()
}

/// The server that `agent` runs. It is called on a thread of its own runtime and returns when it has stopped.
pub trait Server {
    /// Runs until [`Control::stop_requested`], then shuts down in order.
    ///
    /// # Errors
    /// One line for the operator: what failed, and what to do about it.
    fn run(self, start: Start) -> impl Future<Output = anyhow::Result<()>>;
}

impl<F, R> Server for F
where
    F: FnOnce(Start) -> R,
    R: Future<Output = anyhow::Result<()>>,
{
    fn run(self, start: Start) -> impl Future<Output = anyhow::Result<()>> {
        self(start)
    }
}

/// Runs the agent and answers the process's exit code: 0 after an orderly stop, 1 otherwise.
pub(crate) fn run<S: Server>(args: AgentArgs, definitions: Definitions, server: S) -> ExitCode {
    let sources = args.into_sources().map_err(ConfigError::Invalid);
    code(sources.map_err(Into::into).and_then(|mut sources| {
        sources.environment = environment();
        sources.definitions = Some(definitions);
        let config = sources.load()?;
        try_run(sources, config, server)
    }))
}

/// Runs a node of Raft-KV-Demo; answers as [`run`] does.
pub(crate) fn run_demo<S: Server>(args: DemoArgs, server: S) -> ExitCode {
    code(
        args.into_sources()
            .map_err(Into::into)
            .and_then(|(sources, demo)| {
                let config = RuntimeConfig {
                    demo: Some(demo),
                    ..sources.load()?
                };
                try_run(sources, config, server)
            }),
    )
}

fn code(stopped: anyhow::Result<()>) -> ExitCode {
    match stopped {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("==> {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run<S: Server>(sources: Sources, config: RuntimeConfig, server: S) -> anyhow::Result<()> {
    let monitors = Monitors::default();
    let log_level = life::start_logging(&config.log, &monitors)?;
    life::abort_on_panic();
    tracing::info!(
        version = VERSION,
        node = config.node_name,
        datacenter = config.datacenter,
        "starting"
    );
    warn_of_gaps(&config);
    let (data_dir, temporary) = open_data_dir(&config)?;
    let pid_file = config.pid_file.as_deref().map(PidFile::create).transpose()?;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let stopped = runtime.block_on(async {
        let control = Control::new(sources);
        life::watch_signals(control.handle(), &config)?;
        server
            .run(Start {
                config,
                data_dir,
                control,
                log_level,
                monitors,
            })
            .await
    });
    runtime.shutdown_timeout(STRAGGLERS_TIMEOUT);
    drop((pid_file, temporary));
    tracing::info!("stopped");
    stopped
}

/// What the environment says, under the names of the configuration keys.
fn environment() -> Map<String, Value> {
    // etcd's name of the same.
    let cors = std::env::var("ETCD_CORS").ok();
    cors.map(|cors| ("cors".to_owned(), cors.into()))
        .into_iter()
        .collect()
}

/// Says what was asked for and is not done.
fn warn_of_gaps(config: &RuntimeConfig) {
    if !config.absent_keys.is_empty() {
        let keys = config.absent_keys.join(", ");
        tracing::warn!(
            keys,
            "these configuration keys have no effect: Lictor does not have what they are for"
        );
    }
    if config.acl.enabled {
        tracing::error!(
            "acl.enabled: access control is not available yet, everybody may read and write everything"
        );
    }
}

fn open_data_dir(config: &RuntimeConfig) -> Result<(PathBuf, Option<TempDir>), ConfigError> {
    match &config.data_dir {
        DataDir::Kept(path) => match std::fs::create_dir_all(path) {
            Ok(()) => Ok((path.clone(), None)),
            Err(error) => Err(ConfigError::Invalid(format!(
                "data_dir: cannot create {}: {error}",
                path.display()
            ))),
        },
        DataDir::Temporary => match tempfile::Builder::new().prefix("lictor-dev-").tempdir() {
            Ok(folder) => Ok((folder.path().to_owned(), Some(folder))),
            Err(error) => Err(ConfigError::Invalid(format!(
                "-dev: cannot create a temporary folder: {error}"
            ))),
        },
    }
}
