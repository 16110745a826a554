//! Flags of `services`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::catalog::pair;
use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ServicesCommand {
    /// Register services with the agent.
    Register(Box<RegisterArgs>),
    /// Remove services from the agent.
    Deregister(DeregisterArgs),
    /// Let other clusters see a service.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// Configuration files with services.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Name of the one service to register without a file.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its id; the name when not given.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Its address; the node's when not given.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// Its port.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Its Unix socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<String>,
    /// A tag; may be repeated.
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Metadata; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) meta: Vec<(String, String)>,
    /// An address under a name, as in wan=HOST:PORT; may be repeated.
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = pair)]
    pub(crate) tagged_address: Vec<(String, String)>,
    /// Its kind, for the service mesh.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeregisterArgs {
    /// Configuration files with services.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Id of the one service to remove without a file.
    #[arg(long)]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Name of the service.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// Clusters that may see it, separated by commas.
    #[arg(long, value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub(crate) consumer_peers: String,
    /// Partitions that may see it, separated by commas; not available.
    #[arg(long, value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub(crate) consumer_partitions: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
