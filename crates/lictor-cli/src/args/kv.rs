//! Flags of `kv`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Print the value of a key, or list keys.
    Get(GetArgs),
    /// Write a key, or acquire or release the lock on it.
    Put(PutArgs),
    /// Remove a key, or all keys with a prefix.
    Delete(DeleteArgs),
    /// Print all keys with a prefix as a JSON array, to be read by import.
    Export(ExportArgs),
    /// Write the keys of a JSON array made by export.
    Import(ImportArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct GetArgs {
    /// Key, or prefix with -keys and -recurse.
    #[arg(value_name = "KEY_OR_PREFIX")]
    pub(crate) key: Vec<String>,
    /// Print values in base64.
    #[arg(long)]
    pub(crate) base64: Option<bool>,
    /// Print indexes, flags and session as well.
    #[arg(long)]
    pub(crate) detailed: Option<bool>,
    /// Print the names of the keys that begin with the prefix.
    #[arg(long)]
    pub(crate) keys: Option<bool>,
    /// Print all keys that begin with the prefix, with their values.
    #[arg(long)]
    pub(crate) recurse: Option<bool>,
    /// Where -keys folds names; an empty one folds nothing.
    #[arg(long, default_value = "/", value_name = "TEXT")]
    pub(crate) separator: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct PutArgs {
    /// Key, then the value: text, @FILE, or - for standard input. Without a value the key becomes empty.
    #[arg(value_name = "KEY [VALUE]", allow_hyphen_values = true)]
    pub(crate) key_and_value: Vec<String>,
    /// The value is given in base64.
    #[arg(long)]
    pub(crate) base64: Option<bool>,
    /// Write only if -modify-index is the key's; 0, the default, stands for a key that does not exist.
    #[arg(long)]
    pub(crate) cas: Option<bool>,
    /// ModifyIndex for -cas.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    pub(crate) modify_index: u64,
    /// A number to keep beside the value.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) flags: u64,
    /// Acquire the lock on the key for -session.
    #[arg(long)]
    pub(crate) acquire: Option<bool>,
    /// Release the lock on the key that -session holds.
    #[arg(long)]
    pub(crate) release: Option<bool>,
    /// Session for -acquire and -release.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID")]
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct DeleteArgs {
    /// Key, or prefix with -recurse.
    #[arg(value_name = "KEY_OR_PREFIX")]
    pub(crate) key: Vec<String>,
    /// Delete only if -modify-index is the key's.
    #[arg(long)]
    pub(crate) cas: Option<bool>,
    /// ModifyIndex for -cas.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    pub(crate) modify_index: u64,
    /// Delete every key that begins with the prefix; without a prefix, all keys.
    #[arg(long)]
    pub(crate) recurse: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ExportArgs {
    /// Prefix of the keys; all keys when not given.
    pub(crate) prefix: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ImportArgs {
    /// The JSON array itself, @FILE, or - for standard input.
    pub(crate) data: Vec<String>,
    /// Put this before every key.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
