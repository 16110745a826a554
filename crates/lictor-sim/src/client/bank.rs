//! Transfers between accounts in transactions: whoever looks sees the same total.

use bytes::Bytes;
use lictor_proto::Command;
use lictor_proto::v1::{KvTxnOp, KvVerb, Txn, TxnOp, txn_op};

use super::Surroundings;
use crate::check::{Breach, Checked, ensure};
use crate::request::{Mode, Query, Reply, Request, Row};

const ACCOUNTS: u64 = 4;
const EACH: u64 = 100;
/// What all accounts hold together.
pub(crate) const TOTAL: u64 = ACCOUNTS * EACH;

/// A client that moves money.
#[derive(Debug, Default)]
pub(crate) struct Bank {
    rows: Option<Vec<Row>>,
}

impl Bank {
    pub(super) fn ask(&mut self, around: &mut Surroundings<'_>) -> Request {
        match self.rows.take() {
            None => {
                let modes = [Mode::Default, Mode::Consistent, Mode::Stale];
                let mode = modes[usize::try_from(around.random.below(3)).unwrap_or(0)];
                Request::Read(Query::Below(Bytes::from_static(b"bank/")), mode)
            }
            Some(rows) if rows.is_empty() => open_accounts(),
            Some(rows) => transfer(&rows, around),
        }
    }

    pub(super) fn hear(&mut self, reply: &Reply) -> Checked {
        if let Reply::Rows(rows) = reply {
            check_total(rows)?;
            self.rows = Some(rows.clone());
        }
        Ok(())
    }
}

/// All accounts or none, and what they hold.
pub(crate) fn check_total(rows: &[Row]) -> Checked {
    let mut total = 0;
    for row in rows {
        let text = std::str::from_utf8(&row.value).unwrap_or_default();
        let balance: u64 = text
            .parse()
            .map_err(|_| Breach(format!("{:?} holds {text:?}", row.key)))?;
        total += balance;
    }
    ensure(rows.is_empty() || total == TOTAL, || {
        format!("the accounts hold {total}, not {TOTAL}")
    })
}

fn open_accounts() -> Request {
    let mut ops = Vec::new();
    for number in 0..ACCOUNTS {
        let key = Bytes::from(format!("bank/{number}"));
        ops.push(op(KvVerb::CheckNotExists, &key, 0, 0));
        ops.push(op(KvVerb::Set, &key, EACH, 0));
    }
    txn(ops)
}

fn transfer(rows: &[Row], around: &mut Surroundings<'_>) -> Request {
    let mut pick = || &rows[usize::try_from(around.random.below(rows.len() as u64)).unwrap_or(0)];
    let (from, to) = (pick(), pick());
    let balance = |row: &Row| -> u64 {
        let text = std::str::from_utf8(&row.value).unwrap_or_default();
        text.parse().unwrap_or(0)
    };
    let amount = 1.min(balance(from));
    let mut ops = vec![
        op(KvVerb::CheckIndex, &from.key, 0, from.modify_index),
        op(KvVerb::CheckIndex, &to.key, 0, to.modify_index),
    ];
    if from.key != to.key {
        ops.push(op(KvVerb::Set, &from.key, balance(from) - amount, 0));
        ops.push(op(KvVerb::Set, &to.key, balance(to) + amount, 0));
    }
    txn(ops)
}

fn op(verb: KvVerb, key: &Bytes, value: u64, index: u64) -> TxnOp {
    TxnOp {
        op: Some(txn_op::Op::Kv(KvTxnOp {
            verb: verb.into(),
            key: key.clone(),
            value: value.to_string().into(),
            index,
            ..KvTxnOp::default()
        })),
    }
}

fn txn(ops: Vec<TxnOp>) -> Request {
    let checked_at = 0;
    Request::Write(Box::new(Command::Txn(Txn { ops, checked_at })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_total_is_seen() {
        let rows = |last: &'static str| {
            let row = |number: usize, value| Row {
                key: format!("bank/{number}").into(),
                value: Bytes::from_static(value),
                modify_index: 1,
            };
            vec![
                row(0, b"100"),
                row(1, b"101"),
                row(2, b"99"),
                row(3, last.as_bytes()),
            ]
        };

        assert_eq!(check_total(&[]), Ok(()));
        assert_eq!(check_total(&rows("100")), Ok(()));
        assert!(check_total(&rows("99")).is_err());
        assert!(check_total(&rows("x")).is_err());
    }
}
