//! Wires the crates into one server, and takes it down again in order.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use lictor_agent::{Agent, CheckDefinition, Definitions, ServiceDefinition};
use lictor_cli::config::RuntimeConfig;
use lictor_cli::{CONSUL_VERSION, Leave, Start};
use lictor_http::{Api, Limits};
use lictor_node::{Consistency, Identity, Node, Options};
use lictor_proto::{LogIndex, RaftId};
use lictor_raft::{LogPosition, Membership, StateMark};
use lictor_state::State;
use lictor_store::log::{LogOptions, RocksLog};
use lictor_store::{DataDir, DirIdentity, StateStore};

use super::listeners;

/// Blocking queries that may wait at a time.
const WATCHES_MAX: usize = 250_000;

/// Runs a server until it is asked to stop.
pub(crate) async fn run(start: Start) -> anyhow::Result<()> {
    let config = &start.config;
    let fresh = || draw_identity(config);
    let dir = DataDir::open(&start.data_dir, fresh)?;
    let listeners = listeners::bind(config).await?;
    let node = start_node(config, &dir)?;
    let agent = start_agent(&start, &node, &dir)?;
    node.read(Consistency::Default).await?;
    agent.register_self().await?;

    let api = Api {
        node: node.clone(),
        agent: agent.clone(),
        options: http_options(config),
    };
    let http = lictor_http::serve(listeners, api, limits(config)).context("cannot start serving HTTP")?;
    start.ready();
    serve_until_stop(&start, &agent).await;

    http.shutdown().await;
    agent.stop().await;
    tokio::task::spawn_blocking(move || node.stop())
        .await
        .context("stopping the node")?;
    Ok(())
}

async fn serve_until_stop(start: &Start, agent: &Agent) {
    let Start {
        control, log_level, ..
    } = start;
    loop {
        tokio::select! {
            _ = control.stop_requested() => return,
            reload = control.reload_requested() => {
                log_level.set(reload.config.log.level);
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

fn start_node(config: &RuntimeConfig, dir: &DataDir) -> anyhow::Result<Node> {
    let me = dir.identity().raft_id;
    let (mut store, opened) = StateStore::open(&dir.state())?;
    let mut state = opened.state;
    let members = match opened.members {
        Some(bytes) => Membership::decode(&bytes).context("the state's list of members is damaged")?,
        None => found(config, &mut store, &mut state, me)?,
    };
    let (index, term) = state.applied();
    let applied = LogPosition { index, term };
    let mark = StateMark {
        applied,
        installed: opened.is_installed || applied == LogPosition::FOUNDING,
        members,
    };
    // A state that was installed whole may be ahead of the log; one that was reached by applying may not.
    let proven = if mark.installed { LogIndex(0) } else { index };
    let log = RocksLog::open(&dir.raft(), LogOptions::default(), proven)?;
    let mut raft = lictor_raft::Config::new(me, incarnation());
    raft.tick_ms *= u64::from(config.raft_multiplier);
    let identity = Identity {
        node: config.node_name.clone(),
        node_id: config
            .node_id
            .clone()
            .unwrap_or_else(|| dir.identity().node_id.clone()),
        datacenter: config.datacenter.clone(),
        address: config.advertise_addr.to_string(),
        server_port: config.ports.server,
    };
    let options = Options {
        identity,
        raft,
        limit_watches: WATCHES_MAX,
        staging: dir.path().join("restore"),
    };
    Ok(Node::start(options, log, store, state, &mark)?)
}

/// Begins a cluster of this one server.
fn found(
    config: &RuntimeConfig,
    store: &mut StateStore,
    state: &mut State,
    me: RaftId,
) -> anyhow::Result<Membership> {
    if !config.server && !config.dev {
        bail!("this release runs servers only: start it with -server -bootstrap-expect=1, or with -dev");
    }
    if !config.dev && !config.bootstrap && config.bootstrap_expect != 1 {
        bail!("this release runs single servers only: start it with -bootstrap-expect=1, or with -dev");
    }
    let members = Membership::of_voters([me]);
    state.apply_empty(LogPosition::FOUNDING.index, LogPosition::FOUNDING.term);
    store.found(state, members.encode())?;
    Ok(members)
}

/// Differs at each start.
fn incarnation() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn start_agent(start: &Start, node: &Node, dir: &DataDir) -> anyhow::Result<Agent> {
    let config = &start.config;
    let (reload, leave) = (start.control.handle(), start.control.handle());
    let request_reload = move || {
        let reload = reload.clone();
        Box::pin(async move { reload.reload().await.map_err(|error| error.to_string()) }) as _
    };
    let options = lictor_agent::Config {
        data_dir: Some(dir.path().to_owned()),
        definitions: definitions(config).map_err(anyhow::Error::msg)?,
        version: CONSUL_VERSION.to_owned(),
        node_meta: config.node_meta.clone(),
        serf_lan_port: config.ports.serf_lan.unwrap_or_default(),
        output_max_bytes: config.limits.check_output_max_size,
        request_reload: Some(Arc::new(request_reload)),
        leave: Some(Arc::new(move || leave.stop(Leave::Yes))),
    };
    Ok(Agent::start(node.clone(), options)?)
}

fn definitions(config: &RuntimeConfig) -> Result<Definitions, String> {
    let services = config.services.iter().cloned().map(ServiceDefinition::from_json);
    let checks = config.checks.iter().cloned().map(CheckDefinition::from_json);
    Ok(Definitions {
        services: services
            .collect::<Result<_, _>>()
            .map_err(|error| format!("service: {error}"))?,
        checks: checks
            .collect::<Result<_, _>>()
            .map_err(|error| format!("check: {error}"))?,
    })
}

fn http_options(config: &RuntimeConfig) -> lictor_http::Options {
    lictor_http::Options {
        indent_json: config.dev,
        response_headers: Arc::new(config.response_headers.clone()),
        blocked_prefixes: config.block_endpoints.clone(),
        writers: config.allow_write_http_from.clone(),
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
        session_ttl_min: config.limits.session_ttl_min,
        wait_default: config.limits.default_query_time,
        wait_max: config.limits.max_query_time,
        handshake_timeout: config.limits.https_handshake_timeout,
        drain_timeout: config.limits.leave_drain_time,
        ..defaults
    }
}
