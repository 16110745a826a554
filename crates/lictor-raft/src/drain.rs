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

/// Fields with whole entries in them: what clients wrote is nobody's who reads the log, and may be megabytes.
const WITH_ENTRIES: [&str; 2] = ["msg", "ents"];

struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        if !WITH_ENTRIES.contains(&key) {
            write!(self.0, " {key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Level as TracingLevel, Metadata, Subscriber, span};

    use super::*;

    /// Keeps what is logged at warn and above.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= TracingLevel::WARN
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut text = Text(format!(
                "{} {}:",
                event.metadata().level(),
                event.metadata().target()
            ));
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    impl Visit for Text {
        fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
            write!(self.0, " {value:?}").unwrap();
        }
    }

    #[test]
    fn what_raft_logs_arrives_with_its_fields_if_its_level_is_wanted() {
        let kept = Kept::default();

        tracing::subscriber::with_default(kept.clone(), || {
            let logger = logger().new(slog::o!("raft_id" => 7));
            slog::warn!(logger, "cannot campaign at term {}", 3; "pending" => 2);
            slog::debug!(logger, "not wanted");
            slog::warn!(logger, "sending"; "msg" => ?b"a value", "to" => 3);
        });

        assert_eq!(
            *kept.0.lock().unwrap(),
            [
                "WARN raft: cannot campaign at term 3 pending=2 raft_id=7",
                "WARN raft: sending to=3 raft_id=7"
            ]
        );
    }
}
