//! Writes and renewals that reach a server which does not lead go to the one that does.
//!
//! What was sent and not answered is never sent again: its outcome is unknown. The answer carries how far the leader
//! had applied, and the server that was asked waits until it has applied as much, so that whoever writes through it
//! reads its own write there.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::{CallError, Lost};
use lictor_proto::v1::{ProposeReply, Refusal, RefusalKind, RenewOutcome, RenewReply, propose_reply};
use lictor_proto::{Command, LogIndex, RaftId, SessionId, Term};
use lictor_raft::LogPosition;
use lictor_state::{Outcome, TxnError, TxnOutcome};
use lictor_telemetry::journey;
use prost::Message as _;

use super::kind;
use crate::pending::Telling;
use crate::{Node, ProposeError};

/// How long an answer of a leader may come after another has taken over, if nothing else is heard of it.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// The same if it lives: it learns from the new leader what became of its last entries, or gives up before this.
const LAST_WORDS_ALIVE: Duration = Duration::from_secs(3);
/// A server that was heard of within this time lives. Above the time between two signs of life.
const ALIVE_WITHIN: Duration = Duration::from_millis(700);
/// What the results of a transaction may take on their way from the leader. Below the bound of a call's answer.
const RESULTS_MAX_BYTES: usize = 15 * 1024 * 1024;

/// What became of something that was sent to the leader.
pub(crate) enum Forwarded<T> {
    /// It has an answer.
    Answered(T),
    /// It had no effect there and never will: another server may be asked.
    NotTaken,
}

impl Node {
    /// Sends a command to the leader.
    pub(crate) async fn forward(
        &self,
        leader: RaftId,
        entry: Bytes,
        telling: Telling,
        deadline: Instant,
    ) -> Forwarded<Result<Outcome, ProposeError>> {
        let Some(net) = self.shared().net.get() else {
            return Forwarded::NotTaken;
        };
        let kind = match telling {
            Telling::Whether => kind::PROPOSE,
            Telling::Why => kind::PROPOSE_EXPLAINED,
        };
        let call = net.peers.call(leader, kind, entry, deadline);
        let from = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            // A leader that was deposed, or stands still, may never answer; whoever asked is better told so now.
            () = self.replaced(leader) => Err(CallError::OutcomeUnknown(Lost::Deadline)),
        };
        journey::add(journey::Stage::Forward, from.elapsed());
        let body = match answer {
            Ok(body) => body,
            Err(CallError::NotSent(_)) => return Forwarded::NotTaken,
            Err(CallError::OutcomeUnknown(_)) => {
                return Forwarded::Answered(Err(ProposeError::OutcomeUnknown));
            }
        };
        match read_reply(body) {
            Ok((applied, outcome)) => {
                // Where it cannot be waited for the write stands all the same.
                let _ = self.caught_up_with(applied, deadline).await;
                Forwarded::Answered(Ok(outcome))
            }
            Err(ProposeError::NoLeader) => Forwarded::NotTaken,
            Err(error) => Forwarded::Answered(Err(error)),
        }
    }

    /// Resolves when `leader` leads no more, as far as this server knows, and has had the time to say what it did.
    pub(super) async fn replaced(&self, leader: RaftId) {
        self.leader_changed(Some(leader)).await;
        let since = Instant::now();
        loop {
            tokio::time::sleep(LAST_WORDS).await;
            let health = self.peers().and_then(|peers| peers.health_of(leader));
            let heard = health.and_then(|health| health.last_heard);
            let lives = heard.is_some_and(|silence| silence < ALIVE_WITHIN);
            if !lives || since.elapsed() > LAST_WORDS_ALIVE {
                return;
            }
        }
    }

    /// Answers [`Self::forward`] of another server.
    pub(crate) async fn take_forwarded(&self, entry: Bytes, telling: Telling) -> Bytes {
        let Ok(Some(command)) = Command::from_entry_bytes(entry) else {
            return refusal(RefusalKind::Malformed, "no command that this release knows");
        };
        // Before anything is written. What rows there are by then, and what the transaction writes itself, shows when
        // it was applied.
        if let Command::Txn(txn) = &command
            && self.shared().progress.is_serving()
            && let Some(op_index) = self.view().txn_reads_over(txn, RESULTS_MAX_BYTES)
        {
            return self.written_reply(Ok(Outcome::Txn(reads_too_much(op_index))));
        }
        self.written_reply(self.propose_here(command, telling).await)
    }

    /// Proposes for a client agent what it registers, whoever leads.
    pub(crate) async fn take_for_agent(&self, entry: Bytes) -> Bytes {
        match Command::from_entry_bytes(entry) {
            Ok(Some(command @ (Command::Register(_) | Command::Deregister(_)))) => {
                self.written_reply(self.propose(command).await)
            }
            _ => refusal(RefusalKind::Malformed, "not for an agent to propose"),
        }
    }

    fn written_reply(&self, result: Result<Outcome, ProposeError>) -> Bytes {
        match result {
            Ok(Outcome::Txn(txn)) if txn.message_bytes() > RESULTS_MAX_BYTES => {
                reply(to_refusal(&ProposeError::ResultsTooLarge(txn.message_bytes())))
            }
            Ok(outcome) => {
                let (index, term) = self.view().applied();
                ProposeReply {
                    applied: index.0,
                    applied_term: term.0,
                    result: Some(propose_reply::Result::Outcome(outcome.to_message())),
                }
                .encode_to_vec()
                .into()
            }
            Err(error) => reply(to_refusal(&error)),
        }
    }

    /// Sends a renewal to the leader. `Some(true)`: renewed; `Some(false)`: no such session.
    pub(crate) async fn forward_renewal(
        &self,
        leader: RaftId,
        id: SessionId,
        deadline: Instant,
    ) -> Forwarded<Result<bool, ProposeError>> {
        let Some(net) = self.shared().net.get() else {
            return Forwarded::NotTaken;
        };
        let body = Bytes::copy_from_slice(&id.0);
        // Renewing twice does no harm: what may have been lost is asked again.
        let call = net.peers.call(leader, kind::RENEW, body, deadline);
        let answer = tokio::select! {
            biased;
            answer = call => answer.ok(),
            () = self.replaced(leader) => None,
        };
        let Some(body) = answer else {
            return Forwarded::NotTaken;
        };
        let Ok(reply) = RenewReply::decode(body) else {
            return Forwarded::NotTaken;
        };
        let renewed = match reply.outcome() {
            RenewOutcome::Renewed => true,
            RenewOutcome::Unknown => false,
            RenewOutcome::NotLeader | RenewOutcome::Unspecified => {
                let refusal = reply.refusal.map(to_error);
                return refusal.map_or(Forwarded::NotTaken, |why| Forwarded::Answered(Err(why)));
            }
        };
        let applied = position(reply.applied, reply.applied_term);
        let shows = self.caught_up_with(applied, deadline).await;
        Forwarded::Answered(if shows {
            Ok(renewed)
        } else {
            Err(ProposeError::NoLeader)
        })
    }

    /// Answers [`Self::forward_renewal`] of another server.
    pub(crate) async fn take_forwarded_renewal(&self, id: &[u8]) -> Bytes {
        let renewed = match SessionId::from_slice(id) {
            None => Ok(false),
            Some(id) => self.renew_here(id).await,
        };
        let (outcome, refusal) = match renewed {
            Ok(true) => (RenewOutcome::Renewed, None),
            Ok(false) => (RenewOutcome::Unknown, None),
            Err(ProposeError::NoLeader) => (RenewOutcome::NotLeader, None),
            Err(why) => (RenewOutcome::NotLeader, Some(to_refusal(&why))),
        };
        let (index, term) = self.view().applied();
        RenewReply {
            outcome: outcome.into(),
            applied: index.0,
            applied_term: term.0,
            refusal,
        }
        .encode_to_vec()
        .into()
    }
}

/// What a server said to a command: how far it had applied the log, and the outcome. A refusal that had no effect and
/// never will is [`ProposeError::NoLeader`].
pub(super) fn read_reply(body: Bytes) -> Result<(LogPosition, Outcome), ProposeError> {
    let reply = ProposeReply::decode(body).map_err(|_| ProposeError::OutcomeUnknown)?;
    match reply.result {
        Some(propose_reply::Result::Outcome(outcome)) => Outcome::from_message(outcome)
            .map(|outcome| (position(reply.applied, reply.applied_term), outcome))
            .ok_or(ProposeError::OutcomeUnknown),
        Some(propose_reply::Result::Refusal(refusal)) => Err(to_error(refusal)),
        None => Err(ProposeError::OutcomeUnknown),
    }
}

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition {
        index: LogIndex(index),
        term: Term(term),
    }
}

/// Nothing is done of a transaction whose results could not be told.
fn reads_too_much(op_index: usize) -> TxnOutcome {
    let what = format!(
        "transaction reads too much for one that writes and was sent to a server which does not lead: its results may \
         have {RESULTS_MAX_BYTES} bytes. Send it to the leader"
    );
    TxnOutcome {
        results: Vec::new(),
        errors: vec![TxnError { op_index, what }],
    }
}

fn refusal(kind: RefusalKind, text: &str) -> Bytes {
    reply(refusal_of(kind, text, Vec::new()))
}

fn refusal_of(kind: RefusalKind, text: &str, numbers: Vec<u64>) -> Refusal {
    Refusal {
        kind: kind.into(),
        text: text.to_owned(),
        numbers,
    }
}

fn reply(refusal: Refusal) -> Bytes {
    ProposeReply {
        applied: 0,
        applied_term: 0,
        result: Some(propose_reply::Result::Refusal(refusal)),
    }
    .encode_to_vec()
    .into()
}

fn to_refusal(error: &ProposeError) -> Refusal {
    let (kind, text, numbers) = match error {
        // One that stops does not lead for long; members are not changed by commands.
        ProposeError::NoLeader | ProposeError::Stopping | ProposeError::ChangePending => {
            (RefusalKind::NotLeader, "", Vec::new())
        }
        ProposeError::Overloaded => (RefusalKind::Overloaded, "", Vec::new()),
        ProposeError::OutcomeUnknown => (RefusalKind::OutcomeUnknown, "", Vec::new()),
        ProposeError::Storage(text) => (RefusalKind::Storage, text.as_str(), Vec::new()),
        ProposeError::Refused(text) => (RefusalKind::Refused, text.as_str(), Vec::new()),
        ProposeError::ResultsTooLarge(bytes) => (RefusalKind::ResultsTooLarge, "", vec![*bytes as u64]),
        ProposeError::TooLarge(bytes) => (RefusalKind::TooLarge, "", vec![*bytes as u64]),
        ProposeError::LockDelay(operations) => {
            let numbers = operations.iter().map(|&at| at as u64).collect();
            (RefusalKind::LockDelay, "", numbers)
        }
    };
    refusal_of(kind, text, numbers)
}

fn to_error(refusal: Refusal) -> ProposeError {
    let mut numbers = refusal
        .numbers
        .iter()
        .map(|&number| usize::try_from(number).unwrap_or(usize::MAX));
    match refusal.kind() {
        RefusalKind::NotLeader | RefusalKind::Stopping => ProposeError::NoLeader,
        RefusalKind::Overloaded => ProposeError::Overloaded,
        RefusalKind::Storage => ProposeError::Storage(refusal.text),
        RefusalKind::Refused => ProposeError::Refused(refusal.text),
        RefusalKind::ResultsTooLarge => ProposeError::ResultsTooLarge(numbers.next().unwrap_or_default()),
        RefusalKind::TooLarge => ProposeError::TooLarge(numbers.next().unwrap_or_default()),
        RefusalKind::LockDelay => ProposeError::LockDelay(numbers.collect()),
        RefusalKind::Malformed => ProposeError::Storage(format!("the leader refused: {}", refusal.text)),
        RefusalKind::OutcomeUnknown | RefusalKind::Unspecified => ProposeError::OutcomeUnknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_within_their_bound_fit_into_an_answer() {
        let limits = lictor_peer::Limits::default();

        assert!(RESULTS_MAX_BYTES + 1024 < limits.call_max_bytes);
    }

    #[test]
    fn every_refusal_comes_back_as_it_was() {
        let errors = [
            ProposeError::NoLeader,
            ProposeError::Overloaded,
            ProposeError::OutcomeUnknown,
            ProposeError::Storage("full".to_owned()),
            ProposeError::TooLarge(7),
            ProposeError::ResultsTooLarge(8),
            ProposeError::Refused("why".to_owned()),
            ProposeError::LockDelay(vec![1, 4]),
        ];
        for error in errors {
            let reply = ProposeReply::decode(reply(to_refusal(&error))).unwrap();
            let Some(propose_reply::Result::Refusal(refusal)) = reply.result else {
                panic!("no refusal");
            };
            assert_eq!(format!("{:?}", to_error(refusal)), format!("{error:?}"));
        }
    }
}
