//! `kv`: outputs, messages and exit codes as Consul's, seen on a running Consul 1.20.6.

mod delete;
mod get;
mod put;
#[cfg(test)]
mod tests;
mod transfer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Failure, Outcome, Ui};
use crate::args::kv::KvCommand;

pub(crate) async fn run(command: KvCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        KvCommand::Get(args) => get::run(args, ui).await,
        KvCommand::Put(args) => put::run(args, ui).await,
        KvCommand::Delete(args) => delete::run(args, ui).await,
        KvCommand::Export(args) => transfer::export(args, ui).await,
        KvCommand::Import(args) => transfer::import(args, ui).await,
    }
}

/// One entry as the API gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) value: Option<String>,
    pub(crate) flags: u64,
    pub(crate) lock_index: u64,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
    #[serde(default)]
    pub(crate) session: String,
}

impl Entry {
    /// The value's bytes.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Failure> {
        STANDARD
            .decode(self.value.as_deref().unwrap_or_default())
            .map_err(|error| Failure(format!("Error decoding the value of {}: {error}", self.key)))
    }

    /// The value as base64, as it came.
    fn base64(&self) -> &str {
        self.value.as_deref().unwrap_or_default()
    }
}

fn entries(body: &[u8]) -> Result<Vec<Entry>, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure(format!("Error querying Consul agent: {error}")))
}

/// The only argument, or `None`; more than one is Consul's error.
fn one(arguments: &[String]) -> Result<Option<&str>, Failure> {
    match arguments {
        [] => Ok(None),
        [argument] => Ok(Some(argument)),
        more => Err(Failure(format!(
            "Too many arguments (expected 1, got {})",
            more.len()
        ))),
    }
}

/// Keys cannot begin with a slash, but people write paths: one is dropped.
fn without_slash(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

fn missing_key() -> Failure {
    Failure::error("Missing KEY argument")
}
