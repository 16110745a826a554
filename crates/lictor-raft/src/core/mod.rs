//! The driver around `RawNode`.

use std::marker::PhantomData;

use crate::{Input, LogReader, Membership, MonoTime, Output, Status};

/// The consensus core of one member. Owned by the raft thread.
pub struct Core<R: LogReader> {
    reader: PhantomData<R>,
}

impl<R: LogReader> Core<R> {
    /// Takes in what happened and adds to `out` what must be done, in order.
    ///
    /// # Panics
    /// When an invariant of raft is broken, or the log cannot be read: going on would risk divergence.
    pub fn handle(&mut self, input: Input, now: MonoTime, out: &mut Vec<Output>) {
        let _ = (input, now, out);
        todo!()
    }

    /// Where consensus stands.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Whether this member leads and is the only voter: then no other can lead, and a read needs no round.
    /// It must still wait until [`crate::RoleChange::no_op`] is applied.
    pub fn is_sole_voter(&self) -> bool {
        todo!()
    }

    /// The members as of the last applied change.
    pub fn members(&self) -> Membership {
        todo!()
    }
}
