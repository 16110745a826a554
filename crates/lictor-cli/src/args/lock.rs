//! Flags of `lock`.

use std::time::Duration;

use clap::Args;

use super::client::ClientArgs;
use lictor_proto::go;

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Where the lock is kept, then the command to run while it is held. Flags stand before both.
    #[arg(value_name = "PREFIX COMMAND", allow_hyphen_values = true)]
    pub(crate) prefix_and_child: Vec<String>,
    /// End with 2 if the command fails; otherwise its failure is printed only.
    #[arg(long)]
    pub(crate) child_exit_code: Option<bool>,
    /// How many holders there may be at a time.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "COUNT",
        allow_negative_numbers = true
    )]
    pub(crate) n: i64,
    /// Name of the session; made from the command when not given.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// How often a server that answers with an error is asked again, a second apart, before the lock counts as lost.
    #[arg(
        long,
        default_value_t = 3,
        value_name = "COUNT",
        allow_negative_numbers = true
    )]
    pub(crate) monitor_retry: i64,
    /// Let the command read standard input.
    #[arg(long)]
    pub(crate) pass_stdin: Option<bool>,
    /// Run the command by the shell in $SHELL; with false, as a program and its arguments.
    #[arg(long)]
    pub(crate) shell: Option<bool>,
    /// How long to wait for the lock; without end when 0.
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Signed>,
    /// The same under its old name.
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) r#try: Option<Signed>,
    /// Tell each step.
    #[arg(long)]
    pub(crate) verbose: Option<bool>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// A duration as Go has it: it may be below zero, which the command refuses in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signed(i64);

impl Signed {
    /// The duration, unless it is below zero.
    pub(crate) fn positive(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

fn duration(text: &str) -> Result<Signed, String> {
    go::parse_duration(text).map(Signed)
}
