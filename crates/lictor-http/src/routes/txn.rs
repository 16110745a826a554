//! `/v1/txn`: several operations at one index, or none of them.
//!
//! A transaction that writes nothing is answered from a snapshot and shows, as Consul does, more fields and other
//! headers than one that writes.

use lictor_node::{ProposeError, ReadMeta};
use lictor_proto::limits::TXN_OPS_MAX;
use lictor_proto::{Command, v1};
use lictor_state::{Outcome, TxnError, TxnOutcome, TxnResult};

use crate::acl::{Access, Resource};
use crate::blocking;
use crate::body;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::json;
use crate::list;
use crate::reply::{Meta, Reply};
use crate::routes::kv;
use crate::wire;
use lictor_proto::go;

mod request;

/// `PUT /v1/txn`.
pub(crate) async fn apply(mut ctx: Ctx) -> Result<Reply, ApiError> {
    let limit_bytes = ctx.shared.limits.txn_body_max_bytes;
    if let Some(len) = ctx.content_length().filter(|len| *len > limit_bytes as u64) {
        ctx.discard_body().await;
        return Err(body::over_setting(len, limit_bytes, "txn_max_req_len"));
    }
    let body = ctx.body(limit_bytes).await?;
    let datacenter = &ctx.shared.node.identity().datacenter;
    let asked = request::decode(&body, datacenter)
        .map_err(|why| ApiError::bad_request(format!("Failed to parse body: {why}")))?;
    drop(body);
    let ops_max = ctx.shared.limits.txn_ops_max;
    if asked.count > ops_max {
        return Err(too_many_ops(asked.count, ops_max));
    }
    if asked.writes {
        write(&ctx, asked).await
    } else {
        read(&ctx, asked).await
    }
}

/// Consul's text, to which its own bound is the only one.
fn too_many_ops(count: usize, ops_max: usize) -> ApiError {
    let text = format!("Transaction contains too many operations ({count} > {ops_max})");
    let setting = if ops_max == TXN_OPS_MAX {
        ""
    } else {
        ". See limits.txn_max_ops"
    };
    ApiError::too_large(text + setting)
}

/// Nothing is written: a snapshot is enough, as fresh as the request asks for.
async fn read(ctx: &Ctx, asked: request::Request) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()?;
    if !asked.errors.is_empty() {
        let unknown = ReadMeta {
            known_leader: false,
            last_contact_ms: 0,
        };
        return Ok(read_reply(refused(asked.errors), 0, unknown));
    }
    authorize(ctx, &asked.txn)?;
    // Several rows are shown together: they come from one snapshot (rule R4).
    let meta = blocking::gate(&ctx.shared.node, options.consistency).await?;
    let outcome = ctx.shared.node.view().txn_read(&asked.txn);
    Ok(read_reply(outcome, 1, meta))
}

async fn write(ctx: &Ctx, asked: request::Request) -> Result<Reply, ApiError> {
    ctx.check_datacenter()?;
    // What can be told before the proposal hides what would be told after it.
    if !asked.errors.is_empty() {
        return Ok(write_reply(refused(asked.errors)));
    }
    authorize(ctx, &asked.txn)?;
    let lock_keys = asked.lock_keys();
    match ctx.shared.node.propose(Command::Txn(asked.txn)).await {
        Ok(Outcome::Txn(outcome)) => Ok(write_reply(outcome)),
        Ok(Outcome::Failed(error)) => Err(ApiError::internal(format!("raft apply failed: {error}"))),
        Ok(outcome) => {
            tracing::error!(?outcome, "a transaction was answered in another's terms");
            Err(ApiError::internal("unexpected outcome"))
        }
        Err(ProposeError::LockDelay(ops)) => {
            let delayed = |(at, key): &(usize, bytes::Bytes)| {
                let what = format!("failed to lock key {} due to lock delay", go::quote(key));
                ops.contains(at).then_some(TxnError { op_index: *at, what })
            };
            Ok(write_reply(refused(
                lock_keys.iter().filter_map(delayed).collect(),
            )))
        }
        Err(error) => Err(error.into()),
    }
}

fn refused(errors: Vec<TxnError>) -> TxnOutcome {
    TxnOutcome {
        results: Vec::new(),
        errors,
    }
}

/// Asks the access control hook about every operation.
fn authorize(ctx: &Ctx, txn: &v1::Txn) -> Result<(), ApiError> {
    use v1::txn_op::Op;

    if !ctx.shared.acl.is_enabled() {
        return Ok(());
    }
    for op in &txn.ops {
        match &op.op {
            Some(Op::Kv(op)) => {
                let access = if request::kv_writes(op.verb()) || op.verb() == v1::KvVerb::CheckNotExists {
                    Access::Write
                } else {
                    Access::Read
                };
                let is_tree = matches!(op.verb(), v1::KvVerb::GetTree | v1::KvVerb::DeleteTree);
                let resource = if is_tree {
                    Resource::KeyPrefix(&op.key)
                } else {
                    Resource::Key(&op.key)
                };
                ctx.authorize(resource, access)?;
            }
            Some(Op::Node(op)) => {
                let name = op.node.as_ref().map_or("", |row| &row.node);
                ctx.authorize(Resource::Node(name), catalog_access(op.verb()))?;
            }
            Some(Op::Service(op)) => {
                let name = op.service.as_ref().map_or("", |row| &row.service);
                ctx.authorize(Resource::Service(name), catalog_access(op.verb()))?;
            }
            Some(Op::Check(op)) => {
                let name = op.check.as_ref().map_or("", |row| &row.node);
                ctx.authorize(Resource::Node(name), catalog_access(op.verb()))?;
            }
            None => {}
        }
    }
    Ok(())
}

fn catalog_access(verb: v1::CatalogVerb) -> Access {
    if verb == v1::CatalogVerb::Get {
        Access::Read
    } else {
        Access::Write
    }
}

fn write_reply(outcome: TxnOutcome) -> Reply {
    reply(outcome, b"}")
}

fn read_reply(outcome: TxnOutcome, index: u64, meta: ReadMeta) -> Reply {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(b",\"Index\":");
    json::push_u64(&mut out, index);
    // Go writes this duration in nanoseconds.
    out.extend_from_slice(b",\"LastContact\":");
    json::push_u64(&mut out, meta.last_contact_ms.saturating_mul(1_000_000));
    out.extend_from_slice(if meta.known_leader {
        b",\"KnownLeader\":true"
    } else {
        &b",\"KnownLeader\":false"[..]
    });
    out.extend_from_slice(
        b",\"ConsistencyLevel\":\"\",\"NotModified\":false,\"Backend\":0,\"ResultsFilteredByACLs\":false}",
    );
    let meta = Meta {
        index: None,
        query_backend: false,
        ..Meta::new(0, meta)
    };
    reply(outcome, &out).with_meta(meta)
}

/// Results and errors, and what stands behind them.
fn reply(outcome: TxnOutcome, end: &[u8]) -> Reply {
    if outcome.errors.is_empty() {
        let head = b"{\"Results\":[".to_vec();
        let tail = [&b"],\"Errors\":null"[..], end].concat();
        return list::within(head, outcome.results.into_iter(), tail);
    }
    let mut out = b"{\"Results\":null,\"Errors\":[".to_vec();
    for (at, error) in outcome.errors.iter().enumerate() {
        out.extend_from_slice(if at == 0 {
            b"{\"OpIndex\":"
        } else {
            b",{\"OpIndex\":"
        });
        json::push_u64(&mut out, error.op_index as u64);
        out.extend_from_slice(b",\"What\":");
        json::push_str(&mut out, error.what.as_bytes());
        out.push(b'}');
    }
    out.push(b']');
    out.extend_from_slice(end);
    Reply::json_bytes(out).with_status(hyper::StatusCode::CONFLICT)
}

impl list::Entry for TxnResult {
    fn push(&self, out: &mut Vec<u8>) {
        match self {
            Self::Kv { row, with_value } => {
                out.extend_from_slice(b"{\"KV\":");
                kv::push_row_with(out, row, *with_value);
            }
            Self::Node(row) => {
                out.extend_from_slice(b"{\"Node\":");
                json::push(out, &wire::Node::of(row));
            }
            Self::Service(row) => {
                out.extend_from_slice(b"{\"Service\":");
                json::push(out, &wire::Service::of(row));
            }
            Self::Check(row) => {
                out.extend_from_slice(b"{\"Check\":");
                json::push(out, &wire::Check::of(row));
            }
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(reply: Reply) -> String {
        use http_body_util::BodyExt as _;

        let response = reply.into_response(
            hyper::HeaderMap::new(),
            crate::reply::Policy::Allow,
            &hyper::HeaderMap::new(),
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime
            .block_on(response.into_body().collect())
            .unwrap()
            .to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn success_of_nothing_is_an_empty_list() {
        assert_eq!(
            body(write_reply(TxnOutcome::default())),
            r#"{"Results":[],"Errors":null}"#
        );
    }

    #[test]
    fn a_failure_has_no_results_and_names_each_operation() {
        let errors = vec![TxnError {
            op_index: 2,
            what: "key \"a\" doesn't exist".to_owned(),
        }];

        let shown = body(write_reply(refused(errors)));

        assert_eq!(
            shown,
            r#"{"Results":null,"Errors":[{"OpIndex":2,"What":"key \"a\" doesn't exist"}]}"#
        );
    }

    #[test]
    fn a_transaction_that_reads_shows_how_fresh_it_is() {
        let meta = ReadMeta {
            known_leader: true,
            last_contact_ms: 0,
        };

        let shown = body(read_reply(TxnOutcome::default(), 1, meta));

        let expected = concat!(
            r#"{"Results":[],"Errors":null,"Index":1,"LastContact":0,"KnownLeader":true,"ConsistencyLevel":"","#,
            r#""NotModified":false,"Backend":0,"ResultsFilteredByACLs":false}"#
        );
        assert_eq!(shown, expected);
    }
}
