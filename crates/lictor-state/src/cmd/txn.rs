//! Transactions: all operations at one index, or none.

use std::sync::Arc;

use lictor_proto::limits::{TXN_RESULT_BYTES_MAX, TXN_RESULT_ROWS_MAX};
use lictor_proto::v1::txn_op::Op;
use lictor_proto::v1::{CatalogVerb, CheckTxnOp, KvTxnOp, KvVerb, NodeTxnOp, ServiceTxnOp, Txn, TxnOp};

use super::Apply;
use crate::quote::quote;
use crate::row::{KvParts, KvRow};
use crate::{ApplyError, Outcome, State, TxnError, TxnOutcome, TxnResult};

/// Verbs are checked before a transaction is proposed; this is for one that slipped through.
const UNKNOWN_KV: &str = "unknown KV operation: ";

/// An operation's rows, or the text that says why it failed.
type Done = Result<Vec<TxnResult>, String>;

/// Evaluates a transaction that writes nothing.
pub(crate) fn txn_read(state: &State, txn: &Txn) -> TxnOutcome {
    collect(&txn.ops, |op| {
        read(state, op)
            .unwrap_or_else(|| Err("this operation writes, in a transaction that reads".to_owned()))
    })
}

/// The operation with which the rows that a transaction would read now take more than `max_bytes` as a message.
pub(crate) fn txn_reads_over(state: &State, txn: &Txn, max_bytes: usize) -> Option<usize> {
    let mut bytes = 0;
    txn.ops.iter().position(|op| {
        let rows = op.op.as_ref().and_then(|op| read(state, op)?.ok());
        rows.into_iter().flatten().any(|row| {
            bytes += row.message_bytes();
            bytes > max_bytes
        })
    })
}

/// Every operation is tried, later ones after a failure too, so that all errors are told at once. Only results beyond
/// their bounds end it, so that a small request cannot ask for many times the whole store.
fn collect(ops: &[TxnOp], mut run: impl FnMut(&Op) -> Done) -> TxnOutcome {
    let mut outcome = TxnOutcome::default();
    let mut size = Size::default();
    for (op_index, op) in ops.iter().enumerate() {
        match op.op.as_ref().map_or(Ok(Vec::new()), &mut run) {
            Ok(rows) => {
                if !rows.iter().all(|row| size.add(row)) {
                    return too_large(op_index);
                }
                outcome.results.extend(rows);
            }
            Err(what) => outcome.errors.push(TxnError { op_index, what }),
        }
    }
    if !outcome.errors.is_empty() {
        outcome.results.clear();
    }
    outcome
}

/// How much a transaction answers with.
#[derive(Debug, Default)]
struct Size {
    rows: usize,
    bytes: usize,
}

impl Size {
    /// Counts a row; whether it is within the bounds. Rows of the catalog count as rows only: each operation shows one.
    fn add(&mut self, row: &TxnResult) -> bool {
        self.rows += 1;
        if let TxnResult::Kv { row, with_value } = row {
            self.bytes += row.key().len();
            if *with_value {
                self.bytes += row.value().len();
            }
        }
        self.rows <= TXN_RESULT_ROWS_MAX && self.bytes <= TXN_RESULT_BYTES_MAX
    }
}

fn too_large(op_index: usize) -> TxnOutcome {
    let what = format!(
        "transaction reads too much: its results may have {TXN_RESULT_ROWS_MAX} rows and {TXN_RESULT_BYTES_MAX} bytes \
         of keys and values"
    );
    TxnOutcome {
        results: Vec::new(),
        errors: vec![TxnError { op_index, what }],
    }
}

/// Carries out an operation that only reads; `None` for one that writes.
fn read(state: &State, op: &Op) -> Option<Done> {
    match op {
        Op::Kv(op) => read_kv(state, op),
        Op::Node(op) if op.verb() == CatalogVerb::Get => Some(read_node(state, op)),
        Op::Service(op) if op.verb() == CatalogVerb::Get => Some(read_service(state, op)),
        Op::Check(op) if op.verb() == CatalogVerb::Get => Some(read_check(state, op)),
        Op::Node(_) | Op::Service(_) | Op::Check(_) => None,
    }
}

fn read_kv(state: &State, op: &KvTxnOp) -> Option<Done> {
    if writes(op) {
        return None;
    }
    let key = || quote(&op.key);
    let row = state.kv_get(&op.key);
    Some(match op.verb() {
        KvVerb::Get => match row {
            Some(row) => Ok(shown(row, true)),
            None => Err(format!("key {} doesn't exist", key())),
        },
        KvVerb::GetOrEmpty => match row {
            Some(row) => Ok(shown(row, true)),
            None => Ok(shown(&echo(op), false)),
        },
        KvVerb::GetTree => {
            let rows = state.kv_list(&op.key);
            // One more than may be shown tells that there are too many.
            Ok(rows
                .take(TXN_RESULT_ROWS_MAX + 1)
                .map(|row| TxnResult::Kv {
                    row: row.clone(),
                    with_value: true,
                })
                .collect())
        }
        KvVerb::CheckIndex => match row {
            None => Err(format!("failed to check index, key {} doesn't exist", key())),
            Some(row) if row.modify_index() != op.index => {
                let (key, found, wanted) = (key(), row.modify_index(), op.index);
                Err(format!(
                    "failed index check for key {key}, current modify index {found} != {wanted}"
                ))
            }
            Some(row) => Ok(shown(row, false)),
        },
        KvVerb::CheckSession => match row {
            None => Err(format!("failed to check session, key {} doesn't exist", key())),
            Some(row) if row.session().unwrap_or_default() != op.session => {
                let (key, found) = (key(), quote(row.session().unwrap_or_default().as_bytes()));
                let wanted = quote(op.session.as_bytes());
                Err(format!(
                    "failed session check for key {key}, current session {found} != {wanted}"
                ))
            }
            Some(row) => Ok(shown(row, false)),
        },
        KvVerb::CheckNotExists => match row {
            Some(_) => Err(format!("key {} exists", key())),
            None => Ok(Vec::new()),
        },
        _ => Err(UNKNOWN_KV.to_owned()),
    })
}

fn writes(op: &KvTxnOp) -> bool {
    use KvVerb::{Cas, Delete, DeleteCas, DeleteTree, Lock, Set, Unlock};
    matches!(
        op.verb(),
        Set | Cas | Lock | Unlock | Delete | DeleteTree | DeleteCas
    )
}

fn shown(row: &KvRow, with_value: bool) -> Vec<TxnResult> {
    vec![TxnResult::Kv {
        row: row.clone(),
        with_value,
    }]
}

/// What get-or-empty shows of a missing key: the operation as a row.
fn echo(op: &KvTxnOp) -> KvRow {
    KvRow::new(&KvParts {
        key: &op.key,
        value: &[],
        flags: op.flags,
        session: Some(&*op.session).filter(|session| !session.is_empty()),
        create_index: 0,
        modify_index: op.index,
        lock_index: 0,
    })
}

/// A node is asked for by its id if one is given, else by its name.
fn read_node(state: &State, op: &NodeTxnOp) -> Done {
    let wanted = op.node.clone().unwrap_or_default();
    let found = if wanted.id.is_empty() {
        state.node(&wanted.node)
    } else {
        state.node_by_id(&wanted.id)
    };
    match found {
        Some(row) => Ok(vec![TxnResult::Node(Arc::clone(row))]),
        None => Err(format!("node {} doesn't exist", quote(wanted.node.as_bytes()))),
    }
}

fn read_service(state: &State, op: &ServiceTxnOp) -> Done {
    let wanted = op.service.clone().unwrap_or_default();
    match state.service(&wanted.node, &wanted.id) {
        Some(row) => Ok(vec![TxnResult::Service(Arc::clone(row))]),
        None => Err(format!(
            "{} doesn't exist",
            service_name(&wanted.node, &wanted.id)
        )),
    }
}

fn read_check(state: &State, op: &CheckTxnOp) -> Done {
    let wanted = op.check.clone().unwrap_or_default();
    match state.check(&wanted.node, &wanted.check_id) {
        Some(row) => Ok(vec![TxnResult::Check(Arc::clone(row))]),
        None => Err(format!(
            "{} doesn't exist",
            check_name(&wanted.node, &wanted.check_id)
        )),
    }
}

fn service_name(node: &str, id: &str) -> String {
    format!(
        "service {} on node {}",
        quote(id.as_bytes()),
        quote(node.as_bytes())
    )
}

fn check_name(node: &str, id: &str) -> String {
    format!(
        "check {} on node {}",
        quote(id.as_bytes()),
        quote(node.as_bytes())
    )
}

/// Whether an operation can fail, so that the state before the transaction must be kept for it.
fn can_fail(op: &TxnOp) -> bool {
    match &op.op {
        None => false,
        Some(Op::Kv(op)) => !matches!(op.verb(), KvVerb::Set | KvVerb::Delete | KvVerb::DeleteTree),
        Some(_) => true,
    }
}

impl Apply<'_> {
    pub(super) fn txn(mut self, txn: &Txn) -> Outcome {
        let before = txn
            .ops
            .iter()
            .any(can_fail)
            .then(|| (self.state.clone(), self.mark()));
        let outcome = collect(&txn.ops, |op| match read(self.state, op) {
            Some(done) => done,
            None => self.txn_write(op, txn.checked_at),
        });
        if let Some((before, mark)) = before.filter(|_| !outcome.errors.is_empty()) {
            self.undo(before, &mark);
        }
        self.flush();
        Outcome::Txn(outcome)
    }

    fn txn_write(&mut self, op: &Op, checked_at: u64) -> Done {
        match op {
            Op::Kv(op) => self.txn_kv(op, checked_at),
            Op::Node(op) => self.txn_node(op),
            Op::Service(op) => self.txn_service(op),
            Op::Check(op) => self.txn_check(op),
        }
    }

    fn txn_kv(&mut self, op: &KvTxnOp, checked_at: u64) -> Done {
        let KvTxnOp {
            key,
            value,
            flags,
            index,
            session,
            ..
        } = op;
        let quoted = || quote(key);
        let text = |error: ApplyError| error.to_string();
        match op.verb() {
            KvVerb::Set => {
                self.kv_set(key, value, *flags, None);
            }
            KvVerb::Cas => {
                if !self.kv_set(key, value, *flags, Some(*index)) {
                    return Err(format!("failed to set key {}, index is stale", quoted()));
                }
            }
            KvVerb::Lock => {
                if self.delayed(key, checked_at) {
                    return Err(format!("failed to lock key {} due to lock delay", quoted()));
                }
                if !self
                    .kv_lock(key, value, *flags, session, checked_at)
                    .map_err(text)?
                {
                    return Err(format!("failed to lock key {}, lock is already held", quoted()));
                }
            }
            KvVerb::Unlock => {
                if !self.kv_unlock(key, value, *flags, session).map_err(text)? {
                    let why = "lock isn't held, or is held by another session";
                    return Err(format!("failed to unlock key {}, {why}", quoted()));
                }
            }
            KvVerb::Delete => {
                self.kv_delete(key, None);
                return Ok(Vec::new());
            }
            KvVerb::DeleteTree => {
                self.kv_delete_tree(key);
                return Ok(Vec::new());
            }
            KvVerb::DeleteCas if self.kv_delete(key, Some(*index)) => return Ok(Vec::new()),
            KvVerb::DeleteCas => return Err(format!("failed to delete key {}, index is stale", quoted())),
            _ => return Err(UNKNOWN_KV.to_owned()),
        }
        Ok(self
            .state
            .kv_get(key)
            .map(|row| TxnResult::Kv {
                row: row.clone(),
                with_value: false,
            })
            .into_iter()
            .collect())
    }

    fn txn_node(&mut self, op: &NodeTxnOp) -> Done {
        let row = op.node.clone().unwrap_or_default();
        let found = self.state.catalog.node(&row.node).map(|found| found.modify_index);
        let stale = |what| {
            Err(format!(
                "failed to {what} node {}, index is stale",
                quote(row.node.as_bytes())
            ))
        };
        match op.verb() {
            CatalogVerb::Cas if found.unwrap_or(0) != row.modify_index => return stale("set"),
            CatalogVerb::DeleteCas if found.is_some_and(|found| found != row.modify_index) => {
                return stale("delete");
            }
            CatalogVerb::Set | CatalogVerb::Cas => {
                self.ensure_node(&row).map_err(|error| error.to_string())?;
            }
            CatalogVerb::Delete | CatalogVerb::DeleteCas => {
                self.delete_node(&row.node);
                return Ok(Vec::new());
            }
            _ => return Err("unknown node operation: ".to_owned()),
        }
        Ok(self
            .state
            .catalog
            .node(&row.node)
            .cloned()
            .map(TxnResult::Node)
            .into_iter()
            .collect())
    }

    fn txn_service(&mut self, op: &ServiceTxnOp) -> Done {
        let row = op.service.clone().unwrap_or_default();
        let found = self
            .state
            .catalog
            .service(&row.node, &row.id)
            .map(|found| found.modify_index);
        let stale = |what| {
            Err(format!(
                "failed to {what} {}, index is stale",
                service_name(&row.node, &row.id)
            ))
        };
        match op.verb() {
            CatalogVerb::Cas if found.unwrap_or(0) != row.modify_index => return stale("set"),
            CatalogVerb::DeleteCas if found.is_some_and(|found| found != row.modify_index) => {
                return stale("delete");
            }
            CatalogVerb::Set | CatalogVerb::Cas => {
                self.ensure_service(&row).map_err(|error| error.to_string())?;
            }
            CatalogVerb::Delete | CatalogVerb::DeleteCas => {
                self.delete_service(&row.node, &row.id);
                return Ok(Vec::new());
            }
            _ => return Err("unknown service operation: ".to_owned()),
        }
        let row = self.state.catalog.service(&row.node, &row.id).cloned();
        Ok(row.map(TxnResult::Service).into_iter().collect())
    }

    fn txn_check(&mut self, op: &CheckTxnOp) -> Done {
        let row = op.check.clone().unwrap_or_default();
        let found = self
            .state
            .catalog
            .check(&row.node, &row.check_id)
            .map(|found| found.modify_index);
        let name = || check_name(&row.node, &row.check_id);
        let stale = |what| Err(format!("failed to {what} {}, index is stale", name()));
        match op.verb() {
            CatalogVerb::Cas if found.unwrap_or(0) != row.modify_index => return stale("set"),
            CatalogVerb::DeleteCas if found.is_some_and(|found| found != row.modify_index) => {
                return stale("delete");
            }
            CatalogVerb::Set | CatalogVerb::Cas => {
                self.ensure_check(&row).map_err(|error| error.to_string())?;
            }
            CatalogVerb::Delete | CatalogVerb::DeleteCas => {
                self.delete_check(&row.node, &row.check_id);
                return Ok(Vec::new());
            }
            _ => return Err("unknown check operation: ".to_owned()),
        }
        let row = self.state.catalog.check(&row.node, &row.check_id).cloned();
        Ok(row.map(TxnResult::Check).into_iter().collect())
    }
}
