//! Archives of the whole state, as `/v1/snapshot` gives them out and takes them in. Everything here blocks; nothing here
//! knows of HTTP, Raft or the data directory.
//!
//! ```text
//! State ──Saved::new──> scratch file ──Saved::send──> .tar.gz      meta.json  state.bin  SHA256SUMS
//! .tar.gz ──read──> Contents: State, and what was left out
//! .tar.gz ──inspect──> Inspection: counts and sizes, no rows kept
//! ```
//! The archive is Consul's: a gzip'd tar of three files, in this order.
//!
//! | file | what |
//! |---|---|
//! | `meta.json` | where the state stood: [`Meta`] |
//! | `state.bin` | a `MessagePack` map with `LastIndex`, then records: a byte for the type, a `MessagePack` value |
//! | `SHA256SUMS` | the SHA-256 of the two, as `sha256sum` writes them |
//!
//! Lictor's records are all of type 200, binary strings that make up one stream of [`lictor_state::snapshot`] when put one
//! after the other. So tools for Consul's archives find their way through them, and see where the state stood; and the
//! version in `meta.json` is 2, which a Consul does not restore. A Consul's archive has version 1, and a type for each kind
//! of row: keys, sessions and the catalog are taken over, other kinds are counted and left out.
//!
//! An archive is read once, front to back, in bounded memory beside the rows; nothing may be made of what was read until
//! all digests were right.

mod consul;
mod error;
mod inspect;
mod meta;
mod msgpack;
mod open;
mod read;
mod write;

pub use error::ArchiveError;
pub use inspect::{Inspection, KvSizes, Stat, inspect};
pub use meta::{Meta, Server};
pub use read::{Contents, read};
pub use write::Saved;

/// The type of Lictor's records.
const LICTOR_RECORD: u8 = 200;
/// The most that an archive may hold when unpacked, against archives that are small and hold nothing but zeros.
pub const UNPACKED_MAX_BYTES: u64 = 16 << 30;
