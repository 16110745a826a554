//! Child processes of `lock` and `watch`: how they are started, told to end, and spoken of.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind, signal};

use super::Ui;
use crate::client::os_error;

/// How long a child may take to end after it was asked to.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A command from its words: one line for the user's shell, or a program and its arguments.
pub(crate) fn command(words: &[String], shell: bool, ui: &Ui<'_>) -> Command {
    if shell {
        let program = (ui.env)("SHELL").filter(|shell| !shell.is_empty());
        let mut command = Command::new(program.unwrap_or_else(|| OsString::from("/bin/sh")));
        command.arg("-c").arg(words.join(" "));
        return command;
    }
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    command
}

/// Go's words for a program that cannot be started.
pub(crate) fn start_error(program: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound && !program.contains('/') {
        format!("exec: {program:?}: executable file not found in $PATH")
    } else {
        format!("fork/exec {program}: {}", os_error(error))
    }
}

/// Go's words for the end of a process that failed; `None` for one that did not.
pub(crate) fn failure(status: ExitStatus) -> Option<String> {
    if let Some(number) = status.signal() {
        let name = match number {
            1 => "hangup",
            2 => "interrupt",
            3 => "quit",
            6 => "aborted",
            9 => "killed",
            11 => "segmentation fault",
            13 => "broken pipe",
            15 => "terminated",
            _ => return Some(format!("signal: signal {number}")),
        };
        return Some(format!("signal: {name}"));
    }
    match status.code() {
        Some(0) => None,
        code => Some(format!("exit status {}", code.unwrap_or(-1))),
    }
}

/// Sends a signal to a child that was not waited for yet.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in this moment.
        let _ = kill_process(pid, signal);
    }
}

/// The signals that ask this process to end. Once made, they no longer end it by themselves.
#[derive(Debug)]
pub(crate) struct Stops {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Stops {
    /// # Errors
    /// When the system refuses.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next of them. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_gos_words() {
        let ended = |raw| failure(ExitStatus::from_raw(raw));

        assert_eq!(ended(0), None);
        assert_eq!(ended(3 << 8).as_deref(), Some("exit status 3"));
        assert_eq!(ended(9).as_deref(), Some("signal: killed"));
        assert_eq!(ended(15).as_deref(), Some("signal: terminated"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let missing = io::Error::from(io::ErrorKind::NotFound);

        let said = start_error("nope", &missing);
        assert_eq!(said, "exec: \"nope\": executable file not found in $PATH");
    }
}
