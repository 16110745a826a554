//! Outcomes on their way from the leader to the server that was asked.

use std::sync::Arc;

use lictor_proto::ConsulIndex;
use lictor_proto::v1::{
    ApplyFailure, ApplyFailureKind, ExplainedMessage, OutcomeMessage, QueueAnswerKind, QueueAnswerMessage,
    TxnErrorMessage, TxnKvMessage, TxnOutcomeMessage, TxnResultMessage, explained_message, outcome_message,
    txn_result_message,
};

use prost::Message as _;

use super::{ApplyError, Outcome, TxnError, TxnOutcome, TxnResult};
use crate::{Explained, KvParts, KvRow, QueueAnswer, Refused};

impl Outcome {
    /// As a message.
    pub fn to_message(&self) -> OutcomeMessage {
        let kind = match self {
            Self::Bool(done) => outcome_message::Kind::Done(*done),
            Self::Txn(txn) => outcome_message::Kind::Txn(TxnOutcomeMessage {
                results: txn.results.iter().map(result_to_message).collect(),
                errors: txn.errors.iter().map(error_to_message).collect(),
            }),
            Self::Queue(answer) => outcome_message::Kind::Queue(answer_to_message(*answer)),
            Self::Failed(error) => outcome_message::Kind::Failed(failure_to_message(error)),
            Self::Explained(explained) => outcome_message::Kind::Explained(explained_to_message(explained)),
        };
        OutcomeMessage { kind: Some(kind) }
    }

    /// Reads [`Self::to_message`]; `None` for what a later release may say.
    pub fn from_message(message: OutcomeMessage) -> Option<Self> {
        Some(match message.kind? {
            outcome_message::Kind::Done(done) => Self::Bool(done),
            outcome_message::Kind::Txn(txn) => Self::Txn(TxnOutcome {
                results: txn.results.into_iter().map(result).collect::<Option<_>>()?,
                errors: txn.errors.into_iter().map(error).collect::<Option<_>>()?,
            }),
            outcome_message::Kind::Queue(message) => Self::Queue(answer(message)?),
            outcome_message::Kind::Failed(failed) => Self::Failed(failure(failed)),
            outcome_message::Kind::Explained(message) => Self::Explained(explained(message)),
        })
    }
}

impl TxnOutcome {
    /// The bytes that this takes as a message, or a few more; told without making one.
    pub fn message_bytes(&self) -> usize {
        let results: usize = self.results.iter().map(TxnResult::message_bytes).sum();
        let errors = self.errors.iter().map(|error| FIXED_BYTES + error.what.len());
        results + errors.sum::<usize>()
    }
}

impl TxnResult {
    /// As [`TxnOutcome::message_bytes`].
    pub(crate) fn message_bytes(&self) -> usize {
        let own = match self {
            Self::Kv { row, with_value } => {
                let value = if *with_value { row.value().len() } else { 0 };
                row.key().len() + value + row.session().map_or(0, str::len)
            }
            Self::Node(row) => row.encoded_len(),
            Self::Service(row) => row.encoded_len(),
            Self::Check(row) => row.encoded_len(),
        };
        FIXED_BYTES + own
    }
}

/// At least what numbers, tags and lengths take of one row or error.
const FIXED_BYTES: usize = 96;

fn result_to_message(result: &TxnResult) -> TxnResultMessage {
    let row = match result {
        TxnResult::Kv { row, with_value } => txn_result_message::Row::Kv(TxnKvMessage {
            key: row.key().to_vec().into(),
            value: if *with_value { row.value() } else { &[] }.to_vec().into(),
            flags: row.flags(),
            session: row.session().map(str::to_owned),
            create_index: row.create_index(),
            modify_index: row.modify_index(),
            lock_index: row.lock_index(),
            with_value: *with_value,
        }),
        TxnResult::Node(row) => txn_result_message::Row::Node((**row).clone()),
        TxnResult::Service(row) => txn_result_message::Row::Service((**row).clone()),
        TxnResult::Check(row) => txn_result_message::Row::Check((**row).clone()),
    };
    TxnResultMessage { row: Some(row) }
}

fn result(message: TxnResultMessage) -> Option<TxnResult> {
    Some(match message.row? {
        txn_result_message::Row::Kv(kv) => TxnResult::Kv {
            row: KvRow::new(&KvParts {
                key: &kv.key,
                value: &kv.value,
                flags: kv.flags,
                session: kv.session.as_deref(),
                create_index: kv.create_index,
                modify_index: kv.modify_index,
                lock_index: kv.lock_index,
            }),
            with_value: kv.with_value,
        },
        txn_result_message::Row::Node(row) => TxnResult::Node(Arc::new(row)),
        txn_result_message::Row::Service(row) => TxnResult::Service(Arc::new(row)),
        txn_result_message::Row::Check(row) => TxnResult::Check(Arc::new(row)),
    })
}

fn error_to_message(error: &TxnError) -> TxnErrorMessage {
    TxnErrorMessage {
        op_index: error.op_index as u64,
        what: error.what.clone(),
    }
}

fn error(message: TxnErrorMessage) -> Option<TxnError> {
    Some(TxnError {
        op_index: usize::try_from(message.op_index).ok()?,
        what: message.what,
    })
}

fn answer_to_message(answer: QueueAnswer) -> QueueAnswerMessage {
    let (kind, index) = match answer {
        QueueAnswer::Granted { index } => (QueueAnswerKind::Granted, index),
        QueueAnswer::Held { index } => (QueueAnswerKind::Held, index),
        QueueAnswer::Waits { index } => (QueueAnswerKind::Waits, index),
        QueueAnswer::Busy => (QueueAnswerKind::Busy, 0),
        QueueAnswer::Done => (QueueAnswerKind::Done, 0),
        QueueAnswer::NoEntry => (QueueAnswerKind::NoEntry, 0),
        QueueAnswer::NoName => (QueueAnswerKind::NoName, 0),
        QueueAnswer::ValueTaken => (QueueAnswerKind::ValueTaken, 0),
    };
    let kind = kind.into();
    QueueAnswerMessage { kind, index }
}

fn answer(message: QueueAnswerMessage) -> Option<QueueAnswer> {
    let index = message.index;
    Some(match message.kind() {
        QueueAnswerKind::Granted => QueueAnswer::Granted { index },
        QueueAnswerKind::Held => QueueAnswer::Held { index },
        QueueAnswerKind::Waits => QueueAnswer::Waits { index },
        QueueAnswerKind::Busy => QueueAnswer::Busy,
        QueueAnswerKind::Done => QueueAnswer::Done,
        QueueAnswerKind::NoEntry => QueueAnswer::NoEntry,
        QueueAnswerKind::NoName => QueueAnswer::NoName,
        QueueAnswerKind::ValueTaken => QueueAnswer::ValueTaken,
        QueueAnswerKind::Unspecified => return None,
    })
}

fn failure_to_message(error: &ApplyError) -> ApplyFailure {
    let (kind, text) = match error {
        ApplyError::MissingSession => (ApplyFailureKind::MissingSession, String::new()),
        ApplyError::InvalidSession(session) => (ApplyFailureKind::InvalidSession, session.clone()),
        ApplyError::MissingNode => (ApplyFailureKind::MissingNode, String::new()),
        ApplyError::MissingCheck(check) => (ApplyFailureKind::MissingCheck, check.clone()),
        ApplyError::CriticalCheck(check) => (ApplyFailureKind::CriticalCheck, check.clone()),
        ApplyError::Other(text) => (ApplyFailureKind::Other, text.clone()),
    };
    ApplyFailure {
        kind: kind.into(),
        text,
    }
}

fn failure(message: ApplyFailure) -> ApplyError {
    match message.kind() {
        ApplyFailureKind::MissingSession => ApplyError::MissingSession,
        ApplyFailureKind::InvalidSession => ApplyError::InvalidSession(message.text),
        ApplyFailureKind::MissingNode => ApplyError::MissingNode,
        ApplyFailureKind::MissingCheck => ApplyError::MissingCheck(message.text),
        ApplyFailureKind::CriticalCheck => ApplyError::CriticalCheck(message.text),
        ApplyFailureKind::Other => ApplyError::Other(message.text),
    }
}

fn explained_to_message(explained: &Explained) -> ExplainedMessage {
    let refused = explained.refused.as_ref().map(|refused| match refused {
        Refused::Held { session } => explained_message::Refused::Held(session.clone()),
        Refused::NotHeld => explained_message::Refused::NotHeld(true),
        Refused::LockDelay { remaining_ms } => explained_message::Refused::LockDelayMs(*remaining_ms),
        Refused::Index { modify_index } => explained_message::Refused::Index(*modify_index),
        Refused::Queued { waiting } => explained_message::Refused::Queued(*waiting),
    });
    ExplainedMessage {
        done: explained.done,
        modify_index: explained.modify_index.map(|index| index.0),
        lock_index: explained.lock_index,
        refused,
    }
}

fn explained(message: ExplainedMessage) -> Explained {
    let refused = message.refused.map(|refused| match refused {
        explained_message::Refused::Held(session) => Refused::Held { session },
        explained_message::Refused::NotHeld(_) => Refused::NotHeld,
        explained_message::Refused::LockDelayMs(remaining_ms) => Refused::LockDelay { remaining_ms },
        explained_message::Refused::Index(modify_index) => Refused::Index { modify_index },
        explained_message::Refused::Queued(waiting) => Refused::Queued { waiting },
    });
    Explained {
        done: message.done,
        modify_index: message.modify_index.map(ConsulIndex),
        lock_index: message.lock_index,
        refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(outcome: &Outcome) -> Outcome {
        Outcome::from_message(outcome.to_message()).expect("it was written by this release")
    }

    #[test]
    fn a_transaction_s_rows_come_back_as_they_were() {
        let row = KvRow::new(&KvParts {
            key: b"k",
            value: b"v",
            flags: 7,
            session: Some("S"),
            create_index: 1,
            modify_index: 2,
            lock_index: 3,
        });
        let outcome = Outcome::Txn(TxnOutcome {
            results: vec![TxnResult::Kv {
                row,
                with_value: true,
            }],
            errors: vec![TxnError {
                op_index: 5,
                what: "why".to_owned(),
            }],
        });

        assert_eq!(format!("{:?}", again(&outcome)), format!("{outcome:?}"));
    }

    #[test]
    fn a_transaction_takes_no_more_bytes_than_it_says() {
        let row = |key: &[u8], value: &[u8]| {
            KvRow::new(&KvParts {
                key,
                value,
                flags: u64::MAX,
                session: Some(&"s".repeat(36)),
                create_index: u64::MAX,
                modify_index: u64::MAX,
                lock_index: u64::MAX,
            })
        };
        let results = [(0, 0), (1, 1), (4000, 0), (10, 1 << 20)].map(|(key, value)| TxnResult::Kv {
            row: row(&vec![b'k'; key], &vec![b'v'; value]),
            with_value: true,
        });
        let txn = TxnOutcome {
            results: results.into(),
            errors: vec![TxnError {
                op_index: 127,
                what: "why".to_owned(),
            }],
        };
        let told = txn.message_bytes();

        let takes = Outcome::Txn(txn).to_message().encoded_len();

        assert!(takes <= told, "{takes} {told}");
        assert!(told < takes + 1000, "{takes} {told}");
    }

    #[test]
    fn every_answer_of_a_queue_comes_back_as_it_was() {
        let answers = [
            QueueAnswer::Granted { index: 7 },
            QueueAnswer::Held { index: 8 },
            QueueAnswer::Waits { index: 9 },
            QueueAnswer::Busy,
            QueueAnswer::Done,
            QueueAnswer::NoEntry,
            QueueAnswer::NoName,
            QueueAnswer::ValueTaken,
        ];

        for answer in answers {
            assert!(matches!(again(&Outcome::Queue(answer)), Outcome::Queue(back) if back == answer));
        }
    }

    #[test]
    fn explanations_come_back_as_they_were() {
        let done = Explained {
            done: true,
            modify_index: Some(ConsulIndex(7)),
            lock_index: Some(2),
            refused: None,
        };
        let reasons = [
            Refused::Held {
                session: "S".to_owned(),
            },
            Refused::NotHeld,
            Refused::LockDelay { remaining_ms: 12_400 },
            Refused::Index { modify_index: 0 },
            Refused::Queued { waiting: 3 },
        ];
        let refused = reasons.into_iter().map(|reason| Explained::refused(Some(reason)));

        for explained in refused.chain([done, Explained::refused(None)]) {
            let Outcome::Explained(back) = again(&Outcome::Explained(explained.clone())) else {
                panic!("{explained:?} became something else");
            };
            assert_eq!(back, explained);
        }
    }

    #[test]
    fn every_failure_keeps_its_text() {
        let errors = [
            ApplyError::MissingSession,
            ApplyError::InvalidSession("s".to_owned()),
            ApplyError::MissingNode,
            ApplyError::MissingCheck("c".to_owned()),
            ApplyError::CriticalCheck("c".to_owned()),
            ApplyError::Other("o".to_owned()),
        ];

        for error in errors {
            let Outcome::Failed(back) = again(&Outcome::Failed(error.clone())) else {
                panic!("{error} became something else");
            };
            assert_eq!(back, error);
        }
    }
}
