//! `GET /v1/fair-locks`: who holds fair locks and who waits for them, in order.

use std::sync::Arc;

use lictor_node::Topic;
use lictor_proto::v1::QueueEntryRow;
use lictor_state::{Area, State};

use crate::acl::{Access, Resource};
use crate::blocking::{self, ViewOf};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::json;
use crate::list;
use crate::reply::Reply;

/// All entries, by name and place: the first of each name holds the lock.
pub(crate) async fn list(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    let may_read = |row: &&Arc<QueueEntryRow>| ctx.authorize(Resource::Key(&row.name), Access::Read).is_ok();
    let view = ViewOf {
        index: |state: &State| state.queues_index().0,
        render: |state: &State| {
            let entries = state.queue_entries().filter(may_read);
            list::of(entries.map(|row| Shown(Arc::clone(row))))
        },
    };
    blocking::read(&ctx, options, &[Topic::Row(Area::Queues, b"")], &view).await
}

#[derive(Debug)]
struct Shown(Arc<QueueEntryRow>);

impl list::Entry for Shown {
    fn push(&self, out: &mut Vec<u8>) {
        let row = &self.0;
        out.extend_from_slice(b"{\"Name\":");
        json::push_str(out, &row.name);
        out.extend_from_slice(b",\"Index\":");
        json::push_u64(out, row.index);
        out.extend_from_slice(b",\"Value\":");
        match &row.value {
            Some(value) => json::push_str(out, value),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"TTL\":");
        json::push_u64(out, row.ttl_ms / 1000);
        let holds: &[u8] = if row.granted_index > 0 { b"true" } else { b"false" };
        out.extend_from_slice(b",\"Holds\":");
        out.extend_from_slice(holds);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_shown_with_its_place() {
        let row = QueueEntryRow {
            name: "a\"b".into(),
            index: 7,
            ttl_ms: 60_000,
            granted_index: 7,
            ..QueueEntryRow::default()
        };
        let next = QueueEntryRow {
            index: 9,
            value: Some("v".into()),
            granted_index: 0,
            ..row.clone()
        };

        let shown = list::of([row, next].map(|row| Shown(Arc::new(row))).into_iter());

        assert_eq!(
            shown.body_text(),
            concat!(
                r#"[{"Name":"a\"b","Index":7,"Value":null,"TTL":60,"Holds":true},"#,
                r#"{"Name":"a\"b","Index":9,"Value":"v","TTL":60,"Holds":false}]"#
            )
        );
    }
}
