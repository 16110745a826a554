//! Requests over real sockets to a node in memory, and the sizes that waiting costs.

mod client;
mod limits;
mod sockets;
mod watches;

use std::mem::size_of;

use lictor_node::{Consistency, Identity, Node};
use lictor_proto::{Command, v1};
use tokio::net::TcpListener;

use self::client::Connection;
use crate::ctx::Ctx;
use crate::routes::{kv, session};
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = node().await;
        let handle = serve(&node, Listener::Plain(listener), limits);
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

fn serve(node: &Node, listener: Listener, limits: Limits) -> Handle {
    crate::serve(
        vec![listener],
        Api {
            node: node.clone(),
            options: Options::default(),
        },
        limits,
    )
}

/// A node that leads and knows itself, so that sessions can be made.
async fn node() -> Node {
    let identity = Identity {
        node: "n1".to_owned(),
        node_id: "11111111-2222-4333-8444-555555555555".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "127.0.0.1".to_owned(),
        server_port: 8300,
    };
    let node = Node::in_memory(identity).unwrap();
    node.read(Consistency::Default).await.unwrap();
    let row = v1::NodeRow {
        node: "n1".to_owned(),
        address: "127.0.0.1".to_owned(),
        ..v1::NodeRow::default()
    };
    let check = v1::CheckRow {
        node: "n1".to_owned(),
        check_id: "serfHealth".to_owned(),
        status: "passing".to_owned(),
        ..v1::CheckRow::default()
    };
    let register = v1::Register {
        node: Some(row),
        service: None,
        checks: vec![check],
        skip_node_update: false,
    };
    node.propose(Command::Register(register)).await.unwrap();
    node
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
}
