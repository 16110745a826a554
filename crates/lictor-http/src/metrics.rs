//! What the HTTP server counts.
//!
//! Each route and method has a cell of its own, made when it is first asked for, and each cell a share for each of a few
//! threads: to count a request is to add to memory that hardly any other thread touches.

use std::cell::Cell as ThreadCell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use lictor_telemetry::{Counter, Distribution, Durations, Kind, Limiter, Page, shard};

use crate::route;

/// Shares of each cell.
const SHARDS: usize = 8;
/// The classes of statuses, 1xx to 5xx.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "other"];
/// One in so many plain reads is timed. They take a few microseconds each, and reading the clock twice would be a good
/// part of what is measured. Those in between count as the last one that was timed on their thread.
const TIMED_EACH: u32 = 16;
/// Lines on slow requests in each [`LINES_PER`].
const LINES_MAX: u32 = 10;
const LINES_PER: Duration = Duration::from_secs(10);

/// Counted by the threads of the server.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By route and method.
    cells: Box<[OnceLock<Box<Cell>>]>,
    received: [Share; SHARDS],
    sent: [Share; SHARDS],
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) refused: Counter,
    pub(crate) streams_refused: Counter,
    pub(crate) slow: Counter,
    pub(crate) slow_lines: Limiter,
    started: Instant,
}

/// Apart from its neighbours by a line of the cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Share(Counter);

/// The requests of one route and method.
#[derive(Debug, Default)]
struct Cell([CellShare; SHARDS]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct CellShare {
    by_class: [Counter; CLASSES.len()],
    durations: Durations,
}

/// Whose request it is in the metrics: route and method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) route: u16,
    method: u8,
}

impl Asked {
    /// A request that no route was found for yet.
    pub(crate) fn by(method: &Method) -> Self {
        let method = match *method {
            Method::GET => 0,
            Method::PUT => 1,
            Method::POST => 2,
            Method::DELETE => 3,
            _ => 4,
        };
        Self {
            route: route::OTHER,
            method,
        }
    }

    /// As the label says it.
    pub(crate) fn method(self) -> &'static str {
        METHODS[usize::from(self.method)]
    }
}

thread_local! {
    /// Plain reads until the next that is timed, and how long the last one took.
    static PLAIN: ThreadCell<(u32, Duration)> = const { ThreadCell::new((0, Duration::ZERO)) };
}

/// The begin of a request: now if it is to be timed in any case.
pub(crate) fn begin(is_plain: bool) -> Option<Instant> {
    if !is_plain {
        return Some(Instant::now());
    }
    let (left, last) = PLAIN.get();
    PLAIN.set((left.checked_sub(1).unwrap_or(TIMED_EACH - 1), last));
    (left == 0).then(Instant::now)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            cells: (0..route::NUMBERS * METHODS.len())
                .map(|_| OnceLock::new())
                .collect(),
            received: Default::default(),
            sent: Default::default(),
            opened: Counter::new(),
            closed: Counter::new(),
            refused: Counter::new(),
            streams_refused: Counter::new(),
            slow: Counter::new(),
            slow_lines: Limiter::new(LINES_MAX, LINES_PER),
            started: Instant::now(),
        }
    }

    /// Since when this server runs.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes came from a client.
    pub(crate) fn received(&self, bytes: usize) {
        self.received[shard(SHARDS)].0.add(bytes as u64);
    }

    /// Bytes went to a client.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent[shard(SHARDS)].0.add(bytes as u64);
    }

    /// A request was answered; without a time where that says nothing about this server.
    pub(crate) fn answered(&self, asked: Asked, status: StatusCode, took: Option<Duration>) {
        let at = usize::from(asked.route) * METHODS.len() + usize::from(asked.method);
        let cell = self.cells[at].get_or_init(Box::default);
        let share = &cell.0[shard(SHARDS)];
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len());
        share.by_class[class - 1].one();
        if let Some(took) = took {
            share.durations.take(took);
        }
    }

    /// A request was answered at once, and took so long if it was timed.
    pub(crate) fn answered_now(
        &self,
        asked: Asked,
        status: StatusCode,
        is_plain: bool,
        timed: Option<Duration>,
    ) {
        let (left, last) = PLAIN.get();
        if let Some(took) = timed.filter(|_| is_plain) {
            PLAIN.set((left, took));
        }
        self.answered(asked, status, Some(timed.unwrap_or(last)));
    }

    /// Adds all that is counted here.
    pub(crate) fn add_to(&self, page: &mut Page) {
        let help = "Requests that were answered.";
        let requests = page.family(Kind::Counter, "lictor.http.requests_total", help);
        for (labels, cell) in self.cells() {
            for (class, name) in CLASSES.iter().enumerate() {
                let count = cell
                    .0
                    .iter()
                    .map(|share| share.by_class[class].get())
                    .sum::<u64>();
                if count > 0 {
                    requests.count(&[labels[0], labels[1], ("status", name)], count);
                }
            }
        }
        let help =
            "Time from a request's head to its answer, without the time that the client asked to wait.";
        let durations = page.family(Kind::Histogram, "lictor.http.request_duration_seconds", help);
        for (labels, cell) in self.cells() {
            durations.distribution(&labels, cell.durations());
        }
        let help = "The same in milliseconds, as Consul has it.";
        let consul = page.family(Kind::Summary, "consul.api.http", help);
        for ([(_, method), (_, route)], cell) in self.cells() {
            let path = route.trim_start_matches('/').replace('/', "_");
            consul.distribution(&[("method", method), ("path", &path)], cell.durations());
        }
        self.add_writes(page);
        let total = |shares: &[Share]| shares.iter().map(|share| share.0.get()).sum();
        page.counter(
            "lictor.http.received_bytes_total",
            "Bytes of requests.",
            total(&self.received),
        );
        page.counter(
            "lictor.http.sent_bytes_total",
            "Bytes of answers.",
            total(&self.sent),
        );
        let closed = self.closed.get();
        let opened = self.opened.get();
        page.counter(
            "lictor.http.connections_opened_total",
            "Connections that were accepted.",
            opened,
        );
        page.gauge(
            "lictor.http.connections",
            "Connections of clients.",
            opened.saturating_sub(closed),
        );
        page.counter(
            "lictor.http.connections_refused_total",
            "Connections above the limit of their client's address.",
            self.refused.get(),
        );
    }

    /// What Consul has for the writes of a few endpoints.
    fn add_writes(&self, page: &mut Page) {
        let of = |routes: &[&str], methods: &[&str]| {
            let mut all = Durations::default().read();
            for ([(_, method), (_, route)], cell) in self.cells() {
                if routes.contains(&route) && methods.contains(&method) {
                    all.merge(&cell.durations());
                }
            }
            all
        };
        let summaries = [
            (
                "consul.kvs.apply",
                "Writes of keys.",
                of(&["/v1/kv/"], &["PUT", "DELETE"]),
            ),
            ("consul.txn.apply", "Transactions.", of(&["/v1/txn"], &["PUT"])),
            (
                "consul.session.apply",
                "Sessions that were made or destroyed.",
                of(&["/v1/session/create", "/v1/session/destroy/"], &["PUT"]),
            ),
            (
                "consul.session.renew",
                "Renewals of sessions.",
                of(&["/v1/session/renew/"], &["PUT"]),
            ),
            (
                "consul.catalog.register",
                "Registrations in the catalog.",
                of(&["/v1/catalog/register"], &["PUT"]),
            ),
            (
                "consul.catalog.deregister",
                "Deregistrations in the catalog.",
                of(&["/v1/catalog/deregister"], &["PUT"]),
            ),
        ];
        for (name, help, values) in summaries {
            page.family(Kind::Summary, name, help).distribution(&[], values);
        }
    }

    /// The cells that were used, with their labels.
    fn cells(&self) -> impl Iterator<Item = ([(&'static str, &'static str); 2], &Cell)> {
        self.cells.iter().enumerate().filter_map(|(at, cell)| {
            let (route, method) = (at / METHODS.len(), at % METHODS.len());
            let labels = [("method", METHODS[method]), ("route", route::label(route))];
            Some((labels, &**cell.get()?))
        })
    }
}

impl Cell {
    fn durations(&self) -> Distribution {
        let mut all = self.0[0].durations.read();
        for share in &self.0[1..] {
            all.merge(&share.durations.read());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_plain_reads_is_timed_and_all_are_counted() {
        let metrics = Metrics::new();
        let mut asked = Asked::by(&Method::GET);
        asked.route = route::KV.number;

        let timed = (0..64).filter(|_| {
            let began = begin(true);
            metrics.answered_now(asked, StatusCode::OK, true, began.map(|began| began.elapsed()));
            began.is_some()
        });

        assert_eq!(timed.count(), 4);
        let mut page = Page::default();
        metrics.add_to(&mut page);
        let text = page.prometheus();
        let labels = "method=\"GET\",route=\"/v1/kv/\"";
        assert!(
            text.contains(&format!(
                "lictor_http_requests_total{{{labels},status=\"2xx\"}} 64\n"
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "lictor_http_request_duration_seconds_count{{{labels}}} 64\n"
            )),
            "{text}"
        );
        assert!(
            text.contains("consul_api_http_count{method=\"GET\",path=\"v1_kv_\"} 64\n"),
            "{text}"
        );
    }

    #[test]
    fn whatever_has_a_query_is_timed() {
        assert!((0..20).all(|_| begin(false).is_some()));
    }

    #[test]
    fn every_route_has_a_label_of_its_own() {
        let mut labels: Vec<_> = (0..route::NUMBERS).map(route::label).collect();
        labels.sort_unstable();
        labels.dedup();

        assert_eq!(labels.len(), route::NUMBERS);
        assert!(labels.contains(&"/v1/kv/") && labels.contains(&"other"));
    }
}
