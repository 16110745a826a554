//! Servers that talk over real sockets of this machine.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod calls;
mod handshake;
mod keys;
mod raw;
mod server;
mod streams;
