//! The apply thread, in the order of the real one: apply, fold into the timers, publish, wake, answer.

use lictor_proto::v1::KvLockEnter;
use lictor_proto::{Command, LogIndex, MonoTime};
use lictor_raft::{Committed, ConfEcho, Input};
use lictor_session::Armed;
use lictor_state::{Effect, Effects, Outcome, State, Write, snapshot};

use super::{ApplyWork, Context, Inner, Process, Server};
use crate::check::{Breach, Checked, ensure};
use crate::request::Reply;

/// The state is compared with others' each time its index is a multiple of this.
const COMPARE_EVERY: u64 = 16;

impl Server {
    pub(super) fn apply(&mut self, work: ApplyWork, context: &mut Context<'_>) {
        if let Some(process) = &mut self.process {
            process.apply_queue.push_back(work);
        }
        self.apply_if_idle(context);
    }

    pub(super) fn apply_if_idle(&mut self, context: &mut Context<'_>) {
        let time = match context.random.below(200) {
            0 => context.random.below(300_000),
            _ => 20 + context.random.below(300),
        };
        let Some(process) = &mut self.process else { return };
        if !process.apply_busy && process.installing.is_none() && !process.apply_queue.is_empty() {
            process.apply_busy = true;
            context.later(Inner::ApplyDone, time);
        }
    }

    pub(super) fn apply_done(&mut self, context: &mut Context<'_>) -> Checked {
        let (id, clock) = (self.id, self.clock(context.now));
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        process.apply_busy = false;
        match process.apply_queue.pop_front() {
            None => {}
            Some(ApplyWork::Entries(entries)) => {
                for entry in entries {
                    process.apply(id, entry, context)?;
                }
                self.applied_up_to_here(clock, context)?;
            }
            Some(ApplyWork::Conf(entry)) => {
                let index = entry.index;
                process.stopped_at = Some(entry);
                let conf = Some(ConfEcho::Accept);
                self.input(Input::Applied { index, conf }, context)?;
            }
            Some(ApplyWork::Members { index, members }) => {
                let entry = process.stopped_at.take();
                let entry = entry.filter(|entry| entry.index == index);
                let entry = entry.ok_or_else(|| Breach(format!("members at {index}, where apply is not")))?;
                process.state.apply_empty(entry.index, entry.term);
                process.members = members;
                if let Some(caller) = entry.proposal.and_then(|id| process.proposers.remove(&id)) {
                    let done = Reply::Done(Box::new(Outcome::Bool(true)));
                    process.answers.push((caller, done));
                }
                self.applied_up_to_here(clock, context)?;
            }
            Some(ApplyWork::Install(installing)) => self.fetch(installing, context),
        }
        self.apply_if_idle(context);
        Ok(())
    }

    fn applied_up_to_here(&mut self, clock: MonoTime, context: &mut Context<'_>) -> Checked {
        self.publish(clock, context)?;
        let (index, conf) = (self.applied(), None);
        self.input(Input::Applied { index, conf }, context)
    }

    /// The last entry in the state.
    pub(crate) fn applied(&self) -> LogIndex {
        let process = self.process.as_ref();
        process.map_or(LogIndex(0), |process| process.state.applied().0)
    }

    pub(super) fn publish(&mut self, clock: MonoTime, context: &mut Context<'_>) -> Checked {
        let id = self.id;
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let applied = process.state.applied().0;
        let effects = std::mem::take(&mut process.effects);
        let through = process.state.visible(applied);
        process.note_grants(&effects);
        process.manager.take_in(&effects, through, clock);
        process.indexes_only_grow(id)?;
        if !process.serving && process.lead_from.is_some_and(|no_op| no_op <= applied) {
            process.manager.become_leader(clock, Armed::of(&process.state));
            process.serving = true;
        }
        let answers = std::mem::take(&mut process.answers);
        self.rouse(context)?;
        for (caller, reply) in answers {
            self.answer(caller, reply, context);
        }
        self.after_applying(context);
        self.serve_places(context);
        Ok(())
    }
}

impl Process {
    fn apply(&mut self, id: u64, entry: Committed, context: &mut Context<'_>) -> Checked {
        let Committed {
            index,
            term,
            data,
            proposal,
        } = entry;
        let digest = crc32c::crc32c(&data);
        let mut effects = Effects::default();
        let mut outcome = Outcome::Bool(true);
        let (mut taken, mut kind) = (None, Kind::Other);
        if data.is_empty() {
            self.state.apply_empty(index, term);
        } else {
            let command = Command::from_entry_bytes(data).ok().flatten();
            let command = command.ok_or_else(|| Breach(format!("entry {index} is no command")))?;
            let is_free =
                |state: &State, key: &[u8]| state.kv_get(key).is_none_or(|row| row.session().is_none());
            let was_free = match &command {
                Command::KvLock(lock) | Command::KvLockEnter(KvLockEnter { lock: Some(lock), .. }) => {
                    is_free(&self.state, &lock.key).then(|| lock.key.clone())
                }
                _ => None,
            };
            if matches!(command, Command::KvTtlOver(_)) {
                kind = Kind::TtlOver;
            }
            outcome = self.state.apply(index, term, &command, &mut effects);
            taken = was_free.filter(|key| !is_free(&self.state, key));
        }
        let writes = crc32c::crc32c(format!("{:?}", effects.writes).as_bytes());
        if context.raft.applies(id, index, (term, digest), writes)? {
            context.counts.entries += 1;
            note_effects(&effects.events, taken.as_ref(), context)?;
            note_queues(index.0, &self.state, &effects, kind, context)?;
        }
        if index.0.is_multiple_of(COMPARE_EVERY) {
            context.raft.state(id, index, digest_of(&self.state)?)?;
        }
        self.effects.append(&mut effects.events);
        self.dirty.append(&mut effects.dirty);
        if let Some(caller) = proposal.and_then(|id| self.proposers.remove(&id)) {
            self.answers.push((caller, Reply::Done(Box::new(outcome))));
        }
        Ok(())
    }

    /// What clients see of a server never goes back while it lives.
    fn indexes_only_grow(&mut self, id: u64) -> Checked {
        let now = [
            self.state.applied().0.0,
            self.state.kv_table_index().0,
            self.state.kv_list_index(b"reg/").0,
        ];
        let seen = std::mem::replace(&mut self.seen, now);
        let grown = now.iter().zip(seen).all(|(now, seen)| *now >= seen);
        ensure(grown, || format!("indexes on {id} went back: {seen:?}, {now:?}"))
    }
}

/// What an entry does to sessions and locks, told when it is first applied anywhere.
fn note_effects(effects: &[Effect], taken: Option<&bytes::Bytes>, context: &mut Context<'_>) -> Checked {
    let now = context.now_ms();
    if let Some(key) = taken {
        context.counts.locked += 1;
        context.locks.taken(key, now)?;
        context.queues.taken_past(key)?;
    }
    for effect in effects {
        match effect {
            Effect::SessionGone { id } => context.locks.ended(*id, now)?,
            Effect::LockDelay { key, delay_ms, .. } => context.locks.delayed(key, *delay_ms, now),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a command ends TTLs that are over, and not by another write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    TtlOver,
    Other,
}

/// What an entry does to queues, lines and TTLs, told when it is first applied anywhere.
fn note_queues(
    index: u64,
    state: &State,
    effects: &Effects,
    kind: Kind,
    context: &mut Context<'_>,
) -> Checked {
    let now = context.now_ms();
    for effect in &effects.events {
        match effect {
            Effect::QueueLease(lease) => {
                if !context.queues.stands(&lease.name, lease.index) {
                    let waits = state.lock_wait(&lease.name, lease.index);
                    let session = waits.map_or("", |row| &row.session);
                    context.queues.entered(&lease.name, lease.index, session)?;
                } else if lease.holds {
                    context.counts.fair += 1;
                }
                if lease.holds {
                    context.queues.holds(&lease.name, lease.index)?;
                }
            }
            Effect::LockGranted {
                place: Some(place), ..
            } => {
                let gone = effects.writes.iter().find_map(|write| match write {
                    Write::LockWaitGone(key, gone) if gone == place => Some(key),
                    _ => None,
                });
                let key = gone.ok_or_else(|| Breach(format!("{place} got a lock and stays in line")))?;
                context.counts.in_line += 1;
                context.locks.taken(key, now)?;
                context.queues.granted(key, *place, index)?;
            }
            Effect::QueueGone { index } => context.queues.gone(*index, now)?,
            Effect::KvTtl { key, ttl_ms, .. } => context.queues.ttl_set(key, *ttl_ms, now),
            Effect::KvTtlGone { key, .. } if kind == Kind::TtlOver => {
                context.counts.ttls_over += 1;
                context.queues.ttl_over(key, now)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A digest of all rows and indexes.
pub(crate) fn digest_of(state: &State) -> Result<[u8; 32], Breach> {
    let written = snapshot::write(state, &state.meta(), &mut std::io::sink());
    let summary = written.map_err(|error| Breach(format!("a state cannot be written: {error}")))?;
    Ok(summary.sha256)
}
