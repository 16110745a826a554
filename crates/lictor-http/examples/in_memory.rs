//! Serves the API on a node that keeps everything in memory, on the address given as the first argument.
//!
//! ```text
//! cargo run -p lictor-http --example in_memory -- 127.0.0.1:8500
//! curl -X PUT -d hello http://127.0.0.1:8500/v1/kv/greeting
//! ```

use std::error::Error;

use lictor_agent::{Agent, Config};
use lictor_http::{Api, Limits, Listener, Options};
use lictor_node::{Identity, Node};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8500".to_owned());
    let identity = Identity {
        node: "n1".to_owned(),
        node_id: "11111111-2222-4333-8444-555555555555".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "127.0.0.1".to_owned(),
        server_port: 8300,
        http_address: String::new(),
    };
    let node = Node::in_memory(identity)?;
    let config = Config {
        version: "1.20.6".to_owned(),
        serf_lan_port: 8301,
        ..Config::default()
    };
    let agent = Agent::start(node.clone(), config)?;
    agent.register_self().await?;
    let limits = Limits {
        connections_per_client: 0,
        ..Limits::default()
    };
    let listener = Listener::Plain(TcpListener::bind(address).await?);
    let options = Options::default();
    let api = Api {
        node,
        agent: agent.clone(),
        options,
    };
    let handle = lictor_http::serve(vec![listener], api, limits)?;
    tokio::signal::ctrl_c().await?;
    handle.shutdown().await;
    agent.stop().await;
    Ok(())
}
