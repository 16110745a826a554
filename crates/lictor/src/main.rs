//! The `lictor` program: the command line of `lictor-cli` with the server wired in. Nothing is decided here.
//!
//! ```text
//! lictor-cli ─> agent::run ─> lictor-store, lictor-node, lictor-agent, lictor-http
//! ```

mod agent;

use std::process::ExitCode;

/// Many small buffers of many sizes live long in a server with thousands of waiting clients; jemalloc keeps their
/// fragmentation low.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    lictor_cli::main(std::env::args_os(), agent::DEFINITIONS, agent::run)
}
