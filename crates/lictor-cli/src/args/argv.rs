//! Go's flags on clap's parser: `-name value`, `-name=value` and `-flag=false` besides the forms with two dashes.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Brings arguments into clap's form. Only flags that the chosen command knows gain a second dash; everything from
/// `--` on, and what follows the key of `kv put`, is data and stays as it is.
pub(crate) fn normalise(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut here = command;
    let mut value_follows = false;
    for arg in args.by_ref() {
        let Some(text) = arg.to_str() else {
            out.push(arg);
            continue;
        };
        if std::mem::take(&mut value_follows) {
            out.push(arg);
        } else if text == "--" {
            out.push(arg);
            break;
        } else if text.len() > 1 && text.starts_with('-') {
            // As Go programs do, the program itself answers to -v and -version.
            if std::ptr::eq(here, command) && ["v", "version"].contains(&text.trim_start_matches('-')) {
                out.push("version".into());
                break;
            }
            let (flag, takes_value) = flag(here, text);
            value_follows = takes_value && !flag.contains('=');
            out.push(flag.into());
        } else if let Some(sub) = here.find_subcommand(text) {
            here = sub;
            out.push(arg);
        } else if data_follows(here) {
            out.extend(["--".into(), arg]);
            break;
        } else {
            out.push(arg);
        }
    }
    out.extend(args);
    out
}

/// A value may look like a flag (`kv put count -1`), so nothing from the key on is one.
fn data_follows(command: &Command) -> bool {
    command.get_positionals().any(Arg::is_allow_hyphen_values_set)
}

/// The flag in clap's form, and whether its value is the next argument.
fn flag(command: &Command, text: &str) -> (String, bool) {
    let bare = text
        .strip_prefix("--")
        .or_else(|| text.strip_prefix('-'))
        .unwrap_or(text);
    let name = bare.split_once('=').map_or(bare, |(name, _)| name);
    let known: BTreeMap<&str, &Arg> = command
        .get_arguments()
        .filter_map(|arg| Some((arg.get_long()?, arg)))
        .collect();
    match known.get(name) {
        Some(arg) => {
            let next = arg.get_action().takes_values() && !arg.is_require_equals_set();
            (format!("--{bare}"), next)
        }
        None if name == "h" || name == "help" => ("--help".to_owned(), false),
        // The parser would take the first letter for a short flag, and complain of that letter alone.
        None if name.len() > 1 && name.starts_with(char::is_alphabetic) => (format!("--{bare}"), false),
        None => (text.to_owned(), false),
    }
}

/// Lets every switch (an argument that holds a `bool`) also be written `-flag=false`, and every flag be repeated, as
/// Go's can.
pub(crate) fn with_go_switches(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        if arg.get_value_parser().type_id() != TypeId::of::<bool>() {
            return arg;
        }
        arg.action(ArgAction::Set)
            .value_parser(clap::builder::BoolishValueParser::new())
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .value_name("BOOL")
    });
    // Of a repeated flag the last one counts; those that take several values collect them as before.
    command.args_override_self(true).mut_subcommands(with_go_switches)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn normalised(line: &str) -> String {
        let mut command = with_go_switches(Cli::command());
        command.build();
        let args = line.split(' ').map(OsString::from);
        let words: Vec<_> = normalise(&command, args)
            .into_iter()
            .map(|arg| arg.into_string().expect("text"))
            .collect();
        words.join(" ")
    }

    #[test]
    fn known_flags_gain_a_second_dash() {
        assert_eq!(
            normalised("lictor agent -dev -node=a -http-port 1"),
            "lictor agent --dev --node=a --http-port 1"
        );
        assert_eq!(
            normalised("lictor agent --dev --node a"),
            "lictor agent --dev --node a"
        );
    }

    #[test]
    fn values_are_not_taken_for_flags() {
        assert_eq!(normalised("lictor agent -node -dev"), "lictor agent --node -dev");
        assert_eq!(
            normalised("lictor kv put -flags 3 k -cas"),
            "lictor kv put --flags 3 -- k -cas"
        );
    }

    #[test]
    fn nothing_changes_after_two_dashes() {
        assert_eq!(normalised("lictor kv get -- -keys"), "lictor kv get -- -keys");
    }

    #[test]
    fn unknown_flags_and_a_lone_dash_are_left_for_the_parser() {
        assert_eq!(normalised("lictor agent -nope"), "lictor agent --nope");
        assert_eq!(normalised("lictor agent -x"), "lictor agent -x");
        assert_eq!(normalised("lictor kv import -"), "lictor kv import -");
    }

    #[test]
    fn the_version_is_asked_for_as_in_go() {
        assert_eq!(normalised("consul --version"), "consul version");
        assert_eq!(normalised("consul -v"), "consul version");
    }

    #[test]
    fn help_is_asked_for_as_in_go() {
        assert_eq!(normalised("lictor kv get -h"), "lictor kv get --help");
        assert_eq!(normalised("lictor kv -help"), "lictor kv --help");
    }
}
