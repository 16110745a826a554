//! Calls: many at a time on one connection, each with an id, a deadline and one answer.

mod client;
mod server;

pub(crate) use client::{Caller, drive, expire};
pub(crate) use server::serve;

use std::time::Duration;

/// How often deadlines are looked at while calls wait: one timer for all calls of a connection.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(25);
/// Nothing more is taken to be written while this much waits.
const WRITE_HIGH_BYTES: usize = 1024 * 1024;
