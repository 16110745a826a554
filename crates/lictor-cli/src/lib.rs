//! The command line of Lictor: flags, configuration, the HTTP client, the client commands and the life of the
//! agent's process. It does not hold the server: [`main`] is given that as a function, so that everything here
//! builds and tests without a storage engine.
//!
//! ```text
//! argv ─> args ─┬─> commands (kv, session, tls, version) ─> client ─> HTTP
//!               └─> config ─> RuntimeConfig ─> life (log, signals, pid file) ─> the server, given by the binary
//! ```
//!
//! Where to start: [`main`], [`Sources::load`](config::Sources::load), [`Start`].

mod agent;
mod args;
mod client;
mod commands;
pub mod config;
mod life;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

pub use agent::{Server, Start};
pub use commands::version::{CONSUL_VERSION, VERSION};
pub use life::{Control, Handle, Leave, LevelHandle, Reload};

use args::{Cli, Command};
use commands::{Outcome, Ui};

/// Consul's exit code for a command that does not exist.
const NO_SUCH_COMMAND: u8 = 127;

/// Runs the program: `agent` runs `server`, everything else talks to one.
pub fn main<S: Server>(arguments: impl IntoIterator<Item = OsString>, server: S) -> ExitCode {
    match parse(arguments) {
        Ok(Cli {
            command: Command::Agent(args),
        }) => agent::run(*args, server),
        Ok(cli) => client_command(cli.command),
        Err(usage) => usage.print(),
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Usage> {
    let mut command = args::argv::with_go_switches(Cli::command());
    command.build();
    let arguments = args::argv::normalise(&command, arguments);
    let known = arguments
        .iter()
        .skip(1)
        .any(|word| command.find_subcommand(word).is_some());
    command
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| Usage {
            error,
            known_command: known,
        })
}

/// A command line that is not run: help was asked for, or something is wrong with it.
#[derive(Debug)]
struct Usage {
    error: clap::Error,
    /// Whether a command was named that exists.
    known_command: bool,
}

impl Usage {
    /// Help that was asked for goes to standard output and is no failure; all else is one.
    fn print(&self) -> ExitCode {
        // A closed terminal is no reason to fail twice.
        let _ = self.error.print();
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self.error.kind() {
            clap::error::ErrorKind::DisplayHelp => 0,
            _ if self.known_command => 1,
            _ => NO_SUCH_COMMAND,
        }
    }
}

fn client_command(command: Command) -> ExitCode {
    let (mut stdout, mut stdin) = (io::stdout().lock(), io::stdin().lock());
    let mut ui = Ui {
        out: BufWriter::new(&mut stdout),
        input: &mut stdin,
        env: &|name| std::env::var_os(name),
        interactive: io::stderr().is_terminal(),
    };
    let outcome = run_client_command(command, &mut ui).and_then(|()| Ok(ui.out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.0);
            ExitCode::FAILURE
        }
    }
}

fn run_client_command(command: Command, ui: &mut Ui<'_>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Kv(command) => commands::kv::run(command, ui).await,
            Command::Session(command) => commands::session::run(command, ui).await,
            Command::Tls(command) => commands::tls::run(command, std::path::Path::new("."), ui),
            Command::Version(args) => commands::version::run(&args, ui),
            Command::Agent(_) => unreachable!("main runs the agent"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> u8 {
        parse(line.split(' ').map(OsString::from))
            .expect_err("not a command to run")
            .code()
    }

    #[test]
    fn exit_codes_of_usage_errors_are_consuls() {
        for (line, expected) in [
            ("lictor", 127),
            ("lictor nope", 127),
            ("lictor -h", 0),
            ("lictor kv", 1),
            ("lictor kv nope", 1),
            ("lictor kv -h", 0),
            ("lictor kv get -nope a", 1),
            ("lictor kv put -flags x a b", 1),
            ("lictor kv put -cas=maybe a b", 1),
            ("lictor agent extra", 1),
        ] {
            assert_eq!(code(line), expected, "{line}");
        }
    }

    #[test]
    fn every_command_line_that_harnesses_use_is_understood() {
        for line in [
            "consul version -format=json",
            "consul agent -config-file a.json -config-file=b.json",
            "lictor agent -dev -http-port=8500 -dns-port -1 -grpc-port=-1 -ui",
            "lictor agent -server=true -bootstrap-expect=1 -data-dir d -bind 127.0.0.1 -client 0.0.0.0",
            "lictor agent -retry-join a -retry-join b -encrypt k -node-meta a:b -enable-script-checks=false",
            "lictor kv get -recurse -http-addr=127.0.0.1:1 -stale a",
            "lictor session create -ttl=10s -behavior=delete -node-check=serfHealth",
        ] {
            let parsed = parse(line.split(' ').map(OsString::from));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }
}
