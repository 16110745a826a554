//! Flags of `watch`.

use clap::Args;

use super::client::ClientArgs;

#[derive(Debug, Default, Args)]
pub(crate) struct WatchArgs {
    /// Command to run at each change, with the new state as JSON on its standard input. Without one the state is
    /// printed once.
    #[arg(value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) child: Vec<String>,
    /// key, keyprefix, services, nodes, service, checks or event.
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) kind: String,
    /// Key, for key.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) key: String,
    /// Prefix, for keyprefix.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Service, for service and checks.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// Tag that the service must have, for service; may be repeated.
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// true for instances without a failing check only, for service.
    #[arg(long, value_name = "BOOL", default_value = "", hide_default_value = true)]
    pub(crate) passingonly: String,
    /// State of the checks, for checks.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) state: String,
    /// Name of the event, for event.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// Expression that must hold, for the types of the catalog.
    #[arg(
        long,
        value_name = "EXPRESSION",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) filter: String,
    /// Run the command by the shell in $SHELL; with false, as a program and its arguments.
    #[arg(long)]
    pub(crate) shell: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
