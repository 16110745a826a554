//! What some answers say of the read behind them, in their body beside the headers.

use lictor_node::ReadMeta;
use serde::Serialize;

use crate::ctx::ReadOptions;

/// Fields in Consul's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ReadFacts {
    index: u64,
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
    not_modified: bool,
    backend: u8,
    #[serde(rename = "ResultsFilteredByACLs")]
    results_filtered: bool,
}

impl ReadFacts {
    /// Of a read at an index, with what the server that answers knows of its leader.
    pub(super) fn new(index: u64, options: ReadOptions, read: ReadMeta) -> Self {
        Self {
            index,
            last_contact: read.last_contact_ms,
            known_leader: read.known_leader,
            consistency_level: options.effective_consistency(),
            not_modified: false,
            backend: 0,
            results_filtered: false,
        }
    }
}
