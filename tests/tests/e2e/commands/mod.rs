//! Commands against a running server: Lictor's own, and those of a real Consul where one is at hand. What each says
//! and how it ends is the same for both.

mod cluster;
mod lock;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lictor_tests::{Server, binary, until};
use rustix::process::{Pid, Signal, kill_process};

/// For something to happen that takes a few round trips.
const SOON: Duration = Duration::from_secs(20);

/// A command line program and the server that it speaks to.
#[derive(Debug, Clone)]
struct Program {
    path: PathBuf,
    address: String,
}

impl Program {
    /// The binary under test.
    fn own(server: &Server) -> Result<Self> {
        Ok(Self {
            path: binary()?,
            address: server.http().to_string(),
        })
    }

    /// A real Consul, where there is one.
    fn consul(server: &Server) -> Result<Option<Self>> {
        let address = server.http().to_string();
        Ok(lictor_tests::consul()?.map(|path| Self { path, address }))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(args)
            .env("CONSUL_HTTP_ADDR", &self.address)
            .env("SHELL", "/bin/sh");
        command
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).stdin(Stdio::null()).output()?)
    }

    fn run_with(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("no input")?
            .write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }

    /// Standard output of a command that must succeed.
    fn output(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{args:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The exit code and standard error of a command that must fail.
    fn failure(&self, args: &[&str]) -> Result<(i32, String)> {
        let output = self.run(args)?;
        ensure!(!output.status.success(), "{args:?} succeeded");
        let code = output.status.code().context("ended by a signal")?;
        Ok((code, String::from_utf8(output.stderr)?))
    }

    fn start(&self, args: &[&str]) -> Result<Running> {
        let child = self
            .command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Running(Some(child)))
    }
}

/// A command that runs on; killed when dropped.
struct Running(Option<Child>);

impl Running {
    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.0.as_ref().context("ended")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Waits for its end; answers its exit code, standard output and standard error.
    fn end(mut self) -> Result<(Option<i32>, String, String)> {
        let output = self.0.take().context("ended")?.wait_with_output()?;
        Ok((
            output.status.code(),
            String::from_utf8(output.stdout)?,
            String::from_utf8(output.stderr)?,
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a scenario with each program on a server of its own.
fn with_each(scenario: impl Fn(&Server, &Program) -> Result<()>) -> Result<()> {
    let server = Server::start()?;
    scenario(&server, &Program::own(&server)?).context("with the binary under test")?;
    let server = Server::start()?;
    match Program::consul(&server)? {
        Some(consul) => scenario(&server, &consul).context("with a real Consul"),
        None => crate::skip("no Consul binary as $CONSUL_BIN or on $PATH"),
    }
}

fn await_file(path: &Path, wanted: &str) -> Result<()> {
    until("a file to be written", SOON, || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Ok(text.contains(wanted).then_some(()))
    })
    .with_context(|| path.display().to_string())
}
