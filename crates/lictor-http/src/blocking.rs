//! Reads, and reads that wait: blocking queries.
//!
//! ```text
//! register ──> read the state ──> index newer than the client's? ──yes──> answer
//!                   ^                          │ no
//!                   └────── woken ────────── sleep ── deadline, or the server stops ──> answer what there is
//! ```
//! A query registers *before* it reads: whatever changes after the read wakes it. While it sleeps it holds the
//! request's parameters, one timer and one waiter, and none of hyper's buffers.

use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lictor_node::{Consistency, Node, ReadMeta, Topic, Waiter};
use lictor_proto::LogIndex;
use lictor_state::{Area, State};
use lictor_telemetry::journey;
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::ctx::{Ctx, ReadOptions};
use crate::error::ApiError;
use crate::reply::{Meta, Reply};

/// What a read asks of one snapshot of the state.
pub(crate) trait View {
    /// The index of the answer. An answer may only change together with it.
    fn index(&self, state: &State) -> u64;

    /// The index of the last change of what is asked for, if that is known better than by [`Self::index`], which it never
    /// is above. Whoever saw something at it or later sleeps, however far the index of the table around it moved.
    fn changed_at(&self, state: &State) -> u64 {
        self.index(state)
    }

    /// The answer, without the headers that [`read`] adds.
    fn render(&self, state: &State) -> Reply;

    /// The answer to one read, of a view whose body tells of the read as the headers do. It is not shared with others who
    /// ask the same.
    fn render_for(&self, _state: &State, _read: ReadMeta) -> Option<Reply> {
        None
    }

    /// Whether what was asked for is not there. Whoever waits for it is only woken when it appears, however far
    /// the index of the table around it moves.
    fn is_missing(&self, _state: &State) -> bool {
        false
    }
}

/// A [`View`] made of two closures.
pub(crate) struct ViewOf<I, R> {
    pub(crate) index: I,
    pub(crate) render: R,
}

impl<I: Fn(&State) -> u64, R: Fn(&State) -> Reply> View for ViewOf<I, R> {
    fn index(&self, state: &State) -> u64 {
        (self.index)(state)
    }

    fn render(&self, state: &State) -> Reply {
        (self.render)(state)
    }
}

/// Answers a read, after waiting for a change if the client asked for that.
///
/// # Errors
/// When nobody leads, or too many queries wait already.
pub(crate) async fn read(
    ctx: &Ctx,
    options: ReadOptions,
    topics: &[Topic<'_>],
    view: &impl View,
) -> Result<Reply, ApiError> {
    let meta = gate(&ctx.shared.node, options.consistency).await?;
    if options.min_index == 0 {
        let state = ctx.shared.node.view();
        let index = view.index(&state);
        let reply = view
            .render_for(&state, meta)
            .unwrap_or_else(|| view.render(&state));
        return Ok(reply.with_meta(Meta::new(index, meta)));
    }
    wait(ctx, options, topics, view).await
}

/// Waits until a snapshot taken afterwards is as fresh as asked for.
///
/// # Errors
/// When nobody leads.
pub(crate) async fn gate(node: &Node, consistency: Consistency) -> Result<ReadMeta, ApiError> {
    match node.try_read(consistency) {
        Some(meta) => Ok(meta),
        None => Ok(node.read(consistency).await?),
    }
}

async fn wait(
    ctx: &Ctx,
    options: ReadOptions,
    topics: &[Topic<'_>],
    view: &impl View,
) -> Result<Reply, ApiError> {
    let shared = &*ctx.shared;
    let mut waiter = shared.node.watches().register(topics)?;
    let mut deadline = None;
    let mut last_round = false;
    let mut seen = Seen::default();
    loop {
        {
            let state = shared.node.view();
            let index = view.index(&state);
            let woken = deadline.is_some();
            // Index 1 is that of a client who has seen nothing yet.
            let newest = if index > options.min_index && options.min_index > 1 {
                view.changed_at(&state)
            } else {
                index
            };
            let changed = seen.changed(
                options.min_index,
                newest,
                view.is_missing(&state),
                state.replaced_at(),
            );
            if changed || last_round || shared.is_stopping() {
                if !changed && ctx.follows_change() {
                    return Ok(Reply::unchanged());
                }
                let read = freshness(&shared.node);
                let reply = match view.render_for(&state, read) {
                    Some(reply) => reply,
                    None if woken => shared.rendered.get(ctx, index, || view.render(&state)),
                    None => view.render(&state),
                };
                return Ok(reply.with_meta(Meta::new(index, read)));
            }
        }
        let sleep = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(lengthened(options.wait))));
        let _asked_to = journey::waiting(journey::Stage::Change);
        tokio::select! {
            biased;
            () = waiter.changed() => {}
            () = sleep.as_mut() => last_round = true,
        }
    }
}

/// What a waiting query saw when it read last.
#[derive(Debug, Default)]
struct Seen {
    was_missing: bool,
    replaced_at: Option<LogIndex>,
}

impl Seen {
    /// Whether what is read now is to be told. `replaced_at` says which whole state it comes from.
    fn changed(&mut self, min_index: u64, index: u64, is_missing: bool, replaced_at: LogIndex) -> bool {
        let still_missing = std::mem::replace(&mut self.was_missing, is_missing) && is_missing;
        // Indexes of another state may be lower for good, and the client must learn that.
        let other_state = self
            .replaced_at
            .replace(replaced_at)
            .is_some_and(|before| before != replaced_at);
        other_state || (index > min_index && !still_missing)
    }
}

/// Bounds a wait for something that is not a row: by a deadline, and by the stop of the server.
pub(crate) struct Patience<'a> {
    ctx: &'a Ctx,
    wait: Duration,
    asleep: Option<(Waiter, Pin<Box<Sleep>>)>,
    is_over: bool,
}

impl<'a> Patience<'a> {
    /// Nothing is waited for yet.
    pub(crate) fn new(ctx: &'a Ctx, wait: Duration) -> Self {
        Self {
            ctx,
            wait,
            asleep: None,
            is_over: false,
        }
    }

    /// Whether the query must answer with what there is.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over || self.ctx.shared.is_stopping()
    }

    /// Resolves when [`Self::is_over`] may have changed. Cancel safe: the deadline stays.
    ///
    /// # Errors
    /// When too many queries wait already.
    pub(crate) async fn run_out(&mut self) -> Result<(), ApiError> {
        let shared = &self.ctx.shared;
        let (waiter, sleep) = match &mut self.asleep {
            Some(asleep) => asleep,
            asleep => {
                // No node has this name, so that only a stop or a restore wakes it.
                let waiter = shared.node.watches().register(&[Topic::Row(Area::Node, b"\0")])?;
                asleep.insert((waiter, Box::pin(tokio::time::sleep(lengthened(self.wait)))))
            }
        };
        if shared.is_stopping() {
            return Ok(());
        }
        let _asked_to = journey::waiting(journey::Stage::Change);
        tokio::select! {
            () = waiter.changed() => {}
            () = sleep.as_mut() => self.is_over = true,
        }
        Ok(())
    }
}

/// What the answer of a query that waited says about its freshness.
fn freshness(node: &Node) -> ReadMeta {
    let unknown = ReadMeta {
        known_leader: false,
        last_contact_ms: 0,
    };
    node.try_read(Consistency::Stale).unwrap_or(unknown)
}

/// A wait grows at random by up to a sixteenth, so that queries that began together do not end together.
fn lengthened(wait: Duration) -> Duration {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = SEED.hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    let most_us = u64::try_from(wait.as_micros() / 16).unwrap_or(u64::MAX).max(1);
    wait + Duration::from_micros(random % most_us)
}

/// Answers that many woken queries share, so that a change of one key with ten thousand watchers is rendered once.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    /// Held for a comparison and a reference count. Newest last.
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    route: &'static str,
    target: Box<[u8]>,
    gzip: bool,
    token: Option<String>,
    /// Of a stream of events, what its client knows.
    followed: Option<u64>,
    index: u64,
    reply: Reply,
}

impl Rendered {
    /// As many different answers are kept. A herd is woken by one change, so a few are enough.
    const ENTRIES_MAX: usize = 8;
    /// Larger answers are not kept after they are sent.
    const BODY_MAX_BYTES: usize = 1024 * 1024;

    /// The prepared reply to this query at this index: shared if an equal query was just answered.
    fn get(&self, ctx: &Ctx, index: u64, render: impl FnOnce() -> Reply) -> Reply {
        let token = ctx.token();
        let layout = ctx.layout();
        let followed = ctx.followed();
        let same = |e: &Entry| {
            e.index == index
                && e.gzip == layout.gzip
                && e.followed == followed
                && e.route == ctx.route
                && *e.target == *ctx.target()
                && e.token == token
        };
        if let Some(entry) = self.entries.lock().iter().rev().find(|entry| same(entry)) {
            return entry.reply.clone();
        }
        let reply = render().prepared(layout);
        if reply.body_len() > Self::BODY_MAX_BYTES {
            return reply;
        }
        let entry = Entry {
            route: ctx.route,
            target: ctx.target().into(),
            gzip: layout.gzip,
            token,
            followed,
            index,
            reply: reply.clone(),
        };
        let mut entries = self.entries.lock();
        if entries.len() == Self::ENTRIES_MAX {
            entries.remove(0);
        }
        entries.push(entry);
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_index_is_told_but_not_of_what_stays_missing() {
        let state = LogIndex(0);
        let mut seen = Seen::default();
        assert!(!seen.changed(5, 5, false, state));
        assert!(seen.changed(5, 6, false, state));
        // Gone, then missing while its table goes on, then there.
        assert!(seen.changed(5, 7, true, state));
        assert!(!seen.changed(5, 8, true, state));
        assert!(seen.changed(5, 9, false, state));
    }

    /// Rule R9.
    #[test]
    fn r9_a_state_that_took_the_place_of_another_is_told_though_its_indexes_are_lower() {
        let mut seen = Seen::default();
        assert!(!seen.changed(100, 90, true, LogIndex(0)));

        assert!(seen.changed(100, 7, true, LogIndex(120)));
        assert!(!seen.changed(100, 7, true, LogIndex(120)));
    }
}
