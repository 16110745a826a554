//! Clients that wait for changes: each query names what the last one found.

use bytes::Bytes;

use super::Surroundings;
use crate::check::{Checked, ensure};
use crate::request::{Query, Reply, Request, Version};

/// What is watched: single keys, and prefixes of all lengths.
const WATCHED: [&str; 6] = ["reg/0", "count/5", "lock/0", "reg/", "lock/", ""];
/// Of [`WATCHED`], how many are single keys.
const KEYS: usize = 3;

/// A client that waits.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    known: [Version; WATCHED.len()],
    asked: Option<usize>,
}

impl Watcher {
    pub(super) fn ask(&mut self, around: &mut Surroundings<'_>) -> Request {
        let at = around.random.below(WATCHED.len() as u64);
        let at = usize::try_from(at).unwrap_or(0);
        self.asked = Some(at);
        let name = Bytes::from_static(WATCHED[at].as_bytes());
        let query = if at < KEYS {
            Query::Key(name)
        } else {
            Query::Below(name)
        };
        Request::Watch(query, self.known[at].clone())
    }

    pub(super) fn hear(&mut self, reply: &Reply) -> Checked {
        let Some(at) = self.asked.take() else {
            return Ok(());
        };
        if let Reply::Changed(rows, version) = reply {
            let shown = rows.iter().map(|row| (row.key.clone(), row.modify_index));
            ensure(shown.eq(version.iter().cloned()), || {
                format!("a query for {:?} shows other rows than it says", WATCHED[at])
            })?;
            self.known[at].clone_from(version);
        }
        Ok(())
    }
}
