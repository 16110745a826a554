//! The log thread, the checkpoints, and what a power cut leaves.

use lictor_raft::{Input, LogPosition, LogTask, LogWriter as _, StateMark};

use super::{Act, Context, Durable, Inner, Process, Server};
use crate::check::{Breach, Checked};
use crate::request::Body;

/// What the log thread is to do.
pub(super) enum LogWork {
    Append(LogTask),
    Compact(LogPosition),
    Reset(LogPosition),
}

impl Server {
    pub(super) fn log(&mut self, work: LogWork, context: &mut Context<'_>) {
        if let Some(process) = &mut self.process {
            process.log_queue.push(work);
        }
        self.log_if_idle(context);
    }

    fn log_if_idle(&mut self, context: &mut Context<'_>) {
        let sync = if context.now < self.slow_until {
            self.slow_sync
        } else {
            100 + context.random.below(1_500)
        };
        let Some(process) = &mut self.process else { return };
        if process.log_busy.is_empty() && !process.log_queue.is_empty() {
            process.log_busy = std::mem::take(&mut process.log_queue);
            context.later(Inner::LogDone, sync);
        }
    }

    /// The batch that was begun is written and synced. It is reported before its messages are sent.
    pub(super) fn log_done(&mut self, context: &mut Context<'_>) -> Checked {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let work = std::mem::take(&mut process.log_busy);
        let tasks = process.write(work)?;
        if let Some(last) = tasks.last() {
            self.input(Input::Persisted(last.ready_no), context)?;
        }
        for message in tasks.into_iter().flat_map(|task| task.messages) {
            context.acts.push(Act::Send {
                to: message.to.0,
                body: Body::Raft(message),
            });
        }
        self.log_if_idle(context);
        Ok(())
    }

    /// The state becomes durable as it is.
    pub(super) fn checkpoint(&mut self, context: &mut Context<'_>) -> Checked {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let (index, term) = process.state.applied();
        if index <= self.durable.mark.applied.index {
            return Ok(());
        }
        self.durable = Durable {
            state: process.state.clone(),
            mark: StateMark {
                applied: LogPosition { index, term },
                installed: false,
                members: process.members.clone(),
            },
        };
        self.input(Input::Flushed(index), context)
    }

    /// The process dies. With `power`, what its disk had not synced suffers too.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub(crate) fn die(&mut self, power: bool, context: &mut Context<'_>) -> Result<Option<Process>, Breach> {
        self.paused = false;
        self.stash.clear();
        let Some(mut process) = self.process.take() else {
            return Ok(None);
        };
        context.counts.crashes += 1;
        let mut work = std::mem::take(&mut process.log_busy);
        for work in &mut work {
            if let LogWork::Append(task) = work {
                task.must_sync = false;
            }
        }
        // A reset syncs by itself: death comes before it.
        let reset = work.iter().position(|work| matches!(work, LogWork::Reset(_)));
        work.truncate(reset.unwrap_or(work.len()));
        process.write(work)?;
        if power {
            self.disk.crash(context.random.draw());
        }
        Ok(Some(process))
    }
}

impl Process {
    fn write(&mut self, work: Vec<LogWork>) -> Result<Vec<LogTask>, Breach> {
        let failed = |error| Breach(format!("the log failed: {error}"));
        let (mut batch, mut done) = (Vec::new(), Vec::new());
        for work in work {
            let to = match work {
                LogWork::Append(task) => {
                    batch.push(task);
                    continue;
                }
                other => other,
            };
            self.writer.append(&batch).map_err(failed)?;
            done.append(&mut batch);
            match to {
                LogWork::Compact(to) => self.writer.compact(to).map_err(failed)?,
                LogWork::Reset(to) => self.writer.reset(to).map_err(failed)?,
                LogWork::Append(_) => {}
            }
        }
        self.writer.append(&batch).map_err(failed)?;
        done.append(&mut batch);
        Ok(done)
    }

    /// What goes into the log, for the checker.
    pub(super) fn note_entries(&mut self, id: u64, task: &LogTask, context: &mut Context<'_>) -> Checked {
        for entry in &task.entries {
            self.terms.split_off(&entry.index);
            let before = self.terms.last_key_value();
            let before = before.filter(|(index, _)| index.0 + 1 == entry.index.0);
            let before = before.map(|(_, term)| *term);
            let digest = crc32c::crc32c(&entry.data);
            context
                .raft
                .appends(id, (entry.index, entry.term), digest, before)?;
            self.terms.insert(entry.index, entry.term);
        }
        while self.terms.len() > 1000 {
            self.terms.pop_first();
        }
        Ok(())
    }
}
