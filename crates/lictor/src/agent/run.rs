//! Wires the crates into one server, and takes it down again in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lictor_agent::definition::InvalidDefinition;
use lictor_agent::{Agent, CheckDefinition, Definitions, ReadError, ServiceDefinition};
use lictor_cli::config::RuntimeConfig;
use lictor_cli::{CONSUL_VERSION, Leave, Start};
use lictor_http::{Api, Cors, Limits, Listener, Monitor};
use lictor_node::{Consistency, Node};
use lictor_proto::RaftId;
use lictor_store::{DataDir, DirIdentity};
use tokio::task::JoinHandle;

use super::cluster::{self, Member};
use super::{demo, listeners};

/// The pause before a server that could not register itself tries again.
const REGISTER_AGAIN: Duration = Duration::from_secs(1);

/// Runs a server, or an agent without one, until it is asked to stop.
pub(crate) async fn run(start: Start) -> anyhow::Result<()> {
    let config = &start.config;
    let fresh = || draw_identity(config);
    let dir = DataDir::open(&start.data_dir, fresh)?;
    let listeners = listeners::bind(config).await?;
    if !config.server {
        return run_client(&start, &dir, listeners).await;
    }
    let member = Member::open(config, &dir).await?;
    let node = member.node.clone();
    node.set_slow_after(config.log.slow_after);
    let agent = Agent::start(node.clone(), agent_config(&start, &dir)?)?;
    let joining = demo::join(config.demo.clone(), node.clone());
    let forming = if member.can_begin() {
        member.begin().await?;
        tokio::spawn(joining)
    } else {
        let begun = member.begin();
        tokio::spawn(async move { tokio::try_join!(begun, joining).map(|_| ()) })
    };
    if config.demo.is_some() {
        let node = node.clone();
        tokio::spawn(async move { node.make_http_address_known().await });
    }
    let alone = node.roster().members().is_sole_voter(node.raft_id());
    if alone {
        node.read(Consistency::Default).await?;
        agent.register_self().await?;
    } else {
        tokio::spawn(register(node.clone(), agent.clone()));
    }

    let api = Api {
        node: node.clone(),
        agent: agent.clone(),
        options: http_options(&start),
    };
    let http = lictor_http::serve(listeners, api, limits(config)).context("cannot start serving HTTP")?;
    start.ready();
    let stopped = serve_until_stop(&start, &node, &agent, Some(forming)).await;

    http.shutdown().await;
    agent.stop().await;
    if let Ok(Leave::Yes) = stopped
        && !node.roster().members().is_sole_voter(node.raft_id())
        && let Err(error) = node.remove_member(node.raft_id()).await
    {
        tracing::warn!("this server stops without having left its cluster: {error}");
    }
    let peers = node.peers().cloned();
    tokio::task::spawn_blocking(move || node.stop())
        .await
        .context("stopping the node")?;
    if let Some(peers) = peers {
        peers.stop().await;
    }
    stopped.map(drop)
}

/// Runs an agent that has no server: it holds services and checks of this host, and passes all else on.
async fn run_client(start: &Start, dir: &DataDir, listeners: Vec<Listener>) -> anyhow::Result<()> {
    let config = &start.config;
    let agent_config = agent_config(start, dir)?;
    let me = lictor_agent::node_row(&cluster::identity(config, dir), &agent_config);
    let (node, peers) = cluster::client(config, dir, me)?;
    node.set_slow_after(config.log.slow_after);
    let agent = Agent::start(node.clone(), agent_config)?;
    let registering = agent.clone();
    tokio::spawn(async move { registering.register_self().await });

    let api = Api {
        node: node.clone(),
        agent: agent.clone(),
        options: http_options(start),
    };
    let http = lictor_http::serve(listeners, api, limits(config)).context("cannot start serving HTTP")?;
    start.ready();
    let stopped = serve_until_stop(start, &node, &agent, None).await;

    http.shutdown().await;
    agent.stop().await;
    if let Ok(Leave::Yes) = stopped
        && let Err(error) = node.depart().await
    {
        tracing::warn!("this agent stops without having left the cluster: {error}");
    }
    node.stop();
    peers.stop().await;
    stopped.map(drop)
}

/// Writes this server into the catalog, as soon as there is a leader.
async fn register(node: Node, agent: Agent) {
    loop {
        if node.read(Consistency::Default).await.is_ok() {
            match agent.register_self().await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "this server could not be registered; trying again"),
            }
        }
        tokio::time::sleep(REGISTER_AGAIN).await;
    }
}

/// Serves until a stop is asked for, or the way into a cluster fails.
async fn serve_until_stop(
    start: &Start,
    node: &Node,
    agent: &Agent,
    mut forming: Option<JoinHandle<anyhow::Result<()>>>,
) -> anyhow::Result<Leave> {
    let Start {
        control, log_level, ..
    } = start;
    loop {
        let formed = async {
            match &mut forming {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            leave = control.stop_requested() => {
                if let Some(task) = forming {
                    task.abort();
                }
                return Ok(leave);
            }
            formed = formed => {
                formed.context("forming a cluster")??;
                forming = None;
            }
            reload = control.reload_requested() => {
                log_level.set(reload.config.log.level);
                node.set_slow_after(reload.config.log.slow_after);
                let outcome = match definitions(&reload.config) {
                    Ok(definitions) => agent.reload(definitions).await.map_err(|error| error.to_string()),
                    Err(error) => Err(error),
                };
                // Whoever asked may have gone.
                let _ = reload.done.send(outcome);
            }
        }
    }
}

fn draw_identity(config: &RuntimeConfig) -> DirIdentity {
    let draw = || uuid::Uuid::new_v4().to_string();
    // 1 and not 0 is drawn once in 2^64 times, by `max`.
    let raft_id = RaftId(uuid::Uuid::new_v4().as_u64_pair().1.max(1));
    DirIdentity {
        node_id: config.node_id.clone().unwrap_or_else(draw),
        raft_id,
        cluster_id: draw(),
    }
}

fn agent_config(start: &Start, dir: &DataDir) -> anyhow::Result<lictor_agent::Config> {
    let config = &start.config;
    let (reload, leave) = (start.control.handle(), start.control.handle());
    let request_reload = move || {
        let reload = reload.clone();
        Box::pin(async move { reload.reload().await.map_err(|error| error.to_string()) }) as _
    };
    Ok(lictor_agent::Config {
        data_dir: Some(dir.path().to_owned()),
        is_client: !config.server,
        definitions: definitions(config).map_err(anyhow::Error::msg)?,
        version: CONSUL_VERSION.to_owned(),
        node_meta: config.node_meta.clone(),
        serf_lan_port: config.ports.serf_lan.unwrap_or_default(),
        output_max_bytes: config.limits.check_output_max_size,
        scripts: lictor_agent::Scripts {
            from_clients: config.enable_script_checks,
            from_files: config.enable_local_script_checks,
        },
        request_reload: Some(Arc::new(request_reload)),
        leave: Some(Arc::new(move || leave.stop(Leave::Yes))),
    })
}

/// How the command line has the definitions in files read before anything is started.
pub(crate) const DEFINITIONS: lictor_cli::config::Definitions = lictor_cli::config::Definitions {
    service: |value| {
        let read = ServiceDefinition::from_json(value.clone());
        read.map(drop).map_err(|error| of_a_file(&error))
    },
    check: |value| {
        let read = CheckDefinition::from_json(value.clone());
        read.map(drop).map_err(|error| of_a_file(&error))
    },
};

fn definitions(config: &RuntimeConfig) -> Result<Definitions, String> {
    let services = config.services.iter().cloned().map(ServiceDefinition::from_json);
    let checks = config.checks.iter().cloned().map(CheckDefinition::from_json);
    let named = |word, error| format!("{word}: {}", of_a_file(&error));
    Ok(Definitions {
        services: services
            .collect::<Result<_, _>>()
            .map_err(|error| named("service", error))?,
        checks: checks
            .collect::<Result<_, _>>()
            .map_err(|error| named("check", error))?,
    })
}

/// On one line, and without the words for a request, which a file is none.
fn of_a_file(error: &ReadError) -> String {
    match error {
        ReadError::Decode(error) => error.to_string(),
        ReadError::Invalid(InvalidDefinition::Mesh(faults)) => faults.join("; "),
        other => other.to_string(),
    }
}

fn http_options(start: &Start) -> lictor_http::Options {
    let (config, monitors) = (&start.config, start.monitors.clone());
    lictor_http::Options {
        indent_json: config.dev,
        response_headers: Arc::new(config.response_headers.clone()),
        blocked_prefixes: config.block_endpoints.clone(),
        writers: config.allow_write_http_from.clone(),
        cors: Cors::new(config.cors.iter().cloned()),
        page: config.ui,
        raft_kv_demo: config.demo.is_some(),
        monitor: Some(Monitor::new(move |level, is_json| monitors.watch(level, is_json))),
    }
}

fn limits(config: &RuntimeConfig) -> Limits {
    let defaults = Limits::default();
    Limits {
        connections_per_client: u32::try_from(config.limits.http_max_conns_per_client).unwrap_or(u32::MAX),
        header_max_bytes: config
            .limits
            .max_header_bytes
            .unwrap_or(defaults.header_max_bytes),
        kv_value_max_bytes: config.limits.kv_max_value_size,
        txn_body_max_bytes: config.limits.txn_max_req_len,
        txn_ops_max: config.limits.txn_max_ops,
        wait_default: config.limits.default_query_time,
        wait_max: config.limits.max_query_time,
        handshake_timeout: config.limits.https_handshake_timeout,
        drain_timeout: config.limits.leave_drain_time,
        ..defaults
    }
}
