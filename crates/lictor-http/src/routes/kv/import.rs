//! Many keys from one body, in the form of `lictor kv export`: read as it comes, written in transactions.
//!
//! ```text
//! body ──pieces──> Objects ──one object at a time──> batch of sets ──full──> transaction ──> the next
//! ```
//! Only one batch is in memory, beside the pieces that wait. What was written before a failure stays, and the answer
//! says how much that is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use lictor_proto::v1::{self, KvVerb, txn_op};
use lictor_proto::{Command, go};
use lictor_state::Outcome;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::acl::{Access, Resource};
use crate::body;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

/// Pieces of the body that wait while a batch is written.
const PIECES_MAX: usize = 8;
/// Keys of one transaction.
const BATCH_KEYS: usize = 128;
/// Keys and values of one transaction, in bytes, beside its last one.
const BATCH_BYTES: usize = 256 * 1024;
/// What an object may have beside its value.
const OBJECT_SLACK_BYTES: usize = 128 * 1024;

/// One key of the array. Other members are left out, as the command line does it.
#[derive(Debug, Deserialize)]
struct Imported {
    key: String,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    value: String,
}

/// `PUT /v1/kv/PREFIX?import`: the prefix goes before each key.
pub(super) async fn put(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.check_datacenter()?;
    let Some(body) = ctx.take_body() else {
        return Err(ApiError::bad_request("Missing body\n"));
    };
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let mut import = Import {
        ctx: &ctx,
        batch: Vec::new(),
        batch_bytes: 0,
        done: 0,
    };
    let pouring = body::pour(body, ctx.shared.limits.body_grace, ctx.route, sender);
    let (poured, written) = tokio::join!(pouring, import.write_all(pieces));
    // If the client broke off there is no end of the array either; why there is none says more.
    match poured.and(written) {
        Ok(()) => Ok(Reply::json_bytes(format!("{{\"Imported\":{}}}", import.done))),
        Err(error) => Err(error.prefixed(format_args!("Import failed after {} keys: ", import.done))),
    }
}

struct Import<'a> {
    ctx: &'a Ctx,
    batch: Vec<v1::TxnOp>,
    batch_bytes: usize,
    /// Keys that are written for good.
    done: usize,
}

impl Import<'_> {
    async fn write_all(&mut self, mut pieces: mpsc::Receiver<Bytes>) -> Result<(), ApiError> {
        let value_max_bytes = self.ctx.shared.limits.kv_value_max_bytes;
        let mut objects = Objects::new(value_max_bytes.div_ceil(3) * 4 + OBJECT_SLACK_BYTES);
        while let Some(piece) = pieces.recv().await {
            let mut rest = &piece[..];
            while let Some(object) = objects.next(&mut rest).map_err(ApiError::bad_request)? {
                self.add(&object)?;
                if self.batch.len() == BATCH_KEYS || self.batch_bytes >= BATCH_BYTES {
                    self.write_batch().await?;
                }
            }
        }
        objects.end().map_err(ApiError::bad_request)?;
        self.write_batch().await
    }

    fn add(&mut self, object: &[u8]) -> Result<(), ApiError> {
        let bad = |why: String| ApiError::bad_request(format!("{why}\n"));
        let imported: Imported = serde_json::from_slice(object).map_err(|error| bad(error.to_string()))?;
        let key = [self.ctx.param(), imported.key.as_bytes()].concat();
        let named = |why: &str| format!("key {}: {why}", go::quote(&key));
        if key.is_empty() {
            return Err(bad("an empty key".to_owned()));
        }
        let value = go::decode_base64(&imported.value, |text| STANDARD.decode(text));
        let value = value.map_err(|error| bad(named(&error.to_string())))?;
        let limit_bytes = self.ctx.shared.limits.kv_value_max_bytes;
        if value.len() > limit_bytes {
            let why = format!(
                "{} bytes are over kv_max_value_size, {limit_bytes} bytes",
                value.len()
            );
            return Err(ApiError::too_large(format!("{}\n", named(&why))));
        }
        self.ctx.authorize(Resource::Key(&key), Access::Write)?;
        self.batch_bytes += key.len() + value.len();
        let op = v1::KvTxnOp {
            verb: KvVerb::Set.into(),
            key: key.into(),
            value: value.into(),
            flags: imported.flags,
            ..v1::KvTxnOp::default()
        };
        self.batch.push(v1::TxnOp {
            op: Some(txn_op::Op::Kv(op)),
        });
        Ok(())
    }

    async fn write_batch(&mut self) -> Result<(), ApiError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch_bytes = 0;
        let ops = std::mem::take(&mut self.batch);
        let count = ops.len();
        let txn = v1::Txn { ops, checked_at: 0 };
        match self.ctx.shared.node.propose(Command::Txn(txn)).await? {
            Outcome::Txn(outcome) if outcome.errors.is_empty() => {
                self.done += count;
                Ok(())
            }
            outcome => {
                tracing::error!(?outcome, "an import was refused by the state");
                Err(ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "unexpected outcome",
                ))
            }
        }
    }
}

/// Cuts a JSON array of objects into its objects, as the bytes come. What is within them is left to a parser.
#[derive(Debug)]
struct Objects {
    /// Of the object that is being read.
    read: BytesMut,
    max_bytes: usize,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the array.
    Start,
    /// Behind its bracket.
    First,
    /// Behind an object.
    Behind,
    /// Behind a comma.
    Comma,
    /// Within so many brackets of an object.
    Within { depth: u32, text: Text },
    /// Behind the array.
    End,
}

/// Whether a byte is part of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    No,
    Yes,
    Escape,
}

impl Objects {
    fn new(max_bytes: usize) -> Self {
        Self {
            read: BytesMut::new(),
            max_bytes,
            at: At::Start,
        }
    }

    /// The next object that ends within `rest`, which goes on behind it; `None` when `rest` is used up.
    fn next(&mut self, rest: &mut &[u8]) -> Result<Option<Bytes>, String> {
        let bytes = *rest;
        let mut begin = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let was_within = matches!(self.at, At::Within { .. });
            self.at = self.at.behind(byte)?;
            let is_within = matches!(self.at, At::Within { .. });
            if is_within && !was_within {
                begin = at;
            }
            if was_within && !is_within {
                self.keep(&bytes[begin..=at])?;
                *rest = &bytes[at + 1..];
                return Ok(Some(self.read.split().freeze()));
            }
        }
        if matches!(self.at, At::Within { .. }) {
            self.keep(&bytes[begin..])?;
        }
        *rest = &[];
        Ok(None)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.read.len() + bytes.len() > self.max_bytes {
            return Err(format!("an object of more than {} bytes\n", self.max_bytes));
        }
        self.read.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether the array was whole.
    fn end(&self) -> Result<(), String> {
        match self.at {
            At::End => Ok(()),
            _ => Err("the array of keys is cut off\n".to_owned()),
        }
    }
}

impl At {
    fn behind(self, byte: u8) -> Result<Self, String> {
        let within = |depth| Self::Within {
            depth,
            text: Text::No,
        };
        Ok(match (self, byte) {
            (Self::Within { depth, text }, byte) => match (text, byte) {
                (Text::Yes, b'\\') => Self::Within {
                    depth,
                    text: Text::Escape,
                },
                (Text::Yes, b'"') => within(depth),
                (Text::No, b'"') | (Text::Escape, _) => Self::Within {
                    depth,
                    text: Text::Yes,
                },
                (Text::No, b'{' | b'[') => within(depth.saturating_add(1)),
                (Text::No, b'}' | b']') if depth == 1 => Self::Behind,
                (Text::No, b'}' | b']') => within(depth - 1),
                _ => self,
            },
            (_, b' ' | b'\t' | b'\r' | b'\n') => self,
            (Self::Start, b'[') => Self::First,
            (Self::First | Self::Comma, b'{') => within(1),
            (Self::First | Self::Behind, b']') => Self::End,
            (Self::Behind, b',') => Self::Comma,
            _ => return Err("not a JSON array of keys\n".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(pieces: &[&str]) -> Result<Vec<String>, String> {
        let mut objects = Objects::new(64);
        let mut found = Vec::new();
        for piece in pieces {
            let mut rest = piece.as_bytes();
            while let Some(object) = objects.next(&mut rest)? {
                found.push(String::from_utf8(object.to_vec()).unwrap());
            }
        }
        objects.end().map(|()| found)
    }

    #[test]
    fn an_array_is_cut_wherever_its_pieces_end() {
        let whole = r#" [ {"key":"a]}\"[","x":[{}]} ,{"key":"b"}] "#;
        let expected = [r#"{"key":"a]}\"[","x":[{}]}"#, r#"{"key":"b"}"#];
        for at in 0..whole.len() {
            let (one, other) = whole.split_at(at);
            assert_eq!(objects(&[one, other]).unwrap(), expected, "{at}");
        }
        assert_eq!(objects(&["[]"]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_array_of_objects_is_refused() {
        for text in [
            "", "[", "{}", "[1]", "[{}", "[{},]", "[{}{}]", "[]]", "[,{}]", "[{}] x",
        ] {
            assert!(objects(&[text]).is_err(), "{text}");
        }
        let long = format!("[{{\"key\":\"{}\"}}]", "x".repeat(80));
        assert!(objects(&[&long]).is_err());
    }
}
