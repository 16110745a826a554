//! Harness of the black-box tests: it runs the real binary and speaks raw HTTP to it.
//!
//! It knows nothing of Lictor's crates; whatever it can see, a user can see. The tests themselves lie in `tests/`:
//! `e2e` by part of the product, `crash` for kill -9 under load, `cluster` for several servers.
//!
//! ```text
//! Server ── process, ports, data directory; killed by its id when dropped
//!   └─ Client ── one request, one answer; header names as they were on the wire
//! Cluster ── several servers, what they agree on, and their logs when they do not
//! Load ── workers that write, and check what they were told against what is there
//! Bank ── clients that transfer and add up
//! until() ── waits for a condition with a deadline, never for a length of time
//! History ── what a client was told, and what it may therefore find after a crash
//! ```
//!
//! The binary is `$LICTOR_BIN`, else `lictor` in the target folder of the running test. A Consul binary may be named
//! too: most tests then show that they ask for what Consul does; those of Lictor's own matters say that they skip.

mod bank;
mod client;
mod cluster;
mod history;
mod load;
mod server;
mod wait;

pub use bank::Bank;
pub use client::{Client, Response, exchange};
pub use cluster::{Cluster, join_address, seat, wipe};
pub use history::{Claim, Effect, History, Row, Rows, check_counter};
pub use load::{Load, Told};
pub use server::{Options, Seat, Server, binary, consul, free_port, is_consul, run};
pub use wait::until;
