//! What changed among keys since an index, deletes included, as a list that can be done again in its order.

use hyper::header::{HeaderName, HeaderValue};
use lictor_proto::ConsulIndex;
use lictor_state::{Change, KvRow, Span, State};

use super::{push_row_with, row_len_bound};
use crate::json;
use crate::list;
use crate::reply::Reply;

/// Marks an answer that shows all there is, because what changed is not known any more: whoever follows the changes
/// forgets what it had.
pub(crate) const X_FULL: HeaderName = HeaderName::from_static("x-lictor-full");

/// A row, or a delete.
#[derive(Debug)]
struct Shown {
    change: Change,
    with_value: bool,
}

impl list::Entry for Shown {
    fn push(&self, out: &mut Vec<u8>) {
        match &self.change {
            Change::Written(row) => {
                out.reserve(row_len_bound(row));
                push_row_with(out, row, self.with_value);
            }
            Change::Deleted { key, index } => push_delete(out, "Key", key, *index),
            Change::TreeDeleted { prefix, index } => push_delete(out, "Prefix", prefix, *index),
        }
    }
}

fn push_delete(out: &mut Vec<u8>, what: &str, name: &[u8], index: u64) {
    out.extend_from_slice(format!("{{\"{what}\":").as_bytes());
    json::push_str(out, name);
    out.extend_from_slice(b",\"Deleted\":true,\"ModifyIndex\":");
    json::push_u64(out, index);
    out.push(b'}');
}

/// All rows of these spans, none of which overlap, in the order of the spans.
pub(crate) fn rows(state: &State, spans: &[Span<'_>], with_value: bool) -> Reply {
    let rows = spans.iter().flat_map(|span| -> Box<dyn Iterator<Item = &KvRow>> {
        match span {
            Span::Key(key) => Box::new(state.kv_get(key).into_iter()),
            Span::Prefix(prefix) => state.kv_list(prefix),
        }
    });
    let shown = rows.map(|row| Shown {
        change: Change::Written(row.clone()),
        with_value,
    });
    list::of(shown)
}

/// What happened to these spans after `since`, or all rows with a header that says so.
pub(crate) fn reply(state: &State, spans: &[Span<'_>], since: u64, with_value: bool) -> Reply {
    match state.kv_changes(spans, ConsulIndex(since)) {
        Some(changes) => list::of(changes.into_iter().map(|change| Shown { change, with_value })),
        None => rows(state, spans, with_value).with_header(X_FULL, HeaderValue::from_static("true")),
    }
}
