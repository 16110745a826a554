//! The log stage: appends what is queued as one batch with one fsync. Owns the log's writer; nothing else syncs it.

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
        if let Err(error) = self.writer.append(tasks) {
            // Never tried again: after a failed fsync nobody knows what the disk holds.
            fatal("writing the raft log failed", &error);
        }
        // Refused only while stopping, when nobody waits for the answer any more.
        let _ = self.shared.raft.push(Event::Persisted(last));
        for message in tasks.drain(..).flat_map(|task| task.messages) {
            self.shared.send(message);
        }
    }
}
