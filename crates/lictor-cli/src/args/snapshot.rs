//! Flags of `snapshot`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save the whole state to a file, and check the file.
    Save(SaveArgs),
    /// Put the state of a file in the place of the whole state.
    Restore(RestoreArgs),
    /// Show what a file holds.
    Inspect(InspectArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct SaveArgs {
    /// The file to write.
    pub(crate) file: Vec<String>,
    /// What to put into the file's name: version, dc, or both with a comma.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAMES")]
    pub(crate) append_filename: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct RestoreArgs {
    /// The file to read: one that Lictor saved, or a Consul.
    pub(crate) file: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The file to read.
    pub(crate) file: Vec<String>,
    /// How to print it: pretty or json.
    #[arg(long, default_value = "pretty")]
    pub(crate) format: String,
    /// Show how much room keys take, by their first names.
    #[arg(long)]
    pub(crate) kvdetails: Option<bool>,
    /// How many names of a key, divided by slashes, -kvdetails tells apart.
    #[arg(long, default_value_t = 2, value_name = "NUMBER")]
    pub(crate) kvdepth: usize,
    /// Only keys that begin so count for -kvdetails.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    pub(crate) kvfilter: String,
}
