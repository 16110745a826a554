//! Measures the transport between two servers in one process over the loopback interface, open and with a cluster key:
//! small raft messages a second one way, and calls a second with 64 in flight.
//!
//! ```sh
//! cargo run --release -p lictor-peer --example throughput
//! ```

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program that prints rates"
)]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use lictor_peer::{
    BulkStream, CallError, ClusterId, Config, Handler, Identity, Limits, Peers, Remote, Security,
};
use lictor_proto::RaftId;
use tokio::net::TcpListener;
use uuid::Uuid;

const MESSAGES: usize = 500_000;
const CALLERS: usize = 64;
const CALLS_EACH: usize = 2_000;
const BODY: &[u8] = &[7; 128];

/// Counts messages and echoes calls.
#[derive(Default)]
struct Counter {
    messages: AtomicUsize,
}

impl Handler for Counter {
    fn admit(&self, _: &Remote) -> Result<(), String> {
        Ok(())
    }

    fn raft(&self, _: RaftId, _: Bytes) {
        self.messages.fetch_add(1, Relaxed);
    }

    fn call(&self, _: &Arc<Remote>, _: u16, body: Bytes) -> BoxFuture<'static, Bytes> {
        std::future::ready(body).boxed()
    }

    fn bulk(&self, _: &Arc<Remote>, _: u16, _: Bytes, _: BulkStream) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }

    fn connected(&self, _: RaftId) {}

    fn unreachable(&self, _: RaftId) {}
}

async fn start(id: u64, security: Security) -> Result<(Peers, Arc<Counter>, String), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let config = Config {
        identity: Identity {
            node_id: Uuid::new_v4(),
            raft_id: RaftId(id),
            name: format!("lictor-{id}"),
            address: address.clone(),
            datacenter: "dc1".to_owned(),
            version: "0".to_owned(),
        },
        cluster: Some(ClusterId(Uuid::from_u128(1))),
        security,
        limits: Limits::default(),
    };
    let counter = Arc::new(Counter::default());
    let peers = Peers::new(config, Arc::clone(&counter) as Arc<dyn Handler>);
    peers.serve(listener);
    Ok((peers, counter, address))
}

async fn call(peers: &Peers) -> Result<Bytes, CallError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    peers.call(RaftId(2), 1, Bytes::from_static(BODY), deadline).await
}

async fn measure(name: &str, security: Security) -> Result<(), Box<dyn Error>> {
    let (a, _, _) = start(1, security.clone()).await?;
    let (b, counter, address) = start(2, security).await?;
    a.set_address(RaftId(2), &address);
    call(&a).await?;

    let began = Instant::now();
    for _ in 0..MESSAGES {
        while a.send_raft(RaftId(2), true, Bytes::from_static(BODY)).is_err() {
            tokio::task::yield_now().await;
        }
    }
    while counter.messages.load(Relaxed) < MESSAGES {
        tokio::task::yield_now().await;
    }
    let raft = MESSAGES as f64 / began.elapsed().as_secs_f64();

    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let peers = a.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS_EACH {
                    call(&peers).await?;
                }
                Ok::<_, CallError>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let calls = (CALLERS * CALLS_EACH) as f64 / began.elapsed().as_secs_f64();
    println!("{name}: {raft:.0} raft messages/s, {calls:.0} calls/s");
    a.stop().await;
    b.stop().await;
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    measure("open", Security::open()).await?;
    measure("cluster key", Security::cluster_key(&[1; 32])?).await
}
