//! One request that does not answer at once, from its head to its answer: how long it took, and where.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use lictor_node::Passage;
use lictor_telemetry::Journey;
use lictor_telemetry::journey::{self, Stage};
use tracing::Span;

use crate::metrics::Asked;
use crate::route;
use crate::server::Shared;

/// Bytes of a key that lines of the log show.
const KEY_SHOWN_BYTES: usize = 64;

/// See the [module](self).
pub(crate) struct Trace {
    shared: Arc<Shared>,
    asked: Asked,
    began: Instant,
    /// What follows the route in the path, and how long it is.
    target: Option<(Arc<[u8]>, u32)>,
    journey: Journey,
    /// Only while such detail is logged.
    span: Option<Box<Span>>,
    /// Whether the time it takes says something about this server.
    is_own: bool,
}

impl Trace {
    /// A request that is served here, from `began` on; `target` begins with so many bytes that name what is asked for.
    pub(crate) fn of(
        shared: &Arc<Shared>,
        asked: Asked,
        began: Option<Instant>,
        target: (Arc<[u8]>, u32),
    ) -> Self {
        let span = tracing::enabled!(tracing::Level::TRACE).then(|| {
            let (route, key) = (route::label(asked.route.into()), shown(&target));
            Box::new(tracing::trace_span!("request", method = asked.method(), route, %key))
        });
        Self {
            shared: Arc::clone(shared),
            asked,
            began: began.unwrap_or_else(Instant::now),
            target: Some(target),
            journey: Journey::default(),
            span,
            is_own: true,
        }
    }

    /// A request that is passed on to a server, which may let it wait.
    pub(crate) fn passed(shared: &Arc<Shared>, asked: Asked, began: Option<Instant>, waits: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            asked,
            began: began.unwrap_or_else(Instant::now),
            target: None,
            journey: Journey::default(),
            span: None,
            is_own: !waits,
        }
    }

    /// Runs one poll of the request.
    pub(crate) fn enter<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let _in = self.span.as_ref().map(|span| span.enter());
        journey::enter(&mut self.journey, poll)
    }

    /// The request has its answer.
    pub(crate) fn end(&self, status: StatusCode) {
        let metrics = &self.shared.metrics;
        if !self.is_own {
            metrics.answered(self.asked, status, None);
            return;
        }
        let now = Instant::now();
        let took = (now - self.began).saturating_sub(self.journey.waited(Stage::Change));
        metrics.answered(self.asked, status, Some(took));
        if let Some(span) = &self.span {
            let _in = span.enter();
            let (index, spent) = (self.journey.index, self.spent(took, now));
            tracing::trace!(status = status.as_u16(), ?took, index, %spent, "answered");
        }
        // A client that sends slowly is not this server's doing.
        if self
            .shared
            .node
            .is_slow(took.saturating_sub(self.journey.waited(Stage::Body)))
        {
            self.tell(status, took, now);
        }
    }

    #[cold]
    fn tell(&self, status: StatusCode, took: Duration, now: Instant) {
        let key = self.target.as_ref().map(shown).unwrap_or_default();
        tell(
            &self.shared,
            self.asked,
            &key,
            status,
            took,
            now,
            &self.spent(took, now),
        );
    }

    fn spent(&self, took: Duration, now: Instant) -> Spent {
        Spent {
            took,
            journey: self.journey,
            passage: self.shared.node.passage(self.journey.index, now),
        }
    }
}

/// Takes note of a request that was slow although it was answered at once.
#[cold]
pub(crate) fn note_slow_read(shared: &Shared, asked: Asked, key: &[u8], status: StatusCode, took: Duration) {
    let spent = Spent {
        took,
        journey: Journey::default(),
        passage: None,
    };
    let key = escaped(key);
    tell(shared, asked, &key, status, took, Instant::now(), &spent);
}

fn tell(
    shared: &Shared,
    asked: Asked,
    key: &str,
    status: StatusCode,
    took: Duration,
    now: Instant,
    spent: &Spent,
) {
    shared.metrics.slow.one();
    if let Some(untold) = shared.metrics.slow_lines.pass(now) {
        tracing::warn!(
            method = asked.method(),
            route = route::label(asked.route.into()),
            key,
            status = status.as_u16(),
            duration_ms = took.as_secs_f64() * 1000.0,
            %spent,
            untold,
            "a slow request"
        );
    }
}

fn shown((target, len): &(Arc<[u8]>, u32)) -> String {
    let key = target.get(..*len as usize).unwrap_or_default();
    escaped(key)
}

/// The begin of a key, of characters that do no harm in a log.
fn escaped(key: &[u8]) -> String {
    let cut = if key.len() > KEY_SHOWN_BYTES { "..." } else { "" };
    let begin = key.get(..KEY_SHOWN_BYTES).unwrap_or(key);
    format!("{}{cut}", begin.escape_ascii())
}

/// Where the time went, as lines of the log show it: what took any, in order.
#[derive(Debug)]
struct Spent {
    took: Duration,
    journey: Journey,
    passage: Option<Passage>,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waited = |stage| self.journey.waited(stage);
        let before = [
            ("body", waited(Stage::Body)),
            ("leader", waited(Stage::Leader)),
            ("room", waited(Stage::Room)),
            ("forward", waited(Stage::Forward)),
            ("read_gate", waited(Stage::Gate)),
        ];
        let known: Duration = before.iter().map(|(_, took)| *took).sum();
        let (queue, after) = match self.passage {
            None => (self.took.saturating_sub(known), Passage::default()),
            Some(passage) => (self.took.saturating_sub(known + passage.since_taken), passage),
        };
        let stages = after.log_wait + after.log + after.commit + after.apply;
        let rest = [
            (if self.passage.is_some() { "queue" } else { "work" }, queue),
            ("log_wait", after.log_wait),
            ("log_sync", after.log),
            ("commit", after.commit),
            ("apply", after.apply),
            ("answer", after.since_taken.saturating_sub(stages)),
        ];
        let mut between = "";
        for (name, took) in before.iter().chain(&rest).filter(|(_, took)| !took.is_zero()) {
            write!(f, "{between}{name}={:.3}ms", took.as_secs_f64() * 1000.0)?;
            between = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_cut_and_made_harmless() {
        assert_eq!(escaped(b"a/b"), "a/b");
        assert_eq!(escaped(b"a\n\xff\x1b[0m\""), "a\\n\\xff\\x1b[0m\\\"");
        let long = escaped(&[b'k'; 65]);
        assert_eq!((long.len(), long.ends_with("k...")), (67, true));
    }

    #[test]
    fn the_stages_of_a_write_add_up_to_the_whole() {
        let ms = Duration::from_millis;
        let spent = Spent {
            took: ms(30),
            journey: Journey::default(),
            passage: Some(Passage {
                since_taken: ms(28),
                log_wait: ms(1),
                log: ms(20),
                commit: ms(2),
                apply: ms(4),
            }),
        };

        assert_eq!(
            spent.to_string(),
            "queue=2.000ms log_wait=1.000ms log_sync=20.000ms commit=2.000ms apply=4.000ms answer=1.000ms"
        );
    }
}
