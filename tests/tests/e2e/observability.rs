//! What operators see: metrics in both forms, the log of slow operations, one write's way in the finest log, and that the
//! documentation and the dashboard speak of what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lictor_tests::{Options, Server, until};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);
const PROMETHEUS: &str = "/v1/agent/metrics?format=prometheus";

/// A page in the text format of Prometheus, checked against its rules.
#[derive(Debug, Default)]
struct Page {
    /// Kind and help of each metric.
    families: BTreeMap<String, (String, String)>,
    /// By name and labels as they stand there.
    series: BTreeMap<String, f64>,
}

impl Page {
    fn of(server: &Server) -> Result<Self> {
        let answer = server.get(PROMETHEUS)?;
        ensure!(
            answer.header("Content-Type") == Some("text/plain; version=0.0.4; charset=utf-8"),
            "{:?}",
            answer.header("Content-Type")
        );
        Self::parse(&answer.text())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut page = Self::default();
        let mut helps = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').context("HELP without a text")?;
                ensure!(helps.insert(name, help).is_none(), "two HELP of {name}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').context("TYPE without a kind")?;
                ensure!(
                    ["counter", "gauge", "histogram", "summary"].contains(&kind),
                    "{line}"
                );
                let help = helps
                    .get(name)
                    .with_context(|| format!("no HELP before {line}"))?;
                let described = (kind.to_owned(), (*help).to_owned());
                ensure!(
                    page.families.insert(name.to_owned(), described).is_none(),
                    "twice: {line}"
                );
                name.clone_into(&mut current);
            } else {
                let (series, value) = line.rsplit_once(' ').with_context(|| format!("odd: {line:?}"))?;
                let (name, _) = series.split_once('{').unwrap_or((series, ""));
                ensure!(
                    page.family_of(name).is_some_and(|family| family == current),
                    "{line} after {current}"
                );
                let value = value.parse().with_context(|| line.to_owned())?;
                ensure!(
                    page.series.insert(series.to_owned(), value).is_none(),
                    "twice: {series}"
                );
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    /// The metric that a series belongs to.
    fn family_of<'a>(&self, series: &'a str) -> Option<&'a str> {
        if self.families.contains_key(series) {
            return Some(series);
        }
        let parts: &[(&str, &[&str])] = &[
            ("histogram", &["_bucket", "_sum", "_count"]),
            ("summary", &["_sum", "_count"]),
        ];
        parts.iter().find_map(|(kind, ends)| {
            let names = ends.iter().filter_map(|end| series.strip_suffix(end));
            names
                .into_iter()
                .find(|name| self.families.get(*name).is_some_and(|(of, _)| of == kind))
        })
    }

    /// Buckets grow with their bounds, and the last one has all values.
    fn check_histograms(&self) -> Result<()> {
        let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, count) in &self.series {
            let Some((name, labels)) = series.split_once("_bucket{") else {
                continue;
            };
            let (others, bound) = labels.rsplit_once("le=\"").context("a bucket without a bound")?;
            let bound = bound.trim_end_matches("\"}");
            let bound = bound.parse().with_context(|| series.clone())?;
            let others = others.trim_end_matches(',');
            let of = if others.is_empty() {
                name.to_owned()
            } else {
                format!("{name}{{{others}}}")
            };
            buckets.entry(of).or_default().push((bound, *count));
        }
        ensure!(!buckets.is_empty(), "no histogram at all");
        for (of, mut buckets) in buckets {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            ensure!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{of}: {buckets:?}");
            let (bound, all) = buckets.pop().context("no bucket")?;
            let (name, labels) = of
                .split_once('{')
                .map_or((of.as_str(), String::new()), |(name, labels)| {
                    (name, format!("{{{labels}"))
                });
            let count = self.series.get(&format!("{name}_count{labels}"));
            ensure!(
                bound.is_infinite() && count == Some(&all),
                "{of}: {count:?}, {all}"
            );
            ensure!(
                self.series.contains_key(&format!("{name}_sum{labels}")),
                "{of} has no sum"
            );
        }
        Ok(())
    }

    /// One series; 0 if it is not there.
    fn value(&self, series: &str) -> f64 {
        self.series.get(series).copied().unwrap_or_default()
    }
}

fn requests(method: &str, route: &str, status: &str) -> String {
    format!("lictor_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}")
}

/// Servers of ours alone: the names are ours.
fn skips() -> Result<bool> {
    let is_consul = lictor_tests::is_consul()?;
    if is_consul {
        crate::skip("Lictor's own metrics")?;
    }
    Ok(is_consul)
}

#[test]
fn requests_are_counted_by_route_and_status() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let server = Server::start()?;
    let before = Page::of(&server)?;

    for key in ["a", "b", "c"] {
        assert!(server.put(&format!("/v1/kv/{key}"), "v")?.is_true());
    }
    for _ in 0..20 {
        assert_eq!(server.get("/v1/kv/a")?.status, 200);
    }
    for _ in 0..2 {
        assert_eq!(server.get("/v1/kv/none?raw")?.status, 404);
    }
    assert_eq!(server.client().call("POST", "/v1/kv/a", &[], b"")?.status, 405);
    assert_eq!(server.put("/v1/session/create", "{")?.status, 400);
    assert_eq!(server.get("/v1/no-such-path")?.status, 404);

    let after = Page::of(&server)?;
    let moved = |series: &str| after.value(series) - before.value(series);
    for (series, count) in [
        (requests("PUT", "/v1/kv/", "2xx"), 3.0),
        (requests("GET", "/v1/kv/", "2xx"), 20.0),
        (requests("GET", "/v1/kv/", "4xx"), 2.0),
        (requests("POST", "/v1/kv/", "4xx"), 1.0),
        (requests("PUT", "/v1/session/create", "4xx"), 1.0),
        (requests("GET", "other", "4xx"), 1.0),
        (requests("GET", "/v1/agent/metrics", "2xx"), 1.0),
    ] {
        assert!(
            (moved(&series) - count).abs() < 0.5,
            "{series}: {}",
            moved(&series)
        );
    }
    for (series, count) in [
        (
            "lictor_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/kv/\"}",
            22.0,
        ),
        (
            "lictor_http_request_duration_seconds_count{method=\"PUT\",route=\"/v1/kv/\"}",
            3.0,
        ),
        ("consul_kvs_apply_count", 3.0),
        ("lictor_apply_commands_total{kind=\"kv_set\"}", 3.0),
        ("lictor_sessions_created_total", 0.0),
    ] {
        assert!((moved(series) - count).abs() < 0.5, "{series}: {}", moved(series));
    }
    for series in [
        "consul_raft_apply",
        "lictor_raft_log_sync_duration_seconds_count",
        "lictor_apply_duration_seconds_count",
        "consul_raft_wal_log_entry_bytes_written",
        "lictor_http_received_bytes_total",
        "lictor_http_sent_bytes_total",
    ] {
        assert!(moved(series) > 0.0, "{series}");
    }
    assert!(after.value("process_resident_memory_bytes") > 1e6);
    assert!(after.value("lictor_queue_capacity{queue=\"proposals\"}") > 0.0);
    Ok(())
}

#[test]
fn sessions_and_watches_are_counted() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let server = Server::start()?;
    server.put("/v1/kv/w", "1")?;
    let before = Page::of(&server)?;

    let session = server.session("{\"TTL\": \"10s\"}")?;
    server.put(&format!("/v1/session/renew/{session}"), "")?;
    let active = Page::of(&server)?.value("consul_session_ttl_active");
    server.put(&format!("/v1/session/destroy/{session}"), "")?;
    let index = server.get("/v1/kv/w")?.index()?;
    let watch = server.watch(format!("/v1/kv/w?index={index}&wait=60s"));
    server.await_waiting_queries(1)?;
    server.put("/v1/kv/w", "2")?;
    assert_eq!(watch.join().expect("no panic")?.status, 200);

    let after = Page::of(&server)?;
    assert!((active - 1.0).abs() < 0.5);
    for series in [
        "lictor_sessions_created_total",
        "lictor_sessions_renewed_total",
        "lictor_sessions_ended_total",
        "lictor_watches_woken_total",
        "lictor_watches_registered_total",
    ] {
        let moved = after.value(series) - before.value(series);
        assert!((moved - 1.0).abs() < 0.5, "{series}: {moved}");
    }
    Ok(())
}

#[test]
fn connections_that_are_refused_are_counted() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let server = Server::with(Options {
        hcl: "limits { http_max_conns_per_client = 3 }".to_owned(),
        ..Options::default()
    })?;
    let (mut held, mut refused) = (Vec::new(), 0_u32);
    for _ in 0..6 {
        let mut client = server.client();
        // Whoever is refused may see the end of the connection before the answer.
        let is_in = client
            .get("/v1/status/leader")
            .is_ok_and(|answer| answer.status == 200);
        if is_in {
            held.push(client);
        } else {
            refused += 1;
        }
    }
    assert!(refused > 0, "{} are in", held.len());
    drop(held);

    // Their places come back when the server has noticed.
    let page = until("room for one more", LONG, || {
        let page = Page::of(&server).ok();
        refused += u32::from(page.is_none());
        Ok(page)
    })?;
    let counted = page.value("lictor_http_connections_refused_total");
    assert!((counted - f64::from(refused)).abs() < 0.5, "{counted}, {refused}");
    Ok(())
}

#[test]
fn the_json_has_the_shape_of_consuls() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/a", "v")?;
    // Consul tells of the last ten seconds, and not at once.
    until("a sample of a write", LONG, || {
        let metrics = server.get("/v1/agent/metrics")?.json()?;
        let samples = metrics["Samples"].as_array().cloned().unwrap_or_default();
        let is_there = samples.iter().any(|sample| sample["Name"] == "consul.kvs.apply");
        Ok(is_there.then_some(()))
    })?;

    let metrics = server.get("/v1/agent/metrics")?.json()?;

    for list in ["Gauges", "Points", "Counters", "Samples"] {
        assert!(metrics[list].is_array(), "{list}");
    }
    assert!(
        metrics["Timestamp"]
            .as_str()
            .is_some_and(|text| text.ends_with("+0000 UTC"))
    );
    let gauge = &metrics["Gauges"][0];
    assert!(gauge["Name"].is_string() && gauge["Value"].is_number() && gauge["Labels"].is_object());
    for list in ["Counters", "Samples"] {
        let one = &metrics[list][0];
        for key in ["Count", "Rate", "Sum", "Min", "Max", "Mean", "Stddev"] {
            assert!(one[key].is_number(), "{list}: {one}");
        }
        assert!(one["Name"].is_string() && one["Labels"].is_object(), "{one}");
        for one in metrics[list].as_array().into_iter().flatten() {
            assert!(one["Count"].is_u64(), "clients read a whole number: {one}");
        }
    }
    Ok(())
}

#[test]
fn what_is_slow_is_told_within_bounds() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let server = Server::with(Options {
        hcl: "slow_operation_threshold = \"1us\"".to_owned(),
        ..Options::default()
    })?;

    // Of many only some are told.
    until("a request to be told of", LONG, || {
        server.put("/v1/kv/slow/%22key", "v")?;
        Ok(server.log().contains("slow/").then_some(()))
    })?;
    for number in 0..200 {
        server.put(&format!("/v1/kv/storm/{number}"), "v")?;
    }

    let slow = |what: &str| {
        let log = server.log();
        log.lines()
            .filter(|line| line.contains(what))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let requests = slow("a slow request");
    let told = requests.iter().find(|line| line.contains("slow/"));
    let told = told.with_context(|| format!("{requests:?}"))?;
    // Quotes are escaped once for the key and once for the line.
    for part in [
        "WARN",
        "PUT",
        "/v1/kv/",
        "slow/",
        "key",
        "200",
        "duration_ms",
        "log_sync=",
        "apply=",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Ten of a kind in ten seconds; a slow machine may need more than one span.
    assert!((1..=100).contains(&requests.len()), "{}", requests.len());
    assert!(!slow("a slow sync of the raft log").is_empty());
    assert!(!slow("a slow apply of entries").is_empty());
    let page = Page::of(&server)?;
    let counted = |of: &str| page.value(&format!("lictor_slow_operations_total{{operation=\"{of}\"}}"));
    assert!(counted("request") >= 201.0, "{}", counted("request"));
    assert!(counted("log_sync") >= 1.0 && counted("apply") >= 1.0);
    Ok(())
}

#[test]
fn a_query_that_waits_is_not_slow() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let server = Server::with(Options {
        hcl: "slow_operation_threshold = \"3s\"".to_owned(),
        ..Options::default()
    })?;
    server.put("/v1/kv/patient", "v")?;
    let index = server.get("/v1/kv/patient")?.index()?;

    assert_eq!(
        server
            .get(&format!("/v1/kv/patient?index={index}&wait=3500ms"))?
            .status,
        200
    );

    assert!(!server.log().contains("a slow request"), "{}", server.log_tail());
    let page = Page::of(&server)?;
    let spent = page.value("lictor_http_request_duration_seconds_sum{method=\"GET\",route=\"/v1/kv/\"}");
    assert!(spent < 3.0, "{spent}");
    Ok(())
}

#[test]
fn the_finest_log_shows_the_way_of_a_write() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let server = Server::with(Options {
        args: vec!["-log-level=trace".to_owned(), "-log-json".to_owned()],
        ..Options::default()
    })?;

    server.put("/v1/kv/traced", "v")?;

    let lines: Vec<Value> = server
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let answered = lines.iter().find(|line| {
        line["message"] == "answered" && line["span"]["name"] == "request" && line["span"]["key"] == "traced"
    });
    let answered = answered.context("no answer")?;
    assert_eq!(answered["span"]["method"], "PUT");
    assert_eq!(answered["span"]["route"], "/v1/kv/");
    let spent = answered["spent"].as_str().unwrap_or_default();
    assert!(spent.contains("log_sync=") && spent.contains("apply="), "{spent}");
    let index = answered["index"].as_u64().context("no index")?;
    for message in [
        "entries go to the log",
        "synced the raft log",
        "applied and published",
    ] {
        let found = lines.iter().any(|line| {
            let (first, last) = (line["first"].as_u64(), line["last"].as_u64());
            line["message"] == message && first <= Some(index) && Some(index) <= last
        });
        assert!(found, "{message} {index}");
    }
    Ok(())
}

/// A file of the documentation.
fn document(name: &str) -> Result<String> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").context("cargo names the crate's folder")?;
    let path = PathBuf::from(root).join("../docs").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn the_documentation_lists_every_metric() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let page = Page::of(&Server::start()?)?;
    let rows = page.families.iter();
    let rows: Vec<_> = rows
        .map(|(name, (kind, help))| format!("| `{name}` | {kind} | {help} |"))
        .collect();

    let document = document("observability.md")?;
    let listed: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();

    assert_eq!(listed, rows, "the table should be:\n{}", rows.join("\n"));
    Ok(())
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_are_there() -> Result<()> {
    if skips()? {
        return Ok(());
    }
    let page = Page::of(&Server::start()?)?;
    let dashboard: Value = serde_json::from_str(&document("grafana.json")?)?;
    let mut asked = BTreeSet::new();
    expressions(&dashboard, &mut asked);
    let document = document("observability.md")?;
    let alerts = document
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    let alerts: Vec<_> = alerts.map(str::to_owned).collect();
    ensure!(
        !alerts.is_empty() && asked.len() > 20,
        "{} expressions",
        asked.len()
    );
    asked.extend(alerts);

    for expression in &asked {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        let names = words.filter(|word| {
            ["lictor_", "consul_", "process_"]
                .iter()
                .any(|begin| word.starts_with(begin))
        });
        let names: Vec<_> = names.collect();
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            assert!(page.family_of(name).is_some(), "{name} in {expression}");
        }
    }
    Ok(())
}

/// All that a dashboard asks of Prometheus.
fn expressions(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => {
                        found.insert(text.clone());
                    }
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn a_page_that_breaks_a_rule_is_noticed() {
    let good = "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\na_sum 3\na_count 2\n";
    Page::parse(good).expect("valid");
    for (from, to) in [
        ("a_count 2", "a_count 3"),
        ("le=\"1\"} 1", "le=\"1\"} 3"),
        ("# TYPE a histogram\n", ""),
        ("a_sum 3\n", "a_sum 3\na_sum 3\n"),
        ("a_sum 3\n", ""),
        ("a_sum 3", "b_sum 3"),
    ] {
        assert!(Page::parse(&good.replace(from, to)).is_err(), "{from} to {to:?}");
    }
}
