//! A process or machine that stood still owes its clients a moment before it ends things of theirs.

use lictor_proto::MonoTime;

/// A question for what is due that comes this late means that the process stood still.
const LATE_MS: u64 = 500;
/// After a stall nothing is reported for this time, so that renewals that waited in sockets come first.
const GRACE_MS: u64 = 500;

/// Notices stalls by the times at which the caller asks.
#[derive(Debug)]
pub(crate) struct Stall {
    /// When the caller last asked what is due.
    asked: MonoTime,
    held_until: MonoTime,
}

impl Stall {
    pub(crate) fn new(now: MonoTime) -> Self {
        Self {
            asked: now,
            held_until: now,
        }
    }

    /// The caller asks when something is due, or at once again when more is due than one turn reports. If it
    /// comes late by more than that explains, clients could not be heard for a while.
    pub(crate) fn notice(&mut self, first_due: Option<MonoTime>, now: MonoTime) {
        if let Some(due) = first_due
            && now.ms_since(self.asked.max(due)) > LATE_MS
        {
            self.held_until = now.plus_ms(GRACE_MS);
        }
        self.asked = now;
    }

    /// Before this time nothing is to be reported.
    pub(crate) fn held_until(&self) -> MonoTime {
        self.held_until
    }
}
