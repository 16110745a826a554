//! Listeners, shutdown, and what all requests share.
//!
//! Tasks: one per listener, and one per connection on one of the [`Workers`], all owned by the [`Handle`]. A stop has
//! two steps: `Drain` (no new connections, waiting queries answer at once, requests finish) and after a bound `Kill`.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderMap;
use ipnet::IpNet;
use lictor_agent::Agent;
use lictor_node::{Node, Tunnel};
use lictor_state::Dirty;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::level_filters::LevelFilter;

use crate::acl::Acl;
use crate::blocking::Rendered;
use crate::clients::{Clients, Slot};
use crate::conn;
use crate::cors::Cors;
use crate::events::Streams;
use crate::metrics::Metrics;
use crate::reply::Policy;
use crate::routes::coordinate::Coordinates;
use crate::routes::event;
use crate::upstream::Upstream;
use crate::workers::Workers;

/// A socket to serve, already bound.
pub enum Listener {
    /// HTTP/1.1 in the clear.
    Plain(TcpListener),
    /// HTTP/1.1 or HTTP/2 over TLS, as the client chooses by ALPN (`h2`, `http/1.1`).
    Tls(TcpListener, Arc<rustls::ServerConfig>),
    /// HTTP/1.1 on a Unix socket. Not counted against the limit per client.
    Unix(UnixListener),
}

/// Bounds on what clients may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections from one address (Consul: `http_max_conns_per_client`); 0 means no limit.
    pub connections_per_client: u32,
    /// From the first byte of a request's head to its last. Idle connections are not closed.
    pub header_timeout: Duration,
    /// For a request's body, beside the time that each byte of it earns (500 bytes a second); beyond it 408.
    pub body_grace: Duration,
    /// How long a client may take nothing of an answer that is being sent; then its connection is closed.
    pub write_timeout: Duration,
    /// Largest head of a request, in bytes; beyond it 431.
    pub header_max_bytes: usize,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// How long requests may take to finish after a stop was asked for.
    pub drain_timeout: Duration,
    /// Largest value of one key, in bytes (Consul: `kv_max_value_size`).
    pub kv_value_max_bytes: usize,
    /// Largest body of a transaction, in bytes (Consul: `txn_max_req_len`).
    pub txn_body_max_bytes: usize,
    /// Most operations of a transaction.
    pub txn_ops_max: usize,
    /// `wait` of a blocking query that names none (Consul: `default_query_time`).
    pub wait_default: Duration,
    /// Longest `wait` that is granted (Consul: `max_query_time`).
    pub wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_client: 200,
            header_timeout: Duration::from_secs(10),
            body_grace: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            header_max_bytes: 64 * 1024,
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            kv_value_max_bytes: lictor_proto::limits::KV_VALUE_MAX_BYTES,
            txn_body_max_bytes: lictor_proto::limits::TXN_BODY_MAX_BYTES,
            txn_ops_max: lictor_proto::limits::TXN_OPS_MAX,
            wait_default: lictor_proto::limits::WAIT_DEFAULT,
            wait_max: lictor_proto::limits::WAIT_MAX,
        }
    }
}

/// How the API behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Indent all JSON by four spaces, as Consul does in development mode.
    pub indent_json: bool,
    /// Headers of every answer to a request (Consul: `http_config.response_headers`). What the API itself sends wins,
    /// but for `Vary`.
    pub response_headers: Arc<HeaderMap>,
    /// Paths below `/v1/` that begin with one of these are answered by 403 (Consul: `http_config.block_endpoints`).
    pub blocked_prefixes: Vec<String>,
    /// The networks that may write; an empty list means all (Consul: `http_config.allow_write_http_from`). Unix sockets
    /// are in no network.
    pub writers: Vec<IpNet>,
    /// Whose pages may read the answers.
    pub cors: Cors,
    /// Serve the web page (Consul: `ui_config.enabled`).
    pub page: bool,
    /// Whether the paths of Raft-KV-Demo are served too.
    pub raft_kv_demo: bool,
    /// The log of this process, for clients that watch it; without one they are told so.
    pub monitor: Option<Monitor>,
}

impl Options {
    /// Whether a path is blocked.
    pub(crate) fn is_blocked(&self, path: &[u8]) -> bool {
        let mut prefixes = self.blocked_prefixes.iter();
        prefixes.any(|prefix| path.starts_with(prefix.as_bytes()))
    }

    /// Whether a client may write; `None` is one on a Unix socket.
    pub(crate) fn may_write(&self, client: Option<IpAddr>) -> bool {
        let within = |client| self.writers.iter().any(|network| network.contains(&client));
        self.writers.is_empty() || client.is_some_and(within)
    }
}

/// The log of this process as it is written.
#[derive(Clone)]
pub struct Monitor(Arc<Watch>);

/// Lines of a level and all graver ones, as text or JSON; `None` when too many watch already.
type Watch = dyn Fn(LevelFilter, bool) -> Option<mpsc::Receiver<Bytes>> + Send + Sync;

impl Monitor {
    /// `watch` is asked for the lines of a level and all graver ones, as JSON if the second argument says so. It answers
    /// `None` when too many watch already.
    pub fn new(
        watch: impl Fn(LevelFilter, bool) -> Option<mpsc::Receiver<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(watch))
    }

    pub(crate) fn watch(&self, level: LevelFilter, is_json: bool) -> Option<mpsc::Receiver<Bytes>> {
        (self.0)(level, is_json)
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Monitor")
    }
}

/// What the API serves.
pub struct Api {
    /// The server behind it.
    pub node: Node,
    /// The agent of that server.
    pub agent: Agent,
    /// How it behaves.
    pub options: Options,
}

/// What every request can reach.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) agent: Agent,
    pub(crate) options: Options,
    pub(crate) limits: Limits,
    pub(crate) acl: Acl,
    pub(crate) rendered: Rendered,
    pub(crate) coordinates: Coordinates,
    /// The way to the servers, of a client agent.
    pub(crate) upstream: Option<Arc<Upstream>>,
    pub(crate) streams: Streams,
    pub(crate) metrics: Arc<Metrics>,
    clients: Arc<Clients>,
    stopping: AtomicBool,
}

impl Shared {
    /// Whether waiting queries must answer with what there is.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The default policy that answers show.
    #[expect(
        clippy::unused_self,
        reason = "comes from the configuration once policies exist"
    )]
    pub(crate) fn policy(&self) -> Policy {
        Policy::Allow
    }
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Serve,
    Drain,
    Kill,
}

/// A running HTTP server. Dropping it closes all sockets at once; [`Handle::shutdown`] stops in order.
#[must_use = "dropping the handle stops the server"]
pub struct Handle {
    shared: Arc<Shared>,
    stage: watch::Sender<Stage>,
    tasks: TaskTracker,
    /// Held until all connections are closed.
    _workers: Arc<Workers>,
}

/// Starts serving. Must be called within a tokio runtime, which accepts the connections; they are served by threads
/// of their own.
///
/// # Errors
/// When the operating system refuses a thread.
pub fn serve(listeners: Vec<Listener>, api: Api, limits: Limits) -> io::Result<Handle> {
    let workers = Arc::new(Workers::start()?);
    let upstream = api
        .node
        .is_client()
        .then(|| Arc::new(Upstream::new(api.node.clone())));
    let shared = Arc::new(Shared {
        upstream,
        node: api.node,
        agent: api.agent,
        options: api.options,
        clients: Arc::new(Clients::new(limits.connections_per_client)),
        limits,
        acl: Acl::default(),
        rendered: Rendered::default(),
        coordinates: Coordinates::default(),
        streams: Streams::default(),
        metrics: Arc::new(Metrics::new()),
        stopping: AtomicBool::new(false),
    });
    let (stage, _) = watch::channel(Stage::Serve);
    let tasks = TaskTracker::new();
    for listener in listeners {
        let accepting = Accepting {
            shared: Arc::clone(&shared),
            stage: stage.subscribe(),
            tasks: tasks.clone(),
            workers: Arc::clone(&workers),
        };
        match listener {
            Listener::Plain(listener) => tasks.spawn(accepting.plain(listener)),
            Listener::Tls(listener, config) => {
                tasks.spawn(accepting.tls(listener, TlsAcceptor::from(config)))
            }
            Listener::Unix(listener) => tasks.spawn(accepting.unix(listener)),
        };
    }
    if let Some(tunnels) = shared.node.tunnels() {
        tasks.spawn(serve_tunnels(
            tunnels,
            Arc::clone(&shared),
            stage.subscribe(),
            tasks.clone(),
        ));
    }
    let (hearing, mut until) = (Arc::clone(&shared), stage.subscribe());
    tasks.spawn(async move {
        tokio::select! {
            () = event::hear(&hearing) => {}
            // Ends with an error only when the handle is dropped.
            _ = until.wait_for(|stage| *stage != Stage::Serve) => {}
        }
    });
    Ok(Handle {
        shared,
        stage,
        tasks,
        _workers: workers,
    })
}

/// Serves client agents, until the server stops.
async fn serve_tunnels(
    mut tunnels: mpsc::Receiver<Tunnel>,
    shared: Arc<Shared>,
    mut stage: watch::Receiver<Stage>,
    tasks: TaskTracker,
) {
    loop {
        let tunnel = tokio::select! {
            tunnel = tunnels.recv() => tunnel,
            _ = stage.changed() => return,
        };
        let Some(tunnel) = tunnel else { return };
        let (shared, stage) = (Arc::clone(&shared), stage.clone());
        // Here and not on the workers: the connection belongs to this runtime.
        tasks.spawn(conn::serve_tunnel(tunnel, shared, stage));
    }
}

impl Handle {
    /// Stops: accepts nothing more, lets waiting queries answer at once, and returns when all connections are
    /// closed, which is forced after [`Limits::drain_timeout`].
    pub async fn shutdown(self) {
        // The flag comes first: a query that registers after the wake-up sees it before it sleeps.
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.stage.send_replace(Stage::Drain);
        self.shared.node.watches().wake(&[Dirty::All]);
        self.tasks.close();
        if tokio::time::timeout(self.shared.limits.drain_timeout, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("closing HTTP connections whose requests did not finish in time");
            self.stage.send_replace(Stage::Kill);
            self.tasks.wait().await;
        }
    }
}

/// One listener's task.
struct Accepting {
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
    tasks: TaskTracker,
    workers: Arc<Workers>,
}

impl Accepting {
    async fn plain(mut self, listener: TcpListener) {
        while let Some((stream, slot)) = self.next_tcp(&listener).await {
            let (shared, stage) = (Arc::clone(&self.shared), self.stage.clone());
            self.spawn(move || async move {
                if let Some(stream) = adopted(TcpStream::from_std(stream)) {
                    conn::serve_h1(stream, shared, stage, Some(slot)).await;
                }
            });
        }
    }

    async fn tls(mut self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Some((stream, slot)) = self.next_tcp(&listener).await {
            let (shared, stage, acceptor) = (Arc::clone(&self.shared), self.stage.clone(), acceptor.clone());
            self.spawn(move || async move {
                let Some(stream) = adopted(TcpStream::from_std(stream)) else {
                    return;
                };
                let handshake = acceptor.accept(stream);
                match tokio::time::timeout(shared.limits.handshake_timeout, handshake).await {
                    Ok(Ok(stream)) => {
                        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        if is_h2 {
                            conn::serve_h2(stream, shared, stage, slot).await;
                        } else {
                            conn::serve_h1(stream, shared, stage, Some(slot)).await;
                        }
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                }
            });
        }
    }

    async fn unix(mut self, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stage.changed() => return,
            };
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => {
                    let (shared, stage) = (Arc::clone(&self.shared), self.stage.clone());
                    self.spawn(move || async move {
                        if let Some(stream) = adopted(UnixStream::from_std(stream)) {
                            conn::serve_h1(stream, shared, stage, None).await;
                        }
                    });
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// The next connection within the limits; `None` when the server stops.
    async fn next_tcp(&mut self, listener: &TcpListener) -> Option<(std::net::TcpStream, Slot)> {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stage.changed() => return None,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            // Answers are small and waited for; nothing is gained by collecting them.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
            let Some(slot) = Clients::enter(&self.shared.clients, canonical(address.ip())) else {
                self.shared.metrics.refused.one();
                conn::refuse(&stream);
                continue;
            };
            match stream.into_std() {
                Ok(stream) => return Some((stream, slot)),
                Err(error) => pause_after(&error).await,
            }
        }
    }

    fn spawn<F, T>(&self, serve: F)
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let token = self.tasks.token();
        let metrics = Arc::clone(&self.shared.metrics);
        metrics.opened.one();
        self.workers.spawn(move || async move {
            serve().await;
            metrics.closed.one();
            drop(token);
        });
    }
}

/// A stream in the runtime of the worker that serves it.
fn adopted<S>(stream: io::Result<S>) -> Option<S> {
    stream
        .inspect_err(|error| tracing::warn!(%error, "a connection could not be taken over by its worker"))
        .ok()
}

/// An IPv4 client of an IPv6 socket is counted under its IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Out of file descriptors, or a client that went away: neither ends the listener, and neither may spin.
async fn pause_after(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
