//! The command line as clap sees it. Flags are Consul's; `argv` lets them be written with one dash, as Go
//! programs have them.

pub(crate) mod agent;
mod agent_absent;
pub(crate) mod argv;
pub(crate) mod catalog;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod kv;
pub(crate) mod lock;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod raft_kv_demo;
pub(crate) mod services;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod tls;
pub(crate) mod watch;

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
    /// Look into the catalog.
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Print a completion script for a shell.
    Completion(CompletionArgs),
    /// Gather what is needed to look into a problem, over some time, into an archive.
    Debug(Box<node::DebugArgs>),
    /// Fire an event.
    Event(cluster::EventArgs),
    /// Not available: running commands on other hosts is left to other tools.
    Exec(ExecArgs),
    /// Take a member that is gone for good off the cluster.
    ForceLeave(cluster::ForceLeaveArgs),
    /// Print what the agent knows of itself.
    Info(node::PlainArgs),
    /// Join the agent to a cluster.
    Join(cluster::JoinArgs),
    /// Make a new cluster key.
    Keygen,
    /// List and change the cluster keys.
    Keyring(Box<operator::KeyringArgs>),
    /// Read and write the key-value store.
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Leave the cluster and stop the agent.
    Leave(cluster::LeaveArgs),
    /// Run a command while holding a lock.
    Lock(Box<lock::LockArgs>),
    /// Begin or end maintenance of the node or a service.
    Maint(node::MaintArgs),
    /// List the members of the cluster.
    Members(cluster::MembersArgs),
    /// Print the agent's log as it is written.
    Monitor(node::MonitorArgs),
    /// Tools for those who run the cluster.
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Run a node of Raft-KV-Demo in the foreground.
    RaftKvDemo(Box<raft_kv_demo::DemoArgs>),
    /// Have the agent read its configuration again.
    Reload(node::PlainArgs),
    /// Estimate the round trip time between two nodes.
    Rtt(cluster::RttArgs),
    /// Register and remove services of the agent.
    #[command(subcommand)]
    Services(services::ServicesCommand),
    /// Create, renew, show and end sessions.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Save, restore and look into the whole state.
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Make an authority and certificates for TLS.
    #[command(subcommand)]
    Tls(tls::TlsCommand),
    /// Print the version.
    Version(VersionArgs),
    /// Check configuration files without starting an agent.
    Validate(node::ValidateArgs),
    /// Run a command whenever something changes.
    Watch(Box<watch::WatchArgs>),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Whatever is asked for, the answer is the same.
    #[arg(hide = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<String>,
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
