//! Requests over real sockets, and the sizes that waiting costs.

use std::mem::size_of;

use crate::ctx::Ctx;
use crate::routes::{kv, session};

fn size_of_future<F>(_: fn(Ctx) -> F) -> usize {
    size_of::<F>()
}

/// An idle watcher holds one of these, boxed, beside hyper's buffers.
#[test]
fn a_waiting_read_costs_less_than_a_kilobyte() {
    let sizes = [
        size_of_future(kv::get),
        size_of_future(session::info),
        size_of_future(session::list),
        size_of_future(session::of_node),
    ];

    assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
}
