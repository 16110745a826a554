//! raft-rs logs through slog; this passes it on to `tracing`, target `raft`.

use std::fmt::{self, Write as _};

use slog::{Drain, KV as _, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};

/// A logger for raft-rs.
pub(crate) fn logger() -> Logger {
    Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        // raft-rs formats each message it sends at debug level: ask before formatting.
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let mut text = Text(String::new());
        // Writing to a String cannot fail.
        let _ = write!(text.0, "{}", record.msg());
        let _ = record.kv().serialize(record, &mut text);
        let _ = values.serialize(record, &mut text);
        let text = text.0;
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{text}"),
            Level::Warning => tracing::warn!(target: "raft", "{text}"),
            // Elections in detail; the node reports role changes itself.
            Level::Info => tracing::debug!(target: "raft", "{text}"),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{text}"),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error => tracing::enabled!(target: "raft", tracing::Level::ERROR),
            Level::Warning => tracing::enabled!(target: "raft", tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: "raft", tracing::Level::DEBUG),
            Level::Debug | Level::Trace => tracing::enabled!(target: "raft", tracing::Level::TRACE),
        }
    }
}

struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}
