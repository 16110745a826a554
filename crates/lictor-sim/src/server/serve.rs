//! Requests: to the core, to the leader, to the state; and what a leader does by its clock.

use lictor_proto::v1::{KvTtlOver, LockDelayOver, QueueDrop, ReapTombstones, SessionDestroy};
use lictor_proto::{Command, LogIndex, SessionId};
use lictor_raft::{Input, LogPosition, Proposal, ProposalId, ReadId};
use lictor_session::Renewal;
use lictor_state::Outcome;

use super::{Act, Context, Inner, Server, Then, places};
use crate::check::Checked;
use crate::request::{Body, Caller, Mode, Query, Reply, Request, Row};

/// Expiries proposed in one turn.
const EXPIRIES_MAX: usize = 256;

impl Server {
    pub(crate) fn request(&mut self, caller: Caller, request: Request, context: &mut Context<'_>) {
        let has_lease = self.has_lease(context.now);
        let Some(process) = &mut self.process else {
            return;
        };
        match request {
            Request::Read(query, Mode::Stale) => {
                let rows = process.read(&query);
                self.answer(caller, Reply::Rows(rows), context);
            }
            // A lease answers for a leader alone: the commit index of now covers all that was acknowledged.
            Request::Read(query, Mode::Default) if has_lease => {
                context.counts.lease_reads += 1;
                let index = process.commit;
                self.once_applied(index, Then::Read(caller, query), context);
            }
            Request::Watch(query, known) => self.watch(caller, query, known, context),
            Request::Read(query, mode) => {
                self.next_round(mode == Mode::Default, Then::Read(caller, query), context);
            }
            Request::Write(_) | Request::Renew(_) if !process.serving => {
                if let Request::Write(command) = &request {
                    self.expect(caller, command);
                }
                self.forward(caller, request, context);
            }
            Request::Write(mut command) => {
                self.expect(caller, &command);
                let clock = self.clock(context.now);
                let checked = self
                    .process
                    .as_ref()
                    .map(|process| process.manager.check_command(&mut command, clock).map_err(|_| ()));
                if checked == Some(Ok(())) {
                    self.propose(caller, *command, context);
                } else {
                    let refused = Reply::Done(Box::new(Outcome::Bool(false)));
                    self.answer(caller, refused, context);
                }
            }
            Request::Renew(id) if has_lease => self.renew(caller, id, context),
            // Rule R16: without a lease only after a round.
            Request::Renew(id) => self.next_round(false, Then::Renew(caller, id), context),
        }
    }

    fn propose(&mut self, caller: Caller, command: Command, context: &mut Context<'_>) {
        let Some(process) = &mut self.process else { return };
        let id = ProposalId(process.number());
        process.proposers.insert(id, caller);
        let data = command.to_entry_bytes();
        process.proposals.push(Proposal { id, data });
        self.turn_soon(context);
    }

    /// The raft thread takes all that has come together.
    fn turn_soon(&mut self, context: &mut Context<'_>) {
        let Some(process) = &mut self.process else { return };
        if !process.turn_due {
            process.turn_due = true;
            let after = context.random.below(500);
            context.later(Inner::Turn, after);
        }
    }

    pub(super) fn turn(&mut self, context: &mut Context<'_>) -> Checked {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        process.turn_due = false;
        let proposals = std::mem::take(&mut process.proposals);
        let rounds = std::mem::take(&mut process.next_round);
        for (leased, round) in [false, true].into_iter().zip(rounds) {
            if let (false, Some(process)) = (round.is_empty(), &mut self.process) {
                let id = ReadId(process.number());
                process.rounds.insert(id, round);
                self.input(Input::ReadIndex { id, leased }, context)?;
            }
        }
        if !proposals.is_empty() {
            self.input(Input::Propose(proposals), context)?;
        }
        Ok(())
    }

    fn next_round(&mut self, leased: bool, then: Then, context: &mut Context<'_>) {
        if let Some(process) = &mut self.process {
            process.next_round[usize::from(leased)].push(then);
        }
        self.turn_soon(context);
    }

    /// To the leader; only what a client asked here itself, and never twice.
    fn forward(&mut self, caller: Caller, request: Request, context: &mut Context<'_>) {
        let (id, life) = (self.id, self.life);
        let Some(process) = &mut self.process else { return };
        let leader = process.core.status().leader.filter(|leader| leader.0 != id);
        match (caller, leader) {
            (Caller::Client { .. }, Some(leader)) => {
                let call = process.number();
                process.forwarded.insert(call, caller);
                let body = Body::Call { life, call, request };
                context.acts.push(Act::Send { to: leader.0, body });
            }
            _ => self.answer(caller, Reply::Refused, context),
        }
    }

    /// The leader has answered: the client is told once this server has applied what it did.
    pub(super) fn forwarded_answer(
        &mut self,
        life: u64,
        call: u64,
        reply: Reply,
        applied: LogPosition,
        context: &mut Context<'_>,
    ) -> Checked {
        let Some(process) = self.process.as_mut().filter(|_| life == self.life) else {
            return Ok(());
        };
        if let Some(caller) = process.forwarded.remove(&call) {
            self.input(Input::Committed(applied), context)?;
            self.once_applied(applied.index, Then::Answer(caller, reply), context);
        }
        Ok(())
    }

    pub(super) fn once_applied(&mut self, index: LogIndex, then: Then, context: &mut Context<'_>) {
        if index <= self.applied() {
            self.do_now(then, context);
        } else if let Some(process) = &mut self.process {
            process.waiting.entry(index).or_default().push(then);
        }
    }

    pub(super) fn after_applying(&mut self, context: &mut Context<'_>) {
        let applied = self.applied();
        let Some(process) = &mut self.process else { return };
        let later = process.waiting.split_off(&LogIndex(applied.0 + 1));
        let due = std::mem::replace(&mut process.waiting, later);
        for then in due.into_values().flatten() {
            self.do_now(then, context);
        }
    }

    fn do_now(&mut self, then: Then, context: &mut Context<'_>) {
        match then {
            Then::Answer(caller, reply) => self.answer(caller, reply, context),
            Then::Renew(caller, id) => self.renew(caller, id, context),
            Then::Timers => self.act_on_timers(context),
            Then::Read(caller, query) => {
                let Some(process) = &self.process else { return };
                let rows = Reply::Rows(process.read(&query));
                self.answer(caller, rows, context);
            }
        }
    }

    fn renew(&mut self, caller: Caller, id: SessionId, context: &mut Context<'_>) {
        let clock = self.clock(context.now);
        let Some(process) = &mut self.process else { return };
        let reply = match process.manager.renew(id, clock) {
            Renewal::Renewed => Reply::Renewed(true),
            Renewal::Untimed | Renewal::Ending => Reply::Renewed(false),
            Renewal::NotLeading => Reply::Refused,
        };
        self.answer(caller, reply, context);
    }

    pub(super) fn answer(&mut self, caller: Caller, reply: Reply, context: &mut Context<'_>) {
        if self.park(caller, &reply) {
            return;
        }
        match caller {
            Caller::Nobody => {}
            Caller::Client { client, call } => context.acts.push(Act::Answer { client, call, reply }),
            Caller::Server { server, life, call } => {
                let applied = match (&reply, &self.process) {
                    (Reply::Done(_), Some(process)) => process.position(),
                    _ => LogPosition::ZERO,
                };
                let body = Body::Answer {
                    life,
                    call,
                    reply,
                    applied,
                };
                context.acts.push(Act::Send { to: server, body });
            }
        }
    }

    /// What is due by a leader's clock: under the lease, or after a round where there is none, as for the rest of a term
    /// in which a transfer came to nothing (rule R16).
    pub(super) fn look_at_timers(&mut self, context: &mut Context<'_>) {
        let clock = self.clock(context.now);
        let has_lease = self.has_lease(context.now);
        let Some(process) = self.process.as_ref().filter(|process| process.serving) else {
            return;
        };
        if has_lease {
            self.act_on_timers(context);
        } else if process.manager.next_deadline().is_some_and(|at| at <= clock) {
            self.next_round(false, Then::Timers, context);
        }
    }

    fn act_on_timers(&mut self, context: &mut Context<'_>) {
        let clock = self.clock(context.now);
        let Some(process) = self.process.as_mut().filter(|process| process.serving) else {
            return;
        };
        let expired = process.manager.expired(clock, EXPIRIES_MAX);
        let delays = process.manager.delays_over(clock, EXPIRIES_MAX);
        let ttls = process.manager.kv_ttls_over(clock, EXPIRIES_MAX);
        let places = &process.places;
        let is_waited_for = |index| places::is_waited_for(places, index);
        let lapsed = process.manager.queues_expired(clock, EXPIRIES_MAX, is_waited_for);
        let reap = process.manager.reap_due(clock);
        context.counts.expired += expired.len() as u64;
        let ends = expired.into_iter().map(|id| {
            let id = id.0.to_vec().into();
            Command::SessionDestroy(SessionDestroy { id })
        });
        let over = (!delays.is_empty()).then_some(Command::LockDelayOver(LockDelayOver { delays }));
        let gone = (!ttls.is_empty()).then_some(Command::KvTtlOver(KvTtlOver { ttls }));
        let reap = reap.map(|index| Command::ReapTombstones(ReapTombstones { index: index.0 }));
        let lapsed = (!lapsed.is_empty()).then_some(Command::QueueDrop(QueueDrop { entries: lapsed }));
        for command in ends
            .chain(over)
            .chain(gone)
            .chain(lapsed)
            .chain(reap)
            .collect::<Vec<_>>()
        {
            self.propose(Caller::Nobody, command, context);
        }
    }
}

impl super::Process {
    pub(super) fn read(&self, query: &Query) -> Vec<Row> {
        let row = |row: &lictor_state::KvRow| Row {
            key: bytes::Bytes::copy_from_slice(row.key()),
            value: bytes::Bytes::copy_from_slice(row.value()),
            modify_index: row.modify_index(),
        };
        match query {
            Query::Key(key) => self.state.kv_get(key).map(row).into_iter().collect(),
            Query::Below(prefix) => self.state.kv_list(prefix).map(row).collect(),
        }
    }
}
