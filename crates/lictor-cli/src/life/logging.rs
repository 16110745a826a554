//! The log: lines for people or JSON objects, on standard error and to a file if asked for, and to clients that watch.
//! The level can be changed while the process runs; watchers name their own.

use std::fs::OpenOptions;
use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use super::Monitors;
use crate::config::{ConfigError, LogSettings};

/// Changes the level of the log.
#[derive(Debug, Clone)]
pub struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    /// From now on nothing below `level` is written.
    pub fn set(&self, level: LevelFilter) {
        // Fails only when the log is gone, at the end of the process.
        let _ = self.0.modify(|current| *current = level);
    }
}

/// Starts the log of this process.
///
/// # Errors
/// When the file cannot be opened, or a log was started before.
pub(crate) fn start(settings: &LogSettings, monitors: &Monitors) -> Result<LevelHandle, ConfigError> {
    let (level, handle) = reload::Layer::new(settings.level);
    let file = match &settings.file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| {
                    ConfigError::Invalid(format!("log_file: cannot open {}: {error}", path.display()))
                })?;
            Some(lines(settings.json, false, Arc::new(file)))
        }
    };
    let colours = std::io::stderr().is_terminal();
    let mut written = vec![lines(settings.json, colours, std::io::stderr)];
    written.extend(file);
    tracing_subscriber::registry()
        .with(vec![written.with_filter(level).boxed(), monitors.layer()])
        .try_init()
        .map_err(|error: TryInitError| ConfigError::Invalid(format!("log: {error}")))?;
    Ok(LevelHandle(handle))
}

fn lines<W>(json: bool, colours: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours);
    if json {
        layer.json().flatten_event(true).boxed()
    } else {
        layer.boxed()
    }
}
