//! Checks that run a program: its exit code is the health, and the end of what it prints is the output.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lictor_proto::go;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::Finding;
use crate::definition::Health;

/// Runs a program with its arguments, for at most `limit`.
pub(super) async fn run(args: &[String], limit: Duration, keep: usize) -> Finding {
    let (mut child, mut output) = match start(args) {
        Ok(started) => started,
        Err(why) => return Finding::new(Health::Critical, why),
    };
    // Killed with all that it started when the time is over or the run is dropped.
    let group = Group::of(&child);
    let mut end = End::new(keep);
    let ran = async {
        end.read(&mut output).await?;
        child.wait().await
    };
    match tokio::time::timeout(limit, ran).await {
        Ok(Ok(status)) => {
            group.forget();
            Finding::new(health(status), end.text())
        }
        Ok(Err(error)) => Finding::new(Health::Critical, error.to_string()),
        Err(_) => {
            let nanos = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
            let late = format!("Timed out ({}) running check", go::format_duration(nanos));
            Finding::new(
                Health::Critical,
                match end.text() {
                    text if text.is_empty() => late,
                    text => format!("{late}\n\n{text}"),
                },
            )
        }
    }
}

/// Starts a program in a process group of its own. Both of its outputs go into one pipe.
fn start(args: &[String]) -> Result<(Child, pipe::Receiver), String> {
    let Some((program, args)) = args.split_first() else {
        return Err("need an executable to run".to_owned());
    };
    let text = |error: io::Error| error.to_string();
    let (reader, writer) = io::pipe().map_err(text)?;
    let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(text)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(text)?)
        .stderr(writer)
        .process_group(0);
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        io::ErrorKind::NotFound => format!("fork/exec {program}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("fork/exec {program}: permission denied"),
        _ => format!("fork/exec {program}: {error}"),
    })?;
    Ok((child, output))
}

/// 0 is passing, 1 is warning, and all else is critical.
fn health(status: ExitStatus) -> Health {
    match status.code() {
        Some(0) => Health::Passing,
        Some(1) => Health::Warning,
        _ => Health::Critical,
    }
}

/// The processes of one run.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// The program ended by itself; what it left behind may stay.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The last bytes of an output.
struct End {
    keep: usize,
    bytes: Vec<u8>,
    total: usize,
}

impl End {
    fn new(keep: usize) -> Self {
        Self {
            keep,
            bytes: Vec::new(),
            total: 0,
        }
    }

    async fn read(&mut self, output: &mut pipe::Receiver) -> io::Result<()> {
        let mut piece = [0; 4096];
        loop {
            let len = output.read(&mut piece).await?;
            if len == 0 {
                return Ok(());
            }
            self.total = self.total.saturating_add(len);
            self.bytes.extend_from_slice(&piece[..len]);
            let over = self.bytes.len().saturating_sub(self.keep);
            self.bytes.drain(..over);
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.total > self.bytes.len() {
            format!(
                "Captured {} of {} bytes\n...\n{text}",
                self.bytes.len(),
                self.total
            )
        } else {
            text.into_owned()
        }
    }
}
