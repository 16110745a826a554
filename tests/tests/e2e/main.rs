//! End-to-end tests of the real binary, by part of the product. Each test starts a server of its own.

mod bad_input;
mod blocking;
mod checks;
mod cli;
mod commands;
mod config;
mod data_dir;
mod demo;
mod disk_full;
mod durability;
mod election;
mod extensions;
mod fair_locks;
mod headers;
mod kv;
mod lifecycle;
mod lines;
mod lists;
mod locks;
mod observability;
mod origins;
mod prepared;
mod sessions;
mod snapshots;
mod tls;
mod txn;

use std::io::Write as _;

use anyhow::Result;

/// Says why a test has nothing to prove here. A test that skips passes, but not in silence.
fn skip(why: &str) -> Result<()> {
    writeln!(std::io::stderr(), "skipped: {why}")?;
    Ok(())
}
