//! Requests over real sockets to a node in memory, and the sizes that waiting costs.

mod client;
mod compatibility;
mod cors;
mod explain;
mod extras;
mod limits;
mod lists;
mod locks;
mod operator;
mod options;
mod page;
mod refusals;
mod snapshots;
mod sockets;
mod watches;

use std::mem::size_of;
use std::sync::Arc;

use lictor_agent::{Agent, Config};
use lictor_node::{Identity, Node};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use self::client::Connection;
use crate::clients::Slot;
use crate::ctx::Ctx;
use crate::routes::{kv, session};
use crate::server::{Shared, Stage};
use crate::service::Answering;
use crate::{Api, Handle, Limits, Listener, Options};

/// A server on a port of its own.
struct Server {
    node: Node,
    address: std::net::SocketAddr,
    handle: Handle,
}

impl Server {
    async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, Options::default()).await
    }

    async fn with(limits: Limits, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (node, agent) = agent().await;
        let api = Api {
            node: node.clone(),
            agent,
            options,
        };
        let handle = crate::serve(vec![Listener::Plain(listener)], api, limits).unwrap();
        Self {
            node,
            address,
            handle,
        }
    }

    async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }
}

fn serve((node, agent): (Node, Agent), listener: Listener, limits: Limits) -> Handle {
    let api = Api {
        node,
        agent,
        options: Options::default(),
    };
    crate::serve(vec![listener], api, limits).unwrap()
}

/// The agent of a node that leads and is registered, so that sessions can be made.
async fn agent() -> (Node, Agent) {
    let identity = Identity {
        node: "n1".to_owned(),
        node_id: "11111111-2222-4333-8444-555555555555".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "127.0.0.1".to_owned(),
        server_port: 8300,
        http_address: String::new(),
    };
    let node = Node::in_memory(identity).unwrap();
    let agent = Agent::start(node.clone(), Config::default()).unwrap();
    agent.register_self().await.unwrap();
    (node, agent)
}

/// Waits for a condition that has no event to wait for.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_micros(500)).await;
    }
    panic!("never: {what}");
}

fn size_of_future<F>(_: fn(Ctx) -> F) -> usize {
    size_of::<F>()
}

fn connection_size<F>(_: fn(TcpStream, Arc<Shared>, watch::Receiver<Stage>, Option<Slot>) -> F) -> usize {
    size_of::<F>()
}

/// An idle watcher holds one of these, boxed, beside hyper's buffers.
#[test]
fn a_waiting_read_costs_less_than_a_kilobyte() {
    let sizes = [
        size_of_future(kv::get),
        size_of_future(session::info),
        size_of_future(session::list),
        size_of_future(session::of_node),
    ];

    assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
    assert!(size_of::<Answering>() <= 256, "{}", size_of::<Answering>());
    let connection = connection_size(crate::conn::serve_h1::<TcpStream>);
    assert!(connection <= 1280, "{connection}");
}
