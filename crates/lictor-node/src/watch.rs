//! Wakes blocking queries exactly when what they wait for changes. Holds no data and does no I/O.
//!
//! A query must register *before* it reads; otherwise a change between the two is lost.

use lictor_state::{Area, Dirty};

/// What a waiter waits for.
#[derive(Debug, Clone, Copy)]
pub enum Topic<'a> {
    /// One key.
    Key(&'a [u8]),
    /// Every key below a prefix.
    Prefix(&'a [u8]),
    /// A row of an area, or with an empty key an area as a whole.
    Row(Area, &'a [u8]),
}

/// The registry is at its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many blocking queries on this server")]
pub struct TooManyWaiters;

/// All sleeping blocking queries of this server.
#[derive(Debug)]
pub struct Registry {}

/// One sleeping query; dropping it unregisters it.
#[derive(Debug)]
pub struct Waiter {}

impl Registry {
    /// Registers interest in any of the topics.
    ///
    /// # Errors
    /// [`TooManyWaiters`] at the bound.
    pub fn register(&self, topics: &[Topic<'_>]) -> Result<Waiter, TooManyWaiters> {
        let _ = topics;
        todo!()
    }

    /// Wakes whoever waits for these changes. Called after the view that shows them is published.
    pub fn wake(&self, dirty: &[Dirty]) {
        let _ = dirty;
        todo!()
    }
}

impl Waiter {
    /// Resolves once one of the topics changed since registration or since this last resolved. Cancel safe.
    #[allow(clippy::unused_async, reason = "replaced by a hand-written future")]
    pub async fn changed(&mut self) {
        todo!()
    }
}
