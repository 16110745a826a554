//! The transport between the servers of a cluster: bytes and small typed frames over TCP. It knows neither raft nor the
//! state, and retries nothing.
//!
//! ```text
//!             ┌ urgent ─┐                                  ┌─ Handler::raft
//! send_raft ──┤         ├─> [bounded queue] ═ connection ══╡
//!             └ append ─┘                                  │
//! call ─────────────────────> [bounded queue] ═ connection ╪═ Handler::call ─> answer
//! call_address ──────────────────────────────── connection ╪═ Handler::call ─> answer
//! bulk ──────────────────────────────────────── connection ╧═ Handler::bulk
//! ```
//!
//! To each peer three connections are kept, for urgent and for other raft messages and for calls, so that a heartbeat
//! never waits behind a large append; they are made again, with pauses, when they end. Each is run by one task, which
//! writes all that waits at once. Nobody who sends ever waits: a full queue refuses.
//!
//! * [`Peers`]: all of it. [`Config`], [`Limits`]: what it is told.
//! * [`Handler`]: what is done with what arrives.
//! * [`CallError`]: whether a call may be made again.
//! * [`Security`]: certificates, cluster keys, or nothing. [`certs`]: an authority for the certificates.
//!
//! ```no_run
//! # use std::{sync::Arc, time::{Duration, Instant}};
//! # use bytes::Bytes;
//! # use lictor_peer::{Config, Handler, Peers};
//! # use lictor_proto::RaftId;
//! # async fn example(config: Config, handler: Arc<dyn Handler>) -> Result<(), Box<dyn std::error::Error>> {
//! let peers = Peers::new(config, handler);
//! peers.serve(tokio::net::TcpListener::bind("127.0.0.1:8300").await?);
//! let other = RaftId(7);
//! peers.set_address(other, "10.0.0.2:8300");
//! peers.send_raft(other, true, Bytes::from_static(b"heartbeat"))?;
//! let deadline = Instant::now() + Duration::from_secs(1);
//! let answer = peers.call(other, 1, Bytes::from_static(b"who leads?"), deadline).await?;
//! # Ok(()) }
//! ```

mod accept;
mod bulk;
pub mod certs;
mod config;
mod contact;
mod error;
mod handler;
mod handshake;
mod keyring;
mod lane;
mod outbox;
mod peers;
mod raft;
mod rpc;
mod security;
mod stream;
mod wire;

pub use bulk::{BULK_CHUNK_MAX_BYTES, BULK_HEAD_MAX_BYTES, BulkReader, BulkStream, BulkWriter, RawStream};
pub use config::{ClusterId, Config, Identity, Limits, Remote, Role};
pub use contact::PeerHealth;
pub use error::{CallError, Dropped, Lost, NotSent, SecurityError};
pub use handler::Handler;
pub use keyring::{CLUSTER_KEY_MIN_BYTES, KEYS_MAX};
pub use peers::{PeerTraffic, Peers};
pub use security::Security;
