//! This server among others: its transport, and how it comes to have a state.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lictor_cli::config::{PeerTls, RetryJoin, RuntimeConfig};
use lictor_node::{Autopilot, Begin, Formed, Forming, Identity, JoinPace, Node, Options, Roster};
use lictor_peer::{ClusterId, Peers, Security};
use lictor_proto::LogIndex;
use lictor_proto::v1::NodeRow;
use lictor_raft::LogPosition;
use lictor_store::log::{LogOptions, RocksLog};
use lictor_store::{DataDir, OpenedState, StateStore};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::demo;

/// Blocking queries that may wait at a time.
const WATCHES_MAX: usize = 250_000;

/// Where Consul's servers are joined.
const JOIN_PORT: u16 = 8301;
/// Consul's pause between two attempts to join (`retry_interval`).
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// The pause between two attempts to find the leader through the configured servers.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(500);

/// A node on its way into a cluster.
pub(super) struct Member {
    pub(super) node: Node,
    forming: Arc<Forming>,
    /// None in development mode when the ports are taken: then this server stays alone.
    peers: Option<Peers>,
    /// Addresses of other servers, from the configuration.
    contacts: Vec<String>,
    pace: JoinPace,
    raft: lictor_raft::Config,
    place: Place,
}

/// Where the state and the log are.
struct Place {
    store: StateStore,
    opened: OpenedState,
    raft: std::path::PathBuf,
}

impl Member {
    /// Opens what there is, and listens for other servers.
    pub(super) async fn open(config: &RuntimeConfig, dir: &DataDir) -> anyhow::Result<Self> {
        let me = dir.identity().raft_id;
        let (store, opened) = StateStore::open(&dir.state())?;
        let node = Node::new(Options {
            identity: identity(config, dir),
            raft_id: me,
            limit_watches: WATCHES_MAX,
            staging: dir.path().join("restore"),
        })?;
        node.configure_autopilot(autopilot(config));
        node.set_session_ttl_min(config.limits.session_ttl_min);
        demo::check(config, &node, opened.members.as_deref())?;
        let forming = Forming::new(node.identity().server(me), config.bootstrap_expect, dir.vow())
            .with_context(|| {
                format!(
                    "cannot read {}, which says what cluster this server belongs to; put it back from a copy, or \
                     empty the data directory and let the server join anew",
                    dir.path().join("CLUSTER").display()
                )
            })?;
        let forming = Arc::new(forming);
        if config.bootstrap && opened.members.is_none() && forming.formed().is_none() {
            forming
                .note_alone(&dir.identity().cluster_id)
                .context("cannot write CLUSTER in the data directory")?;
        }
        let peers = match connect(config, dir, &node, &forming).await {
            Ok(peers) => Some(peers),
            Err(error) if config.dev => {
                tracing::warn!("other servers cannot reach this one: {error:#}");
                None
            }
            Err(error) => return Err(error),
        };
        let raft = lictor_raft::Config::new(me, incarnation()).stretched(config.raft_multiplier);
        Ok(Self {
            node,
            forming,
            peers,
            contacts: contacts(config),
            pace: pace(&config.retry_join),
            raft,
            place: Place {
                store,
                opened,
                raft: dir.raft(),
            },
        })
    }

    /// Whether nothing is to be waited for before the server can begin: it has a state, or founds a cluster alone.
    pub(super) fn can_begin(&self) -> bool {
        self.place.opened.members.is_some() || self.forming.formed().is_some()
    }

    /// Waits until this server belongs to a cluster, and starts its pipeline.
    pub(super) async fn begin(self) -> anyhow::Result<()> {
        let formed = match (self.forming.formed(), &self.peers) {
            (Some(formed), _) => formed,
            (None, Some(peers)) => self.forming.form(peers, &self.contacts, self.pace).await?,
            (None, None) => bail!("a server that belongs to no cluster needs its peer port"),
        };
        if let Some(peers) = &self.peers {
            let cluster = Uuid::parse_str(formed.cluster_id()).context("the cluster's id is no uuid")?;
            peers.set_cluster(ClusterId(cluster));
            tokio::spawn(announce(
                self.node.clone(),
                Arc::clone(&self.forming),
                peers.clone(),
                self.contacts,
            ));
        }
        let (node, raft, place) = (self.node, self.raft, self.place);
        tokio::task::spawn_blocking(move || start(&node, raft, place, formed))
            .await
            .context("starting the node")?
    }
}

fn start(node: &Node, raft: lictor_raft::Config, place: Place, formed: Formed) -> anyhow::Result<()> {
    let Place {
        mut store,
        opened,
        raft: log,
    } = place;
    let mut state = opened.state;
    let roster = match (opened.members, formed) {
        (Some(bytes), _) => Roster::decode(&bytes).context("the state's list of members is damaged")?,
        (None, Formed::Founder { servers, .. }) => {
            let roster = Roster::founding(servers);
            state.apply_empty(LogPosition::FOUNDING.index, LogPosition::FOUNDING.term);
            store.found(&state, roster.encode())?;
            roster
        }
        (None, Formed::Joined { servers, .. }) => Roster::joining(servers),
    };
    let (index, term) = state.applied();
    let applied = LogPosition { index, term };
    let installed = opened.is_installed || applied == LogPosition::FOUNDING || index == LogIndex(0);
    // A state that was installed whole may be ahead of the log; one that was reached by applying may not.
    let proven = if installed { LogIndex(0) } else { index };
    let log = RocksLog::open(&log, LogOptions::default(), proven)?;
    let begin = Begin {
        raft,
        state,
        roster,
        installed,
    };
    Ok(node.begin(begin, log, store)?)
}

/// Tells the configured servers where this one is, whenever it knows no leader: all of them may have moved.
async fn announce(node: Node, forming: Arc<Forming>, peers: Peers, contacts: Vec<String>) {
    while !contacts.is_empty() {
        if let Some(leader) = node.leader() {
            node.leader_changed(Some(leader)).await;
        } else {
            forming.announce(&peers, &contacts).await;
            // Cut short when a leader is found; that none was is looked at again.
            let _ = tokio::time::timeout(ANNOUNCE_EVERY, node.leader_changed(None)).await;
        }
    }
}

/// Makes a client agent of a node: it registers `me` through the servers of the configuration, and has no state of its
/// own.
pub(super) fn client(config: &RuntimeConfig, dir: &DataDir, me: NodeRow) -> anyhow::Result<(Node, Peers)> {
    let node = Node::new(Options {
        identity: identity(config, dir),
        raft_id: dir.identity().raft_id,
        limit_watches: WATCHES_MAX,
        staging: dir.path().join("restore"),
    })?;
    let peers_config = peers_config(config, dir, &node)?;
    let peers = node.attach(me, contacts(config), |handler| Peers::new(peers_config, handler));
    Ok((node, peers))
}

async fn connect(
    config: &RuntimeConfig,
    dir: &DataDir,
    node: &Node,
    forming: &Arc<Forming>,
) -> anyhow::Result<Peers> {
    let mut listeners = Vec::new();
    let ports = [
        Some(config.ports.server),
        config.ports.serf_lan,
        config.ports.serf_wan,
    ];
    for port in ports.into_iter().flatten() {
        let address = std::net::SocketAddr::new(config.bind_addr, port);
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.with_context(|| {
            format!("cannot listen for other servers on {address}; choose other ports (ports.server, ports.serf_lan, \
                 ports.serf_wan)")
        })?);
    }
    let peers_config = peers_config(config, dir, node)?;
    let peers = node.connect(Arc::clone(forming), |handler| Peers::new(peers_config, handler));
    for listener in listeners {
        peers.serve(listener);
    }
    Ok(peers)
}

/// How this agent shows itself to servers, and what it asks of them.
fn peers_config(config: &RuntimeConfig, dir: &DataDir, node: &Node) -> anyhow::Result<lictor_peer::Config> {
    let identity = node.identity();
    let server = identity.server(node.raft_id());
    let host = if server.address.contains(':') {
        format!("[{}]", server.address)
    } else {
        server.address.clone()
    };
    Ok(lictor_peer::Config {
        identity: lictor_peer::Identity {
            node_id: Uuid::parse_str(&identity.node_id).context("the node id is no uuid")?,
            raft_id: node.raft_id(),
            name: identity.node.clone(),
            address: format!("{host}:{}", server.port),
            datacenter: identity.datacenter.clone(),
            version: server.version,
        },
        cluster: None,
        security: security(config, dir)?,
        limits: lictor_peer::Limits::default(),
    })
}

/// How connections are protected. Cluster keys that were changed while an agent ran are those of its data directory; the
/// configuration has the first one alone, and decides whether there are keys at all.
fn security(config: &RuntimeConfig, dir: &DataDir) -> anyhow::Result<Security> {
    if let Some(tls) = &config.peer_tls {
        if config.encrypt.is_some() {
            tracing::info!("certificates prove who may connect: the cluster key (encrypt) is not needed");
        }
        return certificates(tls, &config.datacenter, config.server);
    }
    let Some(key) = &config.encrypt else {
        return Ok(Security::open());
    };
    let first = BASE64_STANDARD
        .decode(key)
        .context("encrypt: the key is not base64")?;
    let file = dir.keyring();
    let kept = file.load().with_context(|| {
        format!(
            "cannot read {}, which has the cluster keys; remove it to begin with that of the configuration (encrypt)",
            dir.path().join("KEYRING").display()
        )
    })?;
    if kept.as_ref().is_some_and(|keys| !keys.contains(&first)) {
        tracing::warn!(
            "the cluster key of the configuration (encrypt) is not used: the keyring in the data directory is newer"
        );
    }
    let keys = kept.unwrap_or_else(|| vec![first]);
    Security::keyring(&keys, move |keys| file.save(keys)).context("encrypt")
}

fn certificates(tls: &PeerTls, datacenter: &str, is_server: bool) -> anyhow::Result<Security> {
    let read = |key: &str, file: &Path| {
        std::fs::read(file).with_context(|| format!("{key}: cannot read {}", file.display()))
    };
    let authorities = read("ca_file", &tls.ca_file)?;
    let certificate = read("cert_file", &tls.cert_file)?;
    let key = read("key_file", &tls.key_file)?;
    let of_role = if is_server {
        Security::certificates
    } else {
        Security::agent_certificates
    };
    let security = of_role(&authorities, &certificate, &key, datacenter, &tls.domain);
    security.with_context(|| {
        format!(
            "certificates between servers: {}, {} and {}",
            tls.ca_file.display(),
            tls.cert_file.display(),
            tls.key_file.display()
        )
    })
}

pub(super) fn identity(config: &RuntimeConfig, dir: &DataDir) -> Identity {
    let kept = || dir.identity().node_id.clone();
    let demo = config.demo.as_ref();
    let advertised = || config.advertise_addr.to_string();
    Identity {
        node: config.node_name.clone(),
        node_id: config.node_id.clone().unwrap_or_else(kept),
        datacenter: config.datacenter.clone(),
        address: demo.map_or_else(advertised, |demo| demo.raddr.host.clone()),
        server_port: config.ports.server,
        http_address: demo.map(|demo| demo.haddr.to_string()).unwrap_or_default(),
    }
}

fn autopilot(config: &RuntimeConfig) -> Autopilot {
    let wanted = &config.autopilot;
    Autopilot {
        cleanup_dead_servers: wanted.cleanup_dead_servers,
        last_contact_threshold: wanted.last_contact_threshold,
        max_trailing_logs: wanted.max_trailing_logs,
        min_quorum: wanted.min_quorum,
        server_stabilization_time: wanted.server_stabilization_time,
    }
}

fn contacts(config: &RuntimeConfig) -> Vec<String> {
    let port = config.ports.serf_lan.unwrap_or(JOIN_PORT);
    let addresses = config.retry_join.addresses.iter();
    addresses.map(|address| with_port(address, port)).collect()
}

/// A server looks for others several times a second, unless it is told otherwise. How many attempts that are is counted
/// at Consul's pace.
fn pace(wanted: &RetryJoin) -> JoinPace {
    let max = (wanted.max > 0).then_some(wanted.max);
    JoinPace {
        pause: wanted.interval.or(max.map(|_| RETRY_INTERVAL)),
        attempts_max: max,
    }
}

/// An address with a port: the given one, unless it names one itself.
fn with_port(address: &str, port: u16) -> String {
    let has_port = match address.strip_prefix('[') {
        Some(rest) => rest.contains("]:"),
        None => address.matches(':').count() == 1,
    };
    if has_port {
        address.to_owned()
    } else if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Differs at each start.
fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_one() {
        assert_eq!(with_port("10.0.0.1", 8301), "10.0.0.1:8301");
        assert_eq!(with_port("10.0.0.1:99", 8301), "10.0.0.1:99");
        assert_eq!(with_port("::1", 8301), "[::1]:8301");
        assert_eq!(with_port("[::1]", 8301), "[::1]:8301");
        assert_eq!(with_port("[::1]:99", 8301), "[::1]:99");
        assert_eq!(with_port("server.example", 8301), "server.example:8301");
    }
}
