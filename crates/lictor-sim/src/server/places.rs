//! Clients that stand in line at a server: parked until apply gives them what they wait for or takes their place away, and
//! what the servers tell the leader of them, as the real ones do.

use std::collections::BTreeMap;

use bytes::Bytes;
use lictor_proto::{Command, RaftId};
use lictor_state::{Effect, Explained, Outcome, QueueAnswer, State};

use super::{Act, Context, Inner, Process, Server};
use crate::request::{Body, Caller, Reply};

/// How often a server tells the leader who waits.
const REPORT_MS: u64 = 300;

/// What a client stands in line for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    name: Bytes,
    request: Bytes,
    /// For the lock of a key, and not for a fair lock.
    is_line: bool,
}

/// A place that clients of this server came to.
#[derive(Debug)]
pub(super) struct Place {
    asked: Asked,
    waiting: Vec<Caller>,
    came: u64,
    /// One was told that it has the lock.
    is_answered: bool,
}

impl Asked {
    fn of(command: &Command) -> Option<Self> {
        let (name, request, is_line) = match command {
            Command::QueueEnter(enter) => (&enter.name, &enter.request, false),
            Command::KvLockEnter(enter) => (&enter.lock.as_ref()?.key, &enter.request, true),
            _ => return None,
        };
        Some(Self {
            name: name.clone(),
            request: request.clone(),
            is_line,
        })
    }

    fn stands(&self, state: &State, index: u64) -> bool {
        if self.is_line {
            state.lock_wait(&self.name, index).is_some()
        } else {
            state.queue_entry(&self.name, index).is_some()
        }
    }
}

impl Server {
    /// A client asks for something that it may have to wait for.
    pub(super) fn expect(&mut self, caller: Caller, command: &Command) {
        if let (Some(process), Caller::Client { client, call }, Some(asked)) =
            (&mut self.process, caller, Asked::of(command))
        {
            process.expected.insert((client, call), asked.clone());
            process.asked.insert((client, call), asked);
        }
    }

    /// Keeps the answer of a client that stands in line; whether that is so.
    pub(super) fn park(&mut self, caller: Caller, reply: &Reply) -> bool {
        let (Some(process), Caller::Client { client, call }) = (&mut self.process, caller) else {
            return false;
        };
        let is_there = process.asked.remove(&(client, call)).is_some();
        let Some(asked) = process.expected.remove(&(client, call)) else {
            return false;
        };
        let Reply::Done(outcome) = reply else { return false };
        let (index, waits) = match **outcome {
            Outcome::Queue(QueueAnswer::Waits { index }) => (index, true),
            Outcome::Queue(QueueAnswer::Granted { index }) => (index, false),
            _ => return false,
        };
        let place = process.places.entry(index).or_insert(Place {
            asked,
            waiting: Vec::new(),
            came: 0,
            is_answered: false,
        });
        place.came += 1;
        if is_there && waits {
            place.waiting.push(caller);
        }
        place.is_answered |= is_there && !waits;
        is_there && waits
    }

    /// A client has given up.
    pub(crate) fn hang_up(&mut self, client: usize, call: u64) {
        let Some(process) = &mut self.process else { return };
        process.asked.remove(&(client, call));
        let caller = Caller::Client { client, call };
        for place in process.places.values_mut() {
            place.waiting.retain(|waits| *waits != caller);
        }
    }

    /// Answers those who have what they waited for, or wait in vain.
    pub(super) fn serve_places(&mut self, context: &mut Context<'_>) {
        let Some(process) = &mut self.process else { return };
        let (state, granted) = (&process.state, &process.granted);
        let mut answers = Vec::new();
        process.places.retain(|index, place| {
            let is_known = state.applied().0.0 >= *index;
            if let Some(reply) = place.answer(*index, state, granted).filter(|_| is_known) {
                place.is_answered |= !place.waiting.is_empty();
                let told = place.waiting.drain(..);
                answers.extend(told.map(|caller| (caller, reply.clone())));
            }
            place.asked.stands(state, *index) || !is_known
        });
        for (caller, reply) in answers {
            self.answer(caller, reply, context);
        }
    }

    /// Tells the leader who waits and who left.
    pub(super) fn report(&mut self, context: &mut Context<'_>) {
        let again = self.span(REPORT_MS);
        context.later(Inner::Report, again);
        let me = RaftId(self.id);
        let Some(process) = &self.process else { return };
        let places = || process.places.iter();
        let waiting = places().filter(|(_, place)| !place.waiting.is_empty());
        let left = places().filter(|(_, place)| place.waiting.is_empty() && !place.is_answered);
        let waiting = waiting.map(|(index, _)| *index).collect();
        let left = left.map(|(index, place)| (*index, place.came)).collect();
        match process.core.status().leader {
            Some(leader) if leader == me => self.take_report(me, waiting, left, context),
            Some(leader) => {
                let body = Body::Report { waiting, left };
                context.acts.push(Act::Send { to: leader.0, body });
            }
            None => {}
        }
    }

    pub(super) fn take_report(
        &mut self,
        from: RaftId,
        waiting: Vec<u64>,
        left: Vec<(u64, u64)>,
        context: &Context<'_>,
    ) {
        let clock = self.clock(context.now);
        let Some(process) = self.process.as_mut().filter(|process| process.serving) else {
            return;
        };
        process.manager.queue_waited_for(waiting, clock);
        for (index, callers) in left {
            // Whether that ends it shows in what is due.
            let _ = process.manager.queue_left(from, index, callers, clock);
        }
    }
}

impl Place {
    /// What those who wait are told, if their wait is over.
    fn answer(&self, index: u64, state: &State, granted: &BTreeMap<Bytes, Explained>) -> Option<Reply> {
        let outcome = match (self.asked.is_line, state.queue_entry(&self.asked.name, index)) {
            (false, Some(entry)) if entry.granted_index == 0 => return None,
            (false, Some(_)) => Outcome::Queue(QueueAnswer::Granted { index }),
            (false, None) => Outcome::Queue(QueueAnswer::NoEntry),
            (true, _) => match granted.get(&self.asked.request) {
                Some(granted) => Outcome::Explained(granted.clone()),
                None if self.asked.stands(state, index) => return None,
                // Taken out, or given the lock within a snapshot that took the place of the state.
                None => return Some(Reply::Unknown),
            },
        };
        Some(Reply::Done(Box::new(outcome)))
    }
}

/// Whether a client waits at one of these places.
pub(super) fn is_waited_for(places: &BTreeMap<u64, Place>, index: u64) -> bool {
    places.get(&index).is_some_and(|place| !place.waiting.is_empty())
}

impl Process {
    /// What apply gave to those who stood in line, before the state is shown.
    pub(super) fn note_grants(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::LockGranted { request, granted, .. } = effect {
                self.granted.insert(request.clone(), granted.clone());
            }
        }
    }

    pub(super) fn standing_callers(&self) -> impl Iterator<Item = Caller> {
        self.places
            .values()
            .flat_map(|place| place.waiting.iter().copied())
    }
}
