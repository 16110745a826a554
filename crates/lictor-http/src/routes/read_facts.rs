//! What some answers say of the read behind them, in their body beside the headers.

use serde::Serialize;

use crate::ctx::ReadOptions;

/// Fields in Consul's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ReadFacts {
    index: u64,
    pub(super) last_contact: u64,
    pub(super) known_leader: bool,
    consistency_level: &'static str,
    not_modified: bool,
    backend: u8,
    #[serde(rename = "ResultsFilteredByACLs")]
    results_filtered: bool,
}

impl ReadFacts {
    /// Of a read at an index, answered by a server that knows its leader and heard of it now.
    pub(super) fn new(index: u64, options: ReadOptions) -> Self {
        Self {
            index,
            last_contact: 0,
            known_leader: true,
            consistency_level: options.effective_consistency(),
            not_modified: false,
            backend: 0,
            results_filtered: false,
        }
    }
}
