//! Flags of the commands about the cluster: `members`, `join`, `leave`, `force-leave`, `rtt`, `event`.

use clap::Args;

use super::client::ClientArgs;

#[derive(Debug, Args)]
pub(crate) struct MembersArgs {
    /// Print every tag of every member.
    #[arg(long)]
    pub(crate) detailed: Option<bool>,
    /// Print only members that this expression holds for.
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) filter: Option<String>,
    /// Segments are not available; accepted.
    #[arg(long, hide = true)]
    pub(crate) segment: Option<String>,
    /// Print only members whose status matches this regular expression; exit code 2 if there is none.
    #[arg(long, value_name = "REGEX", default_value = ".*", hide_default_value = true)]
    pub(crate) status: String,
    /// Print the servers of all datacenters.
    #[arg(long)]
    pub(crate) wan: Option<bool>,
    /// Arguments have no meaning here, and never had one.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Addresses of members to join.
    #[arg(value_name = "ADDRESS")]
    pub(crate) addresses: Vec<String>,
    /// Join the servers of another datacenter.
    #[arg(long)]
    pub(crate) wan: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// None is taken.
    #[arg(hide = true)]
    pub(crate) rest: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ForceLeaveArgs {
    /// Name of the member that is gone.
    #[arg(value_name = "NAME")]
    pub(crate) name: Vec<String>,
    /// Take the member off the list at once.
    #[arg(long)]
    pub(crate) prune: Option<bool>,
    /// Only as a server of another datacenter.
    #[arg(long)]
    pub(crate) wan: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RttArgs {
    /// One node or two; the second is the agent's own when not given.
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Between servers of datacenters, named NODE.DATACENTER.
    #[arg(long)]
    pub(crate) wan: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EventArgs {
    /// Data to send along.
    #[arg(value_name = "PAYLOAD")]
    pub(crate) payload: Vec<String>,
    /// Name of the event.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only for nodes whose names match.
    #[arg(long, value_name = "REGEX")]
    pub(crate) node: Option<String>,
    /// Only for nodes with a service whose name matches.
    #[arg(long, value_name = "REGEX")]
    pub(crate) service: Option<String>,
    /// Only for nodes with such a service that has a tag which matches; needs -service.
    #[arg(long, value_name = "REGEX")]
    pub(crate) tag: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
