//! The log stage: appends what is queued as one batch with one fsync. Owns the log's writer; nothing else syncs it.

use std::time::Instant;

use lictor_raft::{LogPosition, LogTask, LogWriter};

use super::stage::Worker;
use super::{Event, Shared, fatal};

/// What the log stage is told.
#[derive(Debug)]
pub(crate) enum LogWork {
    /// To append, and to report once it is durable.
    Append(LogTask),
    /// Entries up to here are not needed any more.
    Compact(LogPosition),
    /// The state is a snapshot that ends here: what the log holds is replaced by nothing.
    Reset(LogPosition),
}

/// The log stage.
#[derive(Debug)]
pub(crate) struct LogWorker<W> {
    pub(crate) shared: Shared,
    pub(crate) writer: W,
}

impl<W: LogWriter> Worker<LogWork> for LogWorker<W> {
    fn work(&mut self, items: &mut Vec<LogWork>) {
        let mut tasks = Vec::new();
        let mut compact_to = None;
        for item in items.drain(..) {
            match item {
                LogWork::Append(task) => tasks.push(task),
                LogWork::Compact(to) => compact_to = Some(to),
                LogWork::Reset(to) => {
                    self.append(&mut tasks);
                    // What was to be cut is gone with all the rest.
                    compact_to = None;
                    if let Err(error) = self.writer.reset(to) {
                        fatal("resetting the raft log failed", &error);
                    }
                }
            }
        }
        self.append(&mut tasks);
        if let Some(to) = compact_to
            && let Err(error) = self.writer.compact(to)
        {
            fatal("cutting the raft log failed", &error);
        }
    }
}

impl<W: LogWriter> LogWorker<W> {
    fn append(&mut self, tasks: &mut Vec<LogTask>) {
        let Some(last) = tasks.last().map(|task| task.ready_no) else {
            return;
        };
        let from = Instant::now();
        if let Err(error) = self.writer.append(tasks) {
            // Never tried again: after a failed fsync nobody knows what the disk holds.
            fatal("writing the raft log failed", &error);
        }
        self.measure(tasks, from);
        // Refused only while stopping, when nobody waits for the answer any more.
        let _ = self.shared.raft.push(Event::Persisted(last));
        for message in tasks.drain(..).flat_map(|task| task.messages) {
            self.shared.send(message);
        }
    }

    /// Takes note of a batch that was appended.
    fn measure(&self, tasks: &[LogTask], from: Instant) {
        let entries = || tasks.iter().flat_map(|task| &task.entries);
        let (metrics, to) = (&self.shared.metrics, Instant::now());
        let took = to - from;
        if tasks.iter().any(|task| task.must_sync) {
            metrics.log_sync.take(took);
        }
        let (Some(first), Some(last)) = (entries().next(), entries().last()) else {
            return;
        };
        let count = entries().count() as u64;
        let bytes = entries().map(|entry| entry.data.len()).sum();
        metrics.log_batches.one();
        metrics.log_entries.add(count);
        metrics.log_bytes.add(bytes as u64);
        for task in tasks {
            if let (Some(first), Some(last)) = (task.entries.first(), task.entries.last()) {
                metrics.passages.logged(first.index.0, last.index.0, from, to);
            }
        }
        tracing::trace!(
            first = first.index.0,
            last = last.index.0,
            bytes,
            ?took,
            "synced the raft log"
        );
        metrics.slow.synced(took, to, count, bytes);
    }
}
