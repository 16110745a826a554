//! Flags of the commands about one agent: `info`, `reload`, `maint`, `monitor`, `debug`, `validate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::client::ClientArgs;
use crate::config::{Format, parse_duration};

/// Of commands that ask the agent one thing. Arguments are let through, as Consul lets them.
#[derive(Debug, Args)]
pub(crate) struct PlainArgs {
    /// No argument has a meaning.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MaintArgs {
    /// Begin maintenance.
    #[arg(long)]
    pub(crate) enable: Option<bool>,
    /// End maintenance.
    #[arg(long)]
    pub(crate) disable: Option<bool>,
    /// Why, for those who look.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Id of a service; without it, the whole node.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// Arguments have no meaning here, and never had one.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MonitorArgs {
    /// trace, debug, info, warn or err; may be finer than what the agent writes itself.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) log_json: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// None is taken.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    /// Pack the folder into PATH.tar.gz at the end; true when not given.
    #[arg(long)]
    pub(crate) archive: Option<bool>,
    /// What to gather: agent, host, members, metrics, logs, raft; may be repeated. All of them when not given.
    #[arg(long, value_name = "WHAT")]
    pub(crate) capture: Vec<String>,
    /// How long to gather; 10s at least.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Pause between two readings of what changes; 5s at least.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// Folder to gather into, and name of the archive; must not exist yet.
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Files and folders that make up the whole configuration.
    #[arg(value_name = "FILE_OR_FOLDER")]
    pub(crate) places: Vec<PathBuf>,
    /// The format of all files, whatever their names say.
    #[arg(long, value_enum)]
    pub(crate) config_format: Option<Format>,
    /// Print nothing when it is valid.
    #[arg(long)]
    pub(crate) quiet: Option<bool>,
}
