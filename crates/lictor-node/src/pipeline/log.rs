//! The log thread: appends what is queued as one batch with one fsync. Owns the log's writer; nothing else syncs it.

use std::sync::Arc;

use lictor_raft::{LogPosition, LogTask, LogWriter};

use super::{Event, Shared, fatal};
use crate::mailbox::{Drained, Mailbox};

/// What the log thread is told.
#[derive(Debug)]
pub(crate) enum LogWork {
    /// To append, and to report once it is durable.
    Append(LogTask),
    /// Entries up to here are not needed any more.
    Compact(LogPosition),
}

pub(crate) struct LogThread<W> {
    pub(crate) shared: Shared,
    pub(crate) inbox: Arc<Mailbox<LogWork>>,
    pub(crate) writer: W,
}

impl<W: LogWriter> LogThread<W> {
    pub(crate) fn run(mut self) {
        let mut work = Vec::new();
        let mut tasks = Vec::new();
        while self.inbox.drain(&mut work, None) == Drained::Items {
            let mut compact_to = None;
            for item in work.drain(..) {
                match item {
                    LogWork::Append(task) => tasks.push(task),
                    LogWork::Compact(to) => compact_to = Some(to),
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

    fn append(&mut self, tasks: &mut Vec<LogTask>) {
        let Some(last) = tasks.last().map(|task| task.ready_no) else {
            return;
        };
        if let Err(error) = self.writer.append(tasks) {
            // Never tried again: after a failed fsync nobody knows what the disk holds.
            fatal("writing the raft log failed", &error);
        }
        tasks.clear();
        // Refused only while stopping, when nobody waits for the answer any more.
        let _ = self.shared.raft.push(Event::Persisted(last));
    }
}
