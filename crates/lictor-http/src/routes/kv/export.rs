//! All keys below a prefix in the form of `lictor kv export`, which `?import` takes.

use lictor_state::{KvRow, State};

use crate::list;
use crate::reply::Reply;

#[derive(Debug)]
struct Exported(KvRow);

impl list::Entry for Exported {
    fn push(&self, out: &mut Vec<u8>) {
        let row = &self.0;
        let key = serde_json::Value::from(String::from_utf8_lossy(row.key()));
        out.extend_from_slice(
            format!(
                "\n\t{{\n\t\t\"key\": {key},\n\t\t\"flags\": {},\n\t\t\"value\": \"",
                row.flags()
            )
            .as_bytes(),
        );
        base64_simd::STANDARD.encode_append(row.value(), out);
        out.extend_from_slice(b"\"\n\t}");
    }
}

/// A JSON array, laid out as that command does it.
pub(super) fn reply(state: &State, prefix: &[u8]) -> Reply {
    let mut rows = state.kv_list(prefix).peekable();
    let end: &[u8] = if rows.peek().is_some() { b"\n]\n" } else { b"]\n" };
    let rows = rows.map(|row| Exported(row.clone()));
    list::within(b"[".to_vec(), rows, end).laid_out_already()
}
