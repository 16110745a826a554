//! Flags of `session`.

use clap::{Args, Subcommand};

use super::Output;
use super::client::ClientArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Create a session and print its id.
    Create(CreateArgs),
    /// End a session; its locks are released or deleted, as its behavior says.
    Destroy(OneArgs),
    /// Show one session.
    Info(OneArgs),
    /// Show all sessions.
    List(ListArgs),
    /// Show the sessions of a node.
    Node(NodeArgs),
    /// Renew a session that has a TTL.
    Renew(OneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// A name for people; need not be unique.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The node it belongs to; the agent's own when not given.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Ends the session when it is not renewed in time, such as 30s (10s to 24h).
    #[arg(long)]
    pub(crate) ttl: Option<String>,
    /// How long a lock stays closed after its holder is lost, such as 15s.
    #[arg(long, value_name = "DURATION")]
    pub(crate) lock_delay: Option<String>,
    /// What happens to the locked keys at the end.
    #[arg(long, value_parser = ["release", "delete"])]
    pub(crate) behavior: Option<String>,
    /// A check of the node that ends the session when it fails; may be repeated. Give "" for none at all.
    #[arg(long, value_name = "CHECK")]
    pub(crate) node_check: Option<Vec<String>>,
    /// A check of a service that ends the session when it fails; may be repeated.
    #[arg(long, value_name = "CHECK")]
    pub(crate) service_check: Vec<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Pretty)]
    pub(crate) format: Output,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// Id of the session.
    #[arg(value_name = "SESSION")]
    pub(crate) id: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Pretty)]
    pub(crate) format: Output,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Pretty)]
    pub(crate) format: Output,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Name of the node.
    pub(crate) node: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Pretty)]
    pub(crate) format: Output,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
