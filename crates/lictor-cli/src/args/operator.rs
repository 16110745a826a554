//! Flags of `operator`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Output;
use super::client::ClientArgs;
use super::node::PlainArgs;
use crate::config::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Show and change the settings of the automatic care for servers.
    #[command(subcommand)]
    Autopilot(AutopilotCommand),
    /// Show and change who takes part in Raft.
    #[command(subcommand)]
    Raft(RaftCommand),
    /// Show how much is registered.
    #[command(subcommand)]
    Usage(UsageCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AutopilotCommand {
    /// Show the settings.
    GetConfig(PlainArgs),
    /// Change settings.
    SetConfig(SetConfigArgs),
    /// Show the health of all servers.
    State(StateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SetConfigArgs {
    /// Whether dead servers are removed when new ones have come.
    // A pair of Options: the flag needs its value, unlike switches.
    #[arg(long, value_name = "BOOL", value_parser = ["true", "false"])]
    pub(crate) cleanup_dead_servers: Option<String>,
    /// Accepted; there are no upgrade migrations.
    #[arg(long, value_name = "BOOL", value_parser = ["true", "false"])]
    pub(crate) disable_upgrade_migration: Option<String>,
    /// How long a server may be without contact and still count as healthy.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) last_contact_threshold: Option<Duration>,
    /// How many entries a server may be behind and still count as healthy.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_trailing_logs: Option<u64>,
    /// With fewer servers than this none is removed.
    #[arg(long, value_name = "COUNT")]
    pub(crate) min_quorum: Option<u64>,
    /// Accepted; there are no redundancy zones.
    #[arg(long, value_name = "TAG")]
    pub(crate) redundancy_zone_tag: Option<String>,
    /// How long a new server must be healthy before it gets a vote.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) server_stabilization_time: Option<Duration>,
    /// Accepted; there are no upgrade migrations.
    #[arg(long, value_name = "TAG")]
    pub(crate) upgrade_version_tag: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Pretty)]
    pub(crate) format: Output,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RaftCommand {
    /// List the servers that take part.
    ListPeers(PlainArgs),
    /// Remove a server that will not come back.
    RemovePeer(RemovePeerArgs),
    /// Hand leadership to another server.
    TransferLeader(TransferLeaderArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RemovePeerArgs {
    /// Address of the server.
    #[arg(long, value_name = "HOST:PORT", default_value = "", hide_default_value = true)]
    pub(crate) address: String,
    /// Id of the server.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TransferLeaderArgs {
    /// Id of the server that is to lead; any when not given.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsageCommand {
    /// Count nodes, services and their instances.
    Instances(InstancesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InstancesArgs {
    /// Of every datacenter.
    #[arg(long)]
    pub(crate) all_datacenters: Option<bool>,
    /// Without the service mesh.
    #[arg(long)]
    pub(crate) billable: Option<bool>,
    /// Of the service mesh only.
    #[arg(long)]
    pub(crate) connect: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KeyringArgs {
    /// Accept a key on all servers, beside the others.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(crate) install: String,
    /// List the keys, and how many nodes have each.
    #[arg(long)]
    pub(crate) list: Option<bool>,
    /// List the primary keys, and how many nodes have each.
    #[arg(long)]
    pub(crate) list_primary: Option<bool>,
    /// Leave other datacenters out when listing.
    #[arg(long)]
    pub(crate) local_only: Option<bool>,
    /// From 0 to 5; accepted, since nothing is relayed.
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    pub(crate) relay_factor: i64,
    /// Accept a key no more; not the primary one.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(crate) remove: String,
    /// Make a key, which is installed, the one that servers show.
    #[arg(
        long = "use",
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) make_primary: String,
    /// Arguments have no meaning here, and never had one.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
