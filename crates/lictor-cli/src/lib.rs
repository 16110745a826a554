//! The command line of Lictor: flags, configuration, the HTTP client, the client commands and the life of the
//! agent's process. It does not hold the server: [`main`] is given that as a function, so that everything here
//! builds and tests without a storage engine.
//!
//! ```text
//! argv ─> args ─┬─> commands (kv, lock, members, ...) ─> client ─> HTTP
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
mod out;
#[cfg(test)]
mod testing;

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

pub use agent::{Server, Start};
pub use client::membership::ask_to_join;
pub use commands::version::{CONSUL_VERSION, VERSION};
pub use life::{Control, Handle, Leave, LevelHandle, Monitors, Reload};

use args::{Cli, Command};
use commands::{Exit, Failure, Ui};
use config::Definitions;
use out::Out;

/// Consul's exit code for a command that does not exist.
const NO_SUCH_COMMAND: u8 = 127;
/// A command that is a program of its own as well.
const RAFT_KV_DEMO: &str = "raft-kv-demo";

/// Runs the program: `agent` runs `server`, everything else talks to one. `definitions` reads the services and checks of
/// configuration files.
pub fn main<S: Server>(
    arguments: impl IntoIterator<Item = OsString>,
    definitions: Definitions,
    server: S,
) -> ExitCode {
    match parse(arguments) {
        Ok(Cli {
            command: Command::Agent(args),
        }) => agent::run(*args, definitions, server),
        Ok(Cli {
            command: Command::RaftKvDemo(args),
        }) => agent::run_demo(*args, server),
        Ok(cli) => client_command(cli.command, definitions),
        Err(usage) => usage.print(),
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Usage> {
    let mut command = args::argv::with_go_switches(Cli::command());
    command.build();
    let arguments = args::argv::normalise(&command, under_own_name(arguments));
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

/// Started as `raft-kv-demo`, for instance through a link, the program is that command.
fn under_own_name(arguments: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next();
    let name = program.as_deref().map(Path::new).and_then(Path::file_name);
    let command = name.filter(|name| *name == RAFT_KV_DEMO).map(OsString::from);
    program.into_iter().chain(command).chain(arguments)
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

fn client_command(command: Command, definitions: Definitions) -> ExitCode {
    let reader_gone = Cell::new(false);
    let mut stdout = Out::new(io::stdout().lock(), &reader_gone);
    let (mut stderr, mut stdin) = (io::stderr().lock(), io::stdin().lock());
    let mut ui = Ui {
        out: BufWriter::new(&mut stdout),
        err: &mut stderr,
        input: &mut stdin,
        env: &|name| std::env::var_os(name),
        interactive: io::stderr().is_terminal(),
        definitions: Some(definitions),
    };
    let exit = run_client_command(command, &mut ui);
    // What was printed before a failure is part of the answer.
    let exit = ui.out.flush().map_err(Failure::from).and(exit);
    match exit {
        _ if reader_gone.get() => ExitCode::from(out::READER_GONE),
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // A closed terminal is no reason to fail twice.
            let _ = writeln!(ui.err, "{}", failure.0);
            ExitCode::FAILURE
        }
    }
}

fn run_client_command(command: Command, ui: &mut Ui<'_>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(dispatch(command, ui)))
}

async fn dispatch(command: Command, ui: &mut Ui<'_>) -> Exit {
    match command {
        Command::Catalog(command) => commands::catalog::run(command, ui).await,
        Command::Completion(args) => commands::completion::run(&args, ui),
        Command::Debug(args) => commands::debug::run(*args, ui).await,
        Command::Event(args) => commands::event::run(args, ui).await,
        Command::Exec(_) => commands::node::exec(),
        Command::ForceLeave(args) => commands::cluster::force_leave(&args, ui).await,
        Command::Info(args) => commands::node::info(&args, ui).await,
        Command::Join(args) => commands::cluster::join(&args, ui).await,
        Command::Keygen => commands::keygen::run(ui),
        Command::Keyring(args) => commands::keyring::run(&args, ui).await,
        Command::Kv(command) => commands::kv::run(command, ui).await,
        Command::Leave(args) => commands::cluster::leave(&args, ui).await,
        Command::Lock(args) => return commands::lock::run(*args, ui).await,
        Command::Maint(args) => commands::maint::run(&args, ui).await,
        Command::Members(args) => return commands::members::run(&args, ui).await,
        Command::Monitor(args) => commands::monitor::run(&args, ui).await,
        Command::Operator(command) => commands::operator::run(command, ui).await,
        Command::Reload(args) => commands::node::reload(&args, ui).await,
        Command::Rtt(args) => commands::rtt::run(&args, ui).await,
        Command::Services(command) => commands::services::run(command, ui).await,
        Command::Session(command) => commands::session::run(command, ui).await,
        Command::Snapshot(command) => commands::snapshot::run(command, ui).await,
        Command::Tls(command) => commands::tls::run(command, std::path::Path::new("."), ui),
        Command::Validate(args) => commands::validate::run(args, ui),
        Command::Version(args) => commands::version::run(&args, ui),
        Command::Watch(args) => return commands::watch::run(&args, ui).await,
        Command::Agent(_) | Command::RaftKvDemo(_) => unreachable!("main runs servers"),
    }
    .map(|()| 0)
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

    /// Every command that can be run, as in `operator raft list-peers`.
    fn commands() -> Vec<String> {
        fn below(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            for sub in command.get_subcommands() {
                let path = format!("{path}{}", sub.get_name());
                if sub.has_subcommands() {
                    below(sub, &format!("{path} "), found);
                } else {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        below(&Cli::command(), "", &mut found);
        found
    }

    fn page(name: &str) -> String {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the crate's folder");
        let path = std::path::PathBuf::from(root).join("../../docs").join(name);
        std::fs::read_to_string(path).expect("a page of the documentation")
    }

    #[test]
    fn the_page_on_compatibility_lists_every_command_and_no_other() {
        let page = page("compatibility.md");
        let table = page
            .split("| command | state |\n")
            .nth(1)
            .expect("the table of commands");
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        let first = rows.filter_map(|row| row.split('|').nth(1));
        let mut listed: Vec<_> = first
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .map(str::to_owned)
            .collect();
        listed.sort();

        let mut there = commands();
        there.sort();
        assert_eq!(listed, there);
    }

    #[test]
    fn the_page_on_the_command_line_shows_every_command() {
        let page = page("cli.md");
        for command in commands().iter().filter(|command| *command != "exec") {
            let shown = page.contains(&format!("lictor {command}")) || page.contains(&format!("`{command}"));
            // A settings command is named beside the one that shows them.
            let last = command.rsplit(' ').next().unwrap_or_default();
            assert!(shown || page.contains(&format!("`{last}`")), "{command}");
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
            "lictor lock -n=2 -shell=false -monitor-retry 5 -try=10s p sleep -n 3",
            "lictor watch -type=service -service=web -tag a -tag=b -shell=false -namespace=default ls -l",
            "lictor members -wan -detailed -status=alive",
            "lictor operator raft transfer-leader -id=x",
            "lictor debug -archive=false -capture agent -capture=host -duration=20s",
            "lictor session create -ttl=10s -behavior=delete -node-check=serfHealth",
            "raft-kv-demo",
            "raft-kv-demo -id node1 -raddr cluster-host1:8080 -haddr cluster-host1:8079 -bootstrap",
            "/usr/bin/raft-kv-demo -id=node2 --raddr=h:1 -haddr h:2 -join cluster-host1:8079 -bootstrap=false",
            "lictor raft-kv-demo -id x -data-dir d -join-timeout 5s -cors *",
        ] {
            let parsed = parse(line.split(' ').map(OsString::from));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }
}
