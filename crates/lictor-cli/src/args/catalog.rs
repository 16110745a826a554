//! Flags of `catalog`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// List the datacenters.
    Datacenters(DatacentersArgs),
    /// List the nodes.
    Nodes(NodesArgs),
    /// List the services.
    Services(ServicesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DatacentersArgs {
    /// None is taken.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// None is taken.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    /// Print whole ids, addresses and metadata.
    #[arg(long)]
    pub(crate) detailed: Option<bool>,
    /// Print only nodes that this expression holds for.
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) filter: Option<String>,
    /// Begin with the nodes that are near to this one; `_agent` is the agent's own.
    #[arg(long, value_name = "NODE")]
    pub(crate) near: Option<String>,
    /// Print only nodes with this metadata; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) node_meta: Vec<(String, String)>,
    /// Print only nodes that this service runs on.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ServicesArgs {
    /// None is taken.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    /// Print only services of this node.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Print only services of nodes with this metadata; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) node_meta: Vec<(String, String)>,
    /// Print tags as well.
    #[arg(long)]
    pub(crate) tags: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `KEY=VALUE`.
///
/// # Errors
/// Without the sign between them.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("Missing \"=\" value in argument: {text}")),
    }
}
