//! The runtime of a Lictor server: pipeline threads, read gate, watch registry and session timers.
//!
//! It speaks to its disk through the `LogStore` of `lictor-raft` and the [`Checkpoint`] trait, so that it builds
//! and tests without RocksDB; the binary plugs `lictor-store` in. It knows nothing of HTTP.
//!
//! ```text
//! propose ─> [mailbox] ─> raft thread ─> [mailbox] ─> log thread (one fsync a batch)
//!                            ^   │                        │ persisted
//!                            └───┼────────────────────────┘
//!                                └─> [mailbox] ─> apply thread ─> publish the view, wake watchers, answer proposers
//!                                                    └─> [mailbox] ─> checkpoint thread (durable copy, no fsync a batch)
//! timers thread: session expiries, lock-delays, tombstones, leases of fair queues ─> propose
//! ```
//! Reads take no hop: they look at the published [`lictor_state::State`] on the caller's own thread.

mod cluster;
mod lines;
mod linger;
mod mailbox;
mod memory;
mod metrics;
mod node;
mod passage;
mod pending;
mod pipeline;
mod progress;
mod queues;
mod reads;
mod restore;
mod seeking;
mod session_ttl;
mod timers;
mod types;

pub use cluster::{
    Autopilot, Comparison, EnlistError, Foreigner, FormError, Formed, Forming, JoinPace, KeyringChange, Keys,
    Newcomer, PeerHandler, Roster, ServerKeys, TIMES_MAX, Tunnel, VowStore,
};
pub use lictor_watch::{Registry, TooManyWaiters, Topic, Waiter};
pub use lines::{LockAttempt, LockEntered, LockPlace};
pub use linger::Linger;
pub use memory::MemCheckpoint;
pub use metrics::Queue;
pub use node::{Begin, Node, Options, StartError};
pub use passage::Passage;
pub use pipeline::Survey;
pub use queues::{Entered, Place, QueueAsk, QueueAttempt};
pub use restore::{RestoreError, Scratch, Upload};
pub use types::{
    Checkpoint, CheckpointError, Consistency, Identity, ProposeError, ReadError, ReadMeta, Status, WriteSet,
};
