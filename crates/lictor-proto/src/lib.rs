//! The shared vocabulary of Lictor: identifiers, indexes, limits, and the commands of the raft log with their
//! checked conversions. It does no I/O and knows no clock.
//!
//! ```text
//! HTTP request ──> Command ──encode──> raft Entry.data ──decode──> Command ──> lictor_state::State::apply
//! ```

mod address;
mod command;
pub mod go;
mod ids;
pub mod limits;

/// Messages generated from `proto/lictor/v1/`, documented there.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated from documented proto files"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/lictor.v1.rs"));
}

pub use address::{HostPort, NoHostPort};
pub use command::{Command, DecodeError};
pub use ids::{ConsulIndex, LogIndex, MonoTime, RaftId, ReadyNo, SessionId, Term};
