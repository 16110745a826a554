//! The command line as clap sees it. Flags are Consul's; `argv` lets them be written with one dash, as Go
//! programs have them.

pub(crate) mod agent;
pub(crate) mod argv;
pub(crate) mod client;
pub(crate) mod kv;
pub(crate) mod session;
pub(crate) mod tls;

use clap::{Parser, Subcommand};

/// A durable key-value, lock and session server that speaks Consul's HTTP API.
#[derive(Debug, Parser)]
#[command(
    name = "lictor",
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server in the foreground.
    Agent(Box<agent::AgentArgs>),
    /// Read and write the key-value store.
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Create, renew, show and end sessions.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Make an authority and certificates for TLS.
    #[command(subcommand)]
    Tls(tls::TlsCommand),
    /// Print the version.
    Version(VersionArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Pretty)]
    pub(crate) format: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Pretty,
    /// For programs.
    Json,
}
