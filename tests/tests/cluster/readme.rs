//! What the README says about three servers, typed as it is printed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use lictor_tests::{binary, until};
use tempfile::TempDir;

use crate::{LONG, skip};

/// A network of its own, so that the printed ports are free. Gone when dropped.
struct Network(String);

impl Network {
    /// `None` where namespaces are not allowed.
    fn new() -> Option<Self> {
        let network = Self(format!("ltreadme{:x}", std::process::id()));
        let added = ip(&["netns", "add", &network.0]) && ip(&["-n", &network.0, "link", "set", "lo", "up"]);
        added.then_some(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// A shell whose `lictor` is the binary under test.
struct Shell {
    network: Network,
    folder: TempDir,
}

impl Shell {
    /// `None` where namespaces are not allowed.
    fn open() -> Result<Option<Self>> {
        let Some(network) = Network::new() else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        symlink(binary()?, folder.path().join("lictor"))?;
        Ok(Some(Self { network, folder }))
    }

    fn command(&self, line: &str) -> Result<Command> {
        let path = std::env::var("PATH")?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.network.0, "sh", "-c"])
            .arg(format!("exec {line}"))
            .env("PATH", format!("{}:{path}", self.folder.path().display()))
            .stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, line: &str) -> Result<Output> {
        Ok(self.command(line)?.output()?)
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("log-{number}"))
    }
}

/// The printed commands of three servers, with data below `folder` in the place of `/tmp`.
fn printed(folder: &Path) -> Result<Vec<String>> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let lines = readme
        .lines()
        .filter(|line| line.starts_with("lictor agent") && line.contains("-bootstrap-expect=3"));
    let below = format!("-data-dir={}/", folder.display());
    let lines: Vec<_> = lines
        .map(|line| line.replace("-data-dir=/tmp/", &below))
        .collect();
    ensure!(lines.len() == 3, "the README prints {} such servers", lines.len());
    Ok(lines)
}

/// A server of the README; killed when dropped.
struct Printed {
    line: String,
    port: String,
    child: Child,
}

impl Printed {
    fn start(shell: &Shell, number: usize, line: &str) -> Result<Self> {
        let port = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("-http-port="))
            .context("no HTTP port")?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(shell.log(number))?;
        let child = shell
            .command(line)?
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            line: line.to_owned(),
            port: port.to_owned(),
            child,
        })
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn kv(&self, shell: &Shell, words: &str) -> Result<Option<String>> {
        let (verb, rest) = words.split_once(' ').context("a verb and what it is about")?;
        let done = shell.run(&format!(
            "lictor kv {verb} -http-addr=127.0.0.1:{} {rest}",
            self.port
        ))?;
        let text = String::from_utf8(done.stdout)?;
        Ok(done.status.success().then(|| text.trim_end().to_owned()))
    }

    fn await_put(&self, shell: &Shell, key: &str) -> Result<()> {
        until(
            &format!("{key} to be written at port {}", self.port),
            LONG,
            || Ok(self.kv(shell, &format!("put {key} {key}"))?.map(drop)),
        )
    }

    fn await_get(&self, shell: &Shell, key: &str, flags: &str) -> Result<()> {
        until(&format!("{key} to be read at port {}", self.port), LONG, || {
            let value = self.kv(shell, &format!("get {flags} {key}"))?;
            Ok(value.filter(|value| value == key).map(drop))
        })
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn killed_in_turn(shell: &Shell) -> Result<()> {
    let mut servers = printed(shell.folder.path())?
        .iter()
        .enumerate()
        .map(|(number, line)| Printed::start(shell, number, line))
        .collect::<Result<Vec<_>>>()?;
    for (number, server) in servers.iter().enumerate() {
        server.await_put(shell, &format!("at-{number}"))?;
    }
    for victim in 0..servers.len() {
        let (before, after) = (format!("before-{victim}"), format!("after-{victim}"));
        servers[victim].await_put(shell, &before)?;
        servers[victim].kill()?;
        let survivors = servers.iter().enumerate().filter(|(number, _)| *number != victim);
        for (number, survivor) in survivors {
            survivor.await_get(shell, &before, "")?;
            survivor.await_put(shell, &format!("{after}-{number}"))?;
        }
        servers[victim] = Printed::start(shell, victim, &servers[victim].line.clone())?;
        // From its own data.
        servers[victim].await_get(shell, &before, "-stale")?;
        for number in (0..servers.len()).filter(|number| *number != victim) {
            servers[victim].await_get(shell, &format!("{after}-{number}"), "-stale")?;
        }
    }
    Ok(())
}

#[test]
fn of_the_readmes_three_servers_any_can_be_killed_and_nothing_is_lost() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("the README is Lictor's");
    }
    let Some(shell) = Shell::open()? else {
        return skip("a network of its own needs root");
    };
    killed_in_turn(&shell).inspect_err(|_| {
        for number in 0..3 {
            let log = fs::read_to_string(shell.log(number)).unwrap_or_default();
            // The test fails anyway.
            let _ = writeln!(std::io::stderr(), "server {number}:\n{log}");
        }
    })
}
