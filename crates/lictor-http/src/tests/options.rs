//! What an operator sets, as clients see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;

use super::Server;
use crate::{Limits, Monitor, Options};

/// The answers were recorded with the same settings.
#[tokio::test]
async fn configured_headers_are_on_every_answer_and_give_way_to_the_apis_own() {
    let mut response_headers = HeaderMap::new();
    for (name, value) in [
        (HeaderName::from_static("x-foo"), "bar"),
        (HeaderName::from_static("x-consul-index"), "9"),
        (header::VARY, "mine"),
    ] {
        response_headers.insert(name, HeaderValue::from_static(value));
    }
    let options = Options {
        response_headers: Arc::new(response_headers),
        ..Options::default()
    };
    let server = Server::with(Limits::default(), options).await;
    let mut client = server.connect().await;

    for (method, target, status) in [
        ("GET", "/v1/kv/a", 404),
        ("PUT", "/v1/kv/a", 200),
        ("GET", "/v1/kv/a?wait=1ms&index=999999", 200),
        ("POST", "/v1/status/leader", 405),
        ("GET", "/v1/nope", 404),
        ("GET", "/nope", 404),
    ] {
        let answer = client.request(method, target, "").await;
        assert_eq!(
            (answer.status, answer.header("X-Foo"), answer.header("Vary")),
            (status, Some("bar"), Some("mine")),
            "{method} {target}"
        );
    }
    assert_ne!(client.get("/v1/kv/a").await.header("X-Consul-Index"), Some("9"));
    assert_eq!(
        client.get("/v1/status/leader").await.header("X-Consul-Index"),
        Some("9")
    );
    // A redirect is made before the API looks at the request.
    assert_eq!(client.get("//v1/kv/a").await.header("X-Foo"), None);
}

#[tokio::test]
async fn blocked_endpoints_are_refused_by_the_prefix_of_the_decoded_path() {
    let options = Options {
        blocked_prefixes: vec![
            "/v1/status/lea".to_owned(),
            "/v1/kv/secret".to_owned(),
            "/nope".to_owned(),
        ],
        ..Options::default()
    };
    let server = Server::with(Limits::default(), options).await;
    let mut client = server.connect().await;

    for target in ["/v1/status/leader", "/v1/kv/secret/a", "/v1/kv/sec%72et"] {
        let answer = client.get(target).await;
        assert_eq!(
            (answer.status, answer.text()),
            (403, "Endpoint is blocked by agent configuration")
        );
        assert_eq!(
            answer.header("X-Consul-Default-Acl-Policy"),
            Some("allow"),
            "{target}"
        );
    }
    assert_eq!(client.put("/v1/kv/secret/a", "x").await.status, 403);
    for (method, target, status) in [
        ("POST", "/v1/status/leader", 403),
        ("GET", "/v1/kv/secret?%zz", 500),
        ("GET", "/v1/status/peers", 200),
        ("GET", "/v1/kv/secre", 404),
        ("GET", "/nope", 404),
    ] {
        assert_eq!(
            client.request(method, target, "").await.status,
            status,
            "{method} {target}"
        );
    }
    assert_eq!(server.node.view().kv_len(), 0);
}

#[tokio::test]
async fn the_shortest_ttl_of_a_session_is_a_setting() {
    let server = Server::start().await;
    server.node.set_session_ttl_min(Duration::from_secs(20));
    let mut client = server.connect().await;

    let refused = client.put("/v1/session/create", r#"{"TTL":"19s"}"#).await;
    let taken = client.put("/v1/session/create", r#"{"TTL":"20s"}"#).await;

    assert_eq!(
        (refused.status, refused.text()),
        (
            500,
            "Invalid Session TTL '19000000000', must be between [20s=24h0m0s]"
        )
    );
    assert_eq!(taken.status, 200);
}

/// The statuses and texts were recorded with a setting that leaves the client out.
#[tokio::test]
async fn only_the_networks_that_are_named_may_write() {
    let options = |network: &str| Options {
        writers: vec!["192.0.2.0/24".parse().unwrap(), network.parse().unwrap()],
        ..Options::default()
    };
    let closed = Server::with(Limits::default(), options("127.0.0.2/32")).await;
    let open = Server::with(Limits::default(), options("127.9.9.9/8")).await;
    let mut client = closed.connect().await;

    for (method, target) in [
        ("PUT", "/v1/kv/a"),
        ("DELETE", "/v1/kv/a"),
        ("PUT", "/v1/txn"),
        ("PUT", "/v1/session/create"),
        ("PUT", "/v1/agent/service/register"),
        ("PUT", "/v1/agent/token/default"),
    ] {
        let answer = client.request(method, target, "").await;
        assert_eq!(
            (answer.status, answer.text()),
            (403, "Access is restricted"),
            "{method} {target}"
        );
    }
    for (method, target, status) in [
        ("GET", "/v1/kv/a", 404),
        ("POST", "/v1/kv/a", 405),
        ("OPTIONS", "/v1/kv/a", 200),
        ("PUT", "/v1/nope", 404),
    ] {
        assert_eq!(
            client.request(method, target, "").await.status,
            status,
            "{method} {target}"
        );
    }
    assert_eq!(open.connect().await.put("/v1/kv/a", "").await.text(), "true");
}

#[tokio::test]
async fn a_unix_socket_is_in_no_network() {
    let writers = |list: &[&str]| Options {
        writers: list.iter().map(|network| network.parse().unwrap()).collect(),
        ..Options::default()
    };

    assert!(writers(&[]).may_write(None));
    assert!(!writers(&["0.0.0.0/0"]).may_write(None));
    assert!(writers(&["0.0.0.0/0"]).may_write(Some([192, 0, 2, 1].into())));
}

#[tokio::test]
async fn how_long_queries_wait_is_a_setting() {
    let limits = Limits {
        wait_default: Duration::ZERO,
        wait_max: Duration::from_millis(1),
        ..Limits::default()
    };
    let server = Server::with_limits(limits).await;
    let mut client = server.connect().await;

    // Without the settings these would wait for minutes.
    for target in ["/v1/kv/a?index=999999", "/v1/session/list?index=999999&wait=10m"] {
        assert!(client.get(target).await.index() < 999_999);
    }
}

/// As recorded.
#[tokio::test]
async fn redirects_carry_a_page_for_browsers() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    let slash = client.get("/v1/kv").await;
    let query = client.get("/v1//kv/a?x=1&y='z'").await;
    let write = client.put("/v1/kv", "").await;

    assert_eq!((slash.status, slash.header("Location")), (307, Some("/v1/kv/")));
    assert_eq!(slash.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(slash.text(), "<a href=\"/v1/kv/\">Temporary Redirect</a>.\n\n");
    assert_eq!(
        query.text(),
        "<a href=\"/v1/kv/a?x=1&amp;y=&#39;z&#39;\">Temporary Redirect</a>.\n\n"
    );
    assert_eq!((write.status, write.text()), (307, ""));
    assert_eq!(write.header("Content-Type"), None);
}

/// What clients are to see of the log is sent by the test.
fn monitored() -> (
    Options,
    std::sync::mpsc::Receiver<(LevelFilter, bool, mpsc::Sender<Bytes>)>,
) {
    let (asked, asks) = std::sync::mpsc::channel();
    let monitor = Monitor::new(move |level, is_json| {
        let (sender, lines) = mpsc::channel(8);
        asked.send((level, is_json, sender)).unwrap();
        Some(lines)
    });
    let options = Options {
        monitor: Some(monitor),
        ..Options::default()
    };
    (options, asks)
}

#[tokio::test]
async fn the_log_is_passed_on_line_by_line_until_the_server_stops() {
    let (options, asks) = monitored();
    let server = Server::with(Limits::default(), options).await;
    let mut client = server.connect().await;
    client
        .ask("GET", "/v1/agent/monitor?loglevel=debug&logjson", "")
        .await;
    let head = client.head().await;
    let (level, is_json, lines) = asks.recv().unwrap();

    lines.send(Bytes::from_static(b"one\n")).await.unwrap();
    lines.send(Bytes::from_static(b"two\n")).await.unwrap();

    assert_eq!((head.status, head.header("Content-Type")), (200, None));
    assert_eq!((level, is_json), (LevelFilter::DEBUG, true));
    assert_eq!(client.chunk().await, b"one\n");
    assert_eq!(client.chunk().await, b"two\n");
    server.handle.shutdown().await;
    assert_eq!(client.chunk().await, b"");
}

#[tokio::test]
async fn who_watches_the_log_and_leaves_is_forgotten() {
    let (options, asks) = monitored();
    let server = Server::with(Limits::default(), options).await;
    let mut client = server.connect().await;
    client.ask("GET", "/v1/agent/monitor", "").await;
    client.head().await;
    let (level, _, lines) = asks.recv().unwrap();

    drop(client);

    lines.closed().await;
    assert_eq!(level, LevelFilter::INFO);
}

#[tokio::test]
async fn unknown_levels_of_the_log_are_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    let refused = client.get("/v1/agent/monitor?loglevel=foo").await;
    let without = client.get("/v1/agent/monitor").await;

    assert_eq!((refused.status, refused.text()), (400, "Unknown log level: foo"));
    assert_eq!(without.status, 500);
}

#[tokio::test]
async fn a_coordinate_that_a_client_tells_is_shown() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let update = |node: &str, numbers: &str| {
        format!(
            r#"{{"Node":"{node}","Segment":"","Coord":{{"Vec":{numbers},"Error":1.5,"Adjustment":0,"Height":0.5}}}}"#
        )
    };
    let told = update("N1", "[0,0,0,0,0,0,0,2.5]");

    assert_eq!(client.put("/v1/coordinate/update", &told).await.status, 200);
    let stranger = update("stranger", "[0,0,0,0,0,0,0,0]");
    assert_eq!(client.put("/v1/coordinate/update", &stranger).await.status, 200);
    let flat = client.put("/v1/coordinate/update", &update("n1", "[1,2]")).await;
    let junk = client.put("/v1/coordinate/update", &update("n1", "\"x\"")).await;
    let shown = client.get("/v1/coordinate/node/n1").await;

    assert_eq!((flat.status, flat.text()), (500, "incompatible coordinate"));
    assert_eq!(junk.status, 400);
    assert_eq!(shown.text(), format!("[{}]", told.replace("N1", "n1")));
    assert_eq!(client.get("/v1/coordinate/node/stranger").await.status, 404);
}
