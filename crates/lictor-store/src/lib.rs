//! What Lictor keeps on disk: the data directory, the raft log, and the durable copy of the state.
//!
//! It is the only crate that names RocksDB, and no type of RocksDB leaves it. It decides nothing: `lictor-raft` says
//! what must be durable before it is acknowledged, `lictor-node` when the state is flushed.
//!
//! ```text
//! log thread ────> log::RocksLog      one batch and one fsync for all that is queued    DIR/raft
//! checkpoint ────> state::StateStore  no WAL, atomic flush with the applied index       DIR/state
//! start ─────────> dir::DataDir       lock, format, identity                            DIR/FORMAT, DIR/LOCK
//! ```

mod dir;
mod error;
pub mod log;
mod state;

pub use dir::{DataDir, DirIdentity, FORMAT, KeyringFile, VowFile};
pub use error::StoreError;
pub use state::{OpenedState, StateStore};

/// What RocksDB lengthens its manifest by.
const MANIFEST_PIECE_BYTES: usize = 64 << 10;
