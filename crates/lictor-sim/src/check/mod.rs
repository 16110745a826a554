//! What must always hold. Each checker is told what happens, keeps what it needs, and answers the first breach.

pub mod linear;
mod locks;
mod queues;
mod raft;

pub use locks::Locks;
pub use queues::Queues;
pub use raft::Raft;

/// A breach of what must always hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach(pub String);

/// What a checker answers.
pub type Checked = Result<(), Breach>;

/// Answers a breach unless `holds`.
pub(crate) fn ensure(holds: bool, breach: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Breach(breach())) }
}
