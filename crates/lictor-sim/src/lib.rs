//! # lictor-sim
//!
//! A cluster of Lictor servers in one thread, under faults, with all time virtual: a seed decides everything, so that
//! whatever goes wrong can be replayed.
//!
//! ```text
//! seed ─> scheduler ─┬─ servers: lictor-raft's core over a simulated disk, lictor-state, lictor-session, lictor-watch, leases
//!                    ├─ network: delay, loss, doubles, reordering, partitions (one-way too)
//!                    ├─ faults: power cuts, kills, pauses, slow disks, clocks that drift, lost machines
//!                    ├─ clients: registers, counters, transfers, locks, fair locks, keys with a TTL, blocking queries
//!                    └─ checkers: after every step, and over all histories at the end
//! ```
//! It drives the code that servers run, wherever that decides; threads, sockets and RocksDB are played by events. What
//! is held after each step: one leader a term, logs that match, equal states at equal indexes, no lease beside a later
//! leader, indexes that only grow, one live holder a lock, no lock inside its delay, no session that ends early, lines in
//! the order of the log that nobody gets past, no lease and no key that ends before its time, a
//! constant total over accounts, no query that sleeps on after a change of what it waits for. Once the faults end the
//! cluster has to come back, end all sessions, and show a linearizable history for every key.
//!
//! ```
//! let report = lictor_sim::run(7, false).expect("no promise is broken");
//! assert_eq!(lictor_sim::run(7, false), Ok(report), "a seed replays");
//! ```
//!
//! `make sim SEEDS=1000` runs many; a failing seed is printed. Those that found bugs are kept in [`seeds`].

pub mod check;
mod client;
mod network;
mod request;
pub mod seeds;
mod server;
mod world;

pub use server::Counts;
pub use world::{Failure, Report, run};
