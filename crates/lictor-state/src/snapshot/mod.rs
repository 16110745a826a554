//! A whole state as a stream of bytes: what a follower that is far behind receives, and what an archive holds.
//!
//! ```text
//! State (a clone, so that writes go on) ──write──> frames ──> any io::Write
//! bytes as they come ──Decoder::push──> rows ──Loader──> State        (Receiver is both)
//! ```
//! | part | bytes |
//! |---|---|
//! | head | `LICTOR-SNAPSHOT` and a line feed, then the format, 4 bytes |
//! | frame, repeated | length `R` when unpacked, 4 bytes, above 0; length `P` as it stands here, 4 bytes; `P` bytes |
//! | trailer | 0, 4 bytes; length, 4 bytes; `SnapshotTrailer` |
//!
//! Numbers are little-endian. A frame's bytes are an LZ4 block, or plain where `P` equals `R`. Unpacked, all frames
//! together are records of Protocol Buffers, each after its length as a varint, and none is split between frames: first a
//! `MetaRow`, which says where the state stands, then a `SnapshotRow` a row, table by table in the order of their
//! numbers, by key within each. The trailer carries the number of rows of each table that the format knows, and
//! the SHA-256 of everything before it.
//!
//! A reader refuses a stream that is cut off, damaged, of another format, or larger than its caller allows, and holds one
//! frame at a time beside what it makes of the rows.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Decoder, Piece, Progress, Received, Receiver};
pub use write::write;

use crate::{LoadError, Table};

/// The format that this build writes. It reads those before, too: 1 knows no fair queues, prepared queries and TTLs of
/// keys, 2 no lines for the locks of keys.
pub const FORMAT: u32 = 3;

/// What a stream begins with.
pub const MAGIC: &[u8; 16] = b"LICTOR-SNAPSHOT\n";

/// A frame is closed once it holds this much: large enough to pack well, small enough to wait for.
const FRAME_BYTES: usize = 256 * 1024;
/// The most that a frame may hold, so that a row of the greatest size still fits.
const FRAME_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most that a trailer may hold; it is far smaller.
const TRAILER_MAX_BYTES: usize = 4 * 1024;
/// The tables that have rows in a stream.
const TABLES: [Table; 13] = [
    Table::Kv,
    Table::KvTomb,
    Table::KvTree,
    Table::Session,
    Table::LockDelay,
    Table::Node,
    Table::Service,
    Table::Check,
    Table::Queue,
    Table::QueueFree,
    Table::KvTtl,
    Table::PreparedQuery,
    Table::LockWait,
];

/// How many of them a format knows; `None` for a format that this build does not read.
fn table_count(format: u32) -> Option<usize> {
    match format {
        1 => Some(8),
        2 => Some(12),
        FORMAT => Some(TABLES.len()),
        _ => None,
    }
}

/// What a stream holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// The number of rows of each table, in the order of [`Table::ALL`] without the meta row.
    pub rows: [u64; TABLES.len()],
    /// SHA-256 over the stream up to its trailer.
    pub sha256: [u8; 32],
}

impl Summary {
    /// All tables with their number of rows.
    pub fn tables(&self) -> impl Iterator<Item = (Table, u64)> + '_ {
        TABLES.into_iter().zip(self.rows)
    }
}

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// They do not begin as a snapshot does.
    #[error("not a snapshot of Lictor")]
    NotASnapshot,
    /// A later release wrote it.
    #[error("the snapshot has format {found}, this build reads formats 1 to {FORMAT}")]
    OtherFormat {
        /// The format of the stream.
        found: u32,
    },
    /// It ends before its trailer.
    #[error("the snapshot is cut off")]
    CutOff,
    /// What is there is not what was written.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// It holds more than the caller allows.
    #[error("the snapshot holds more than {limit_bytes} bytes")]
    TooLarge {
        /// What is allowed, unpacked.
        limit_bytes: u64,
    },
    /// Its rows do not make a state.
    #[error("the snapshot is damaged: {0}")]
    Rows(#[from] LoadError),
}
