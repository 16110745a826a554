//! The log as clients watch it while the process runs (`/v1/agent/monitor`), in the form of Consul's log.
//!
//! Each watcher has a bounded queue. Logging never waits for a watcher: one that is slow misses lines, and is told how
//! many. While nobody watches, nothing is made and no level is enabled for it.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::{Layer, Registry, reload};

/// Most watchers at a time.
const WATCHERS_MAX: usize = 32;
/// Lines that wait for one watcher.
const QUEUE_LINES: usize = 512;
/// Bytes that are shown of one text in a line.
const TEXT_MAX: usize = 4096;
/// Whose lines are shown. Others tell of the very connections that a watcher reads from, without end.
const TARGETS: [&str; 2] = ["lictor", "raft"];

/// Those who watch the log. Cloning shares them.
#[derive(Clone, Default)]
pub struct Monitors(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Held while one line is made and handed out.
    watchers: Mutex<Vec<Watcher>>,
    /// What is enabled for the most curious of them.
    level: Mutex<Option<reload::Handle<Targets, Registry>>>,
}

struct Watcher {
    level: LevelFilter,
    is_json: bool,
    lines: mpsc::Sender<Bytes>,
    missed: u64,
}

impl fmt::Debug for Monitors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitors").finish_non_exhaustive()
    }
}

impl Monitors {
    /// The part of the log that feeds them, with its filter.
    pub(super) fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        let (filter, handle) = reload::Layer::new(targets(LevelFilter::OFF));
        *self.0.level.lock() = Some(handle);
        Tap(self.clone()).with_filter(filter).boxed()
    }

    /// All lines from now on that are as grave as `level`, until the receiver is dropped. `None` when too many watch
    /// already. Must be called within a tokio runtime.
    pub fn watch(&self, level: LevelFilter, is_json: bool) -> Option<mpsc::Receiver<Bytes>> {
        let (sender, receiver) = mpsc::channel(QUEUE_LINES);
        {
            let mut watchers = self.0.watchers.lock();
            if watchers.len() >= WATCHERS_MAX {
                return None;
            }
            watchers.push(Watcher {
                level,
                is_json,
                lines: sender.clone(),
                missed: 0,
            });
        }
        self.enable();
        let monitors = self.clone();
        tokio::spawn(async move {
            sender.closed().await;
            monitors
                .0
                .watchers
                .lock()
                .retain(|watcher| !watcher.lines.is_closed());
            monitors.enable();
        });
        Some(receiver)
    }

    /// Enables what the most curious watcher wants to see.
    fn enable(&self) {
        let wanted = |watchers: &[Watcher]| watchers.iter().map(|watcher| watcher.level).max();
        let level = wanted(&self.0.watchers.lock()).unwrap_or(LevelFilter::OFF);
        if let Some(handle) = &*self.0.level.lock() {
            // Fails only when the log is gone, at the end of the process.
            let _ = handle.modify(|current| *current = targets(level));
        }
    }
}

fn targets(level: LevelFilter) -> Targets {
    TARGETS.iter().map(|target| (*target, level)).collect()
}

/// Hands events to the watchers.
struct Tap(Monitors);

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut watchers = self.0.0.watchers.lock();
        let mut line = None;
        for watcher in watchers.iter_mut().filter(|watcher| watcher.level >= level) {
            watcher.tell(line.get_or_insert_with(|| Line::of(event)));
        }
    }
}

impl Watcher {
    fn tell(&mut self, line: &Line) {
        if self.missed > 0 {
            let told = Line {
                level: Level::WARN,
                target: "lictor_cli::life::monitor",
                message: "lines were dropped, because they were not read in time".to_owned(),
                fields: vec![("dropped", self.missed.into())],
            };
            if self.lines.try_send(told.shown(self.is_json)).is_ok() {
                self.missed = 0;
            }
        }
        // One that is closed is removed by the task that waits for that.
        if self.missed > 0 || self.lines.try_send(line.shown(self.is_json)).is_err() {
            self.missed += 1;
        }
    }
}

/// An event of the log.
struct Line {
    level: Level,
    target: &'static str,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    fn of(event: &Event<'_>) -> Self {
        let mut line = Self {
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut line);
        line
    }

    fn shown(&self, is_json: bool) -> Bytes {
        let mut time = String::new();
        // Writing to a text does not fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut text = if is_json {
            self.json(&time)
        } else {
            self.text(&time)
        };
        text.push('\n');
        text.into()
    }

    fn text(&self, time: &str) -> String {
        let level = match self.level {
            Level::TRACE => "[TRACE]",
            Level::DEBUG => "[DEBUG]",
            Level::INFO => "[INFO] ",
            Level::WARN => "[WARN] ",
            Level::ERROR => "[ERROR]",
        };
        let mut text = format!("{time} {level} {}: {}", self.target, self.message);
        for (at, (name, value)) in self.fields.iter().enumerate() {
            let colon = if at == 0 { ":" } else { "" };
            let plain = value.as_str().filter(|text| !text.contains([' ', '"', '=']));
            // Writing to a text does not fail.
            let _ = match plain {
                Some(plain) => write!(text, "{colon} {name}={plain}"),
                None => write!(text, "{colon} {name}={value}"),
            };
        }
        // A line stays a line.
        text.replace('\n', "\\n")
    }

    fn json(&self, time: &str) -> String {
        let mut map = Map::new();
        let level = self.level.as_str().to_ascii_lowercase();
        for (name, value) in [
            ("@level", level.as_str()),
            ("@message", &self.message),
            ("@module", self.target),
            ("@timestamp", time),
        ] {
            map.insert(name.to_owned(), value.into());
        }
        for (name, value) in &self.fields {
            map.insert((*name).to_owned(), value.clone());
        }
        Value::Object(map).to_string()
    }

    fn add(&mut self, field: &Field, mut value: Value) {
        if let Value::String(text) = &mut value
            && text.len() > TEXT_MAX
        {
            let end = (0..=TEXT_MAX).rev().find(|&at| text.is_char_boundary(at));
            text.truncate(end.unwrap_or(0));
            text.push_str("...");
        }
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn next(lines: &mut mpsc::Receiver<Bytes>) -> Option<String> {
        let line = lines.try_recv().ok()?;
        Some(String::from_utf8(line.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn each_watcher_sees_its_levels_in_its_form() {
        let monitors = Monitors::default();
        let log = tracing_subscriber::registry().with(monitors.layer());
        let _guard = tracing::subscriber::set_default(log);
        tracing::info!("before");

        let mut plain = monitors.watch(LevelFilter::INFO, false).expect("room");
        let mut json = monitors.watch(LevelFilter::DEBUG, true).expect("room");
        tracing::debug!(key_len = 3, "fine");
        tracing::info!(node = "n1", why = "a b", "not\nfine");

        let line = next(&mut plain).expect("a line");
        let (time, rest) = line.split_once(' ').expect("a time");
        assert!(time.ends_with('Z'), "{time}");
        let target = module_path!();
        assert_eq!(
            rest,
            format!("[INFO]  {target}: not\\nfine: node=n1 why=\"a b\"\n")
        );
        assert_eq!(next(&mut plain), None);
        let shown: Value = serde_json::from_str(&next(&mut json).expect("a line")).expect("JSON");
        assert_eq!(
            (&shown["@level"], &shown["@message"]),
            (&"debug".into(), &"fine".into())
        );
        assert_eq!(
            (&shown["@module"], &shown["key_len"]),
            (&target.into(), &3.into())
        );
        assert!(next(&mut json).is_some_and(|line| line.contains("\"@message\":\"not\\nfine\"")));
    }

    #[tokio::test]
    async fn a_watcher_sees_no_others_lines_and_no_endless_ones() {
        let monitors = Monitors::default();
        let log = tracing_subscriber::registry().with(monitors.layer());
        let _guard = tracing::subscriber::set_default(log);
        let mut lines = monitors.watch(LevelFilter::TRACE, false).expect("room");

        tracing::info!(target: "h2::codec", "a frame was sent");
        tracing::info!(text = "é".repeat(TEXT_MAX), "long");

        let line = next(&mut lines).expect("a line");
        assert!(
            line.contains(": long: text=éé") && line.ends_with("é...\n"),
            "{line}"
        );
        assert!(line.len() < TEXT_MAX + 100, "{}", line.len());
        assert_eq!(next(&mut lines), None);
    }

    #[tokio::test]
    async fn a_slow_watcher_misses_lines_and_is_told_how_many() {
        let monitors = Monitors::default();
        let log = tracing_subscriber::registry().with(monitors.layer());
        let _guard = tracing::subscriber::set_default(log);
        let mut lines = monitors.watch(LevelFilter::INFO, false).expect("room");

        for at in 0..QUEUE_LINES + 3 {
            tracing::info!(at, "line");
        }
        for _ in 0..QUEUE_LINES {
            assert!(next(&mut lines).is_some_and(|line| line.contains(": line: at=")));
        }
        tracing::info!("again");

        assert!(next(&mut lines).is_some_and(|line| line.ends_with(": dropped=3\n")));
        assert!(next(&mut lines).is_some_and(|line| line.ends_with(": again\n")));
    }

    #[tokio::test]
    async fn a_watcher_that_leaves_makes_room() {
        let monitors = Monitors::default();
        let watch = || monitors.watch(LevelFilter::INFO, false);
        let mut all: Vec<_> = (0..WATCHERS_MAX).map(|_| watch().expect("room")).collect();
        assert!(watch().is_none());

        all.pop();

        // The task that waits for that has its turn.
        while watch().is_none() {
            tokio::task::yield_now().await;
        }
    }
}
