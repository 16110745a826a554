//! What the commands do. Each takes its arguments and a [`Ui`] and answers an exit code.

pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod debug;
pub(crate) mod event;
pub(crate) mod keygen;
pub(crate) mod keyring;
pub(crate) mod kv;
pub(crate) mod lock;
pub(crate) mod maint;
pub(crate) mod members;
pub(crate) mod monitor;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod process;
pub(crate) mod rtt;
pub(crate) mod services;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod tls;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod watch;

use std::fmt::Display;
use std::io::{self, BufWriter, Read, Write};

use crate::args::client::ClientArgs;
use crate::client::endpoint::Endpoint;
use crate::client::{Client, ClientError, os_error};
use crate::config::Definitions;

/// What went wrong, as the line that goes to standard error. The exit code is 1.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// With the word that Consul puts before most of its errors.
    pub(crate) fn error(text: impl Display) -> Self {
        Self(format!("Error! {text}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::error(format_args!("Failed to write the output: {error}"))
    }
}

pub(crate) type Outcome = Result<(), Failure>;

/// Of commands that can also end with another code than 0 without having failed.
pub(crate) type Exit = Result<u8, Failure>;

/// The outside of a command: streams and environment. Tests put their own in.
pub(crate) struct Ui<'a> {
    pub(crate) out: BufWriter<&'a mut dyn Write>,
    /// For what is said beside the result. Not buffered.
    pub(crate) err: &'a mut dyn Write,
    pub(crate) input: &'a mut dyn Read,
    pub(crate) env: &'a dyn Fn(&str) -> Option<std::ffi::OsString>,
    /// Whether somebody watches standard error.
    pub(crate) interactive: bool,
    /// By whom definitions of services and checks are read.
    pub(crate) definitions: Option<Definitions>,
}

impl Ui<'_> {
    /// Writes one line.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Writes one line to standard error, behind all that was written to standard output.
    pub(crate) fn warn(&mut self, text: impl Display) -> io::Result<()> {
        self.out.flush()?;
        writeln!(self.err, "{text}")
    }

    /// Writes one line to standard output at once.
    pub(crate) fn tell(&mut self, text: impl Display) -> io::Result<()> {
        self.line(text)?;
        self.out.flush()
    }

    /// A client as flags and environment say.
    pub(crate) fn client(&mut self, args: &ClientArgs) -> Result<Client, Failure> {
        let endpoint = Endpoint::resolve(args, self.env).map_err(cannot_connect)?;
        for warning in &endpoint.warnings {
            self.warn(format_args!("Warning: {warning}"))?;
        }
        Client::new(endpoint).map_err(cannot_connect)
    }

    /// Text that is given itself, as `@FILE`, or as `-` for standard input.
    pub(crate) fn data(&mut self, argument: &str) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        match argument.strip_prefix('@') {
            Some(file) => std::fs::read(file).map_err(|error| {
                Failure::error(format_args!(
                    "Failed to read file: open {file}: {}",
                    os_error(&error)
                ))
            }),
            None if argument == "-" => match self.input.read_to_end(&mut bytes) {
                Ok(_) => Ok(bytes),
                Err(error) => Err(Failure::error(format_args!("Failed to read stdin: {error}"))),
            },
            None => Ok(argument.as_bytes().to_vec()),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn cannot_connect(error: ClientError) -> Failure {
    Failure(format!("Error connecting to Consul agent: {error}"))
}

/// Consul's words for a read that failed.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn query_failed(error: ClientError) -> Failure {
    Failure(format!("Error querying Consul agent: {error}"))
}

/// Prints JSON as Consul's commands do, indented by four blanks.
pub(crate) fn json(ui: &mut Ui<'_>, value: &impl serde::Serialize) -> Outcome {
    let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut ui.out, four))
        .map_err(|error| Failure::error(format_args!("Failed to write the output: {error}")))?;
    ui.line("")?;
    Ok(())
}

/// No argument is wanted, in the words that most commands have for it.
pub(crate) fn no_arguments(rest: &[String]) -> Outcome {
    if rest.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "Too many arguments (expected 0, got {})",
        rest.len()
    )))
}

/// Prints rows in columns, each as wide as its widest cell.
pub(crate) fn table<const N: usize>(ui: &mut Ui<'_>, rows: &[[String; N]]) -> io::Result<()> {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', pad));
        }
        ui.line(line.trim_end())?;
    }
    Ok(())
}
