//! `completion`.

use std::io::Write as _;

use clap::CommandFactory as _;

use super::{Outcome, Ui};
use crate::args::{Cli, CompletionArgs};

/// The names that the program is started by.
const NAMES: [&str; 2] = ["lictor", "consul"];

pub(crate) fn run(args: &CompletionArgs, ui: &mut Ui<'_>) -> Outcome {
    let started_as = std::env::args_os().next().map(std::path::PathBuf::from);
    let started_as = started_as.as_deref().and_then(std::path::Path::file_name);
    let name = NAMES
        .into_iter()
        .find(|name| started_as.is_some_and(|started| started == *name));
    let mut command = crate::args::argv::with_go_switches(Cli::command());
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name.unwrap_or(NAMES[0]), &mut script);
    ui.out.write_all(&script)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn there_is_a_script_for_each_shell() {
        for shell in ["bash", "zsh", "fish"] {
            let ran = run(&format!("lictor completion {shell}"), "", &[]);
            assert!(
                ran.out.contains("force-leave") && ran.out.contains("lictor"),
                "{shell}"
            );
        }
    }
}
