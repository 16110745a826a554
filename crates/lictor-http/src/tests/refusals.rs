//! What is refused, and in which order, as a running Consul was seen to.

use super::Server;
use super::client::Connection;

/// Routes that look for both, for partitions alone, and for neither.
#[tokio::test]
async fn routes_refuse_namespaces_and_partitions_that_consul_looks_for() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    for (method, target, body, expected) in [
        ("GET", "/v1/kv/a", "", "nNpP"),
        ("PUT", "/v1/kv/a", "", "nNpP"),
        ("PUT", "/v1/session/create", "", "nNpP"),
        ("GET", "/v1/session/list", "", "nNpP"),
        ("GET", "/v1/catalog/services", "", "nNpP"),
        ("PUT", "/v1/catalog/register", "{}", "nNpP"),
        ("GET", "/v1/health/state/any", "", "nNpP"),
        ("GET", "/v1/agent/services", "", "nNpP"),
        ("PUT", "/v1/agent/service/register", "{}", "nNpP"),
        ("GET", "/v1/operator/usage", "", "nNpP"),
        ("PUT", "/v1/coordinate/update", "{}", "nNpP"),
        ("GET", "/v1/catalog/nodes", "", "pP"),
        ("GET", "/v1/coordinate/nodes", "", "pP"),
        ("GET", "/v1/coordinate/node/n1", "", "pP"),
        ("GET", "/v1/agent/members", "", "pP"),
        ("PUT", "/v1/agent/join/x", "", "pP"),
        ("PUT", "/v1/agent/force-leave/x", "", "pP"),
        ("POST", "/v1/operator/raft/transfer-leader", "", "pP"),
        ("PUT", "/v1/txn", "[]", ""),
        ("GET", "/v1/event/list", "", ""),
        ("PUT", "/v1/event/fire/e", "", ""),
        ("GET", "/v1/query", "", ""),
        ("GET", "/v1/query/x/execute", "", ""),
        ("GET", "/v1/operator/raft/configuration", "", ""),
        ("GET", "/v1/operator/autopilot/configuration", "", ""),
        ("PUT", "/v1/snapshot", "x", ""),
        ("GET", "/v1/status/leader", "", ""),
        ("GET", "/v1/agent/self", "", ""),
        ("GET", "/v1/catalog/datacenters", "", ""),
    ] {
        let plain = client.request(method, target, body).await;
        let mut refused = String::new();
        for (kind, query, header, named) in [
            ('n', "?ns=default", "X-Other", "query parameter: \"ns\""),
            ('N', "", "X-Consul-Namespace", "header: \"X-Consul-Namespace\""),
            (
                'p',
                "?partition=default",
                "X-Other",
                "query parameter: \"partition\"",
            ),
            ('P', "", "X-Consul-Partition", "header: \"X-Consul-Partition\""),
        ] {
            let asked = format!("{target}{query}");
            let answer = client
                .request_with(method, &asked, &[(header, "default")], body)
                .await;
            if answer.status == 400 && answer.text().starts_with(&format!("Invalid {named} - ")) {
                refused.push(kind);
            } else {
                assert_eq!(answer.status, plain.status, "{method} {asked} {header}");
            }
        }
        assert_eq!(refused, expected, "{method} {target}");
    }
}

/// The answer to a body with a name that is not known.
async fn assert_unknown(client: &mut Connection, target: &str, body: &str, name: &str) {
    let refused = client.put(target, body).await;
    let text = format!("Request decode failed: json: unknown field \"{name}\"");
    assert_eq!((refused.status, refused.text()), (400, text.as_str()), "{body}");
}

#[tokio::test]
async fn registrations_with_an_agent_name_nothing_that_is_paid_for() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    for (body, name) in [
        (r#"{"Name":"a","Namespace":"default"}"#, "Namespace"),
        (r#"{"Name":"a","partition":null}"#, "partition"),
        (r#"{"Name":"a","Check":{"TTL":"9s","Namespace":""}}"#, "Namespace"),
        (
            r#"{"Name":"a","Checks":[{"TTL":"9s","Partition":""}]}"#,
            "Partition",
        ),
    ] {
        assert_unknown(&mut client, "/v1/agent/service/register", body, name).await;
    }
    let check = r#"{"Name":"a","TTL":"9s","Partition":"x"}"#;
    assert_unknown(&mut client, "/v1/agent/check/register", check, "Partition").await;

    assert_eq!(client.get("/v1/agent/services").await.text(), "{}");
    assert_eq!(client.get("/v1/agent/checks").await.text(), "{}");
}

#[tokio::test]
async fn registrations_in_the_catalog_name_nothing_that_is_paid_for() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let node = |more: &str| format!(r#"{{"Node":"n2","Address":"192.0.2.2"{more}}}"#);

    for (more, name) in [
        (r#","PARTITION":"x""#, "PARTITION"),
        (r#","namespace":"x""#, "namespace"),
        (r#","Check":{"Name":"c","Partition":""}"#, "Partition"),
        (r#","Checks":[{"Name":"c","namespace":""}]"#, "namespace"),
    ] {
        assert_unknown(&mut client, "/v1/catalog/register", &node(more), name).await;
    }
    let deregistration = r#"{"Node":"n2","Partition":"x"}"#;
    assert_unknown(&mut client, "/v1/catalog/deregister", deregistration, "Partition").await;
    let coordinate = r#"{"Node":"n1","Partition":"x"}"#;
    assert_unknown(&mut client, "/v1/coordinate/update", coordinate, "Partition").await;
    let why = "Namespaces are a Consul Enterprise feature";
    for more in [r#","Namespace":"x""#, r#","Check":{"Name":"c","Namespace":null}"#] {
        let refused = client.put("/v1/catalog/register", &node(more)).await;
        let text = format!("Request decode failed: json: unknown field \"Namespace\" - {why}");
        assert_eq!((refused.status, refused.text()), (400, text.as_str()), "{more}");
    }

    assert_eq!(client.get("/v1/catalog/node/n2").await.text(), "null");
}

#[tokio::test]
async fn transactions_and_sessions_may_name_what_is_paid_for() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let set = r#"[{"KV":{"Verb":"set","Key":"k","Value":"","Namespace":"x","Partition":"y"}}]"#;

    assert_eq!(client.put("/v1/txn", set).await.status, 200);
    assert_eq!(
        client.put("/v1/txn", &set.replace("\"x\"", "1")).await.status,
        400
    );
    let session = r#"{"Namespace":"x","Partition":"y"}"#;
    assert_eq!(client.put("/v1/session/create", session).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_with_the_options_is_told_before_a_name_is_missed() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    for target in [
        "/v1/catalog/service/",
        "/v1/catalog/node/",
        "/v1/health/service/",
        "/v1/health/state/",
    ] {
        for (query, text) in [
            ("ns=x&index=x", "Invalid query parameter: \"ns\""),
            ("index=x", "Invalid index"),
            ("stale&consistent", "Cannot specify ?stale"),
            ("dc=nope", "Missing "),
        ] {
            let answer = client.get(&format!("{target}?{query}")).await;
            assert_eq!(answer.status, 400, "{target}?{query}");
            assert!(
                answer.text().starts_with(text),
                "{target}?{query}: {}",
                answer.text()
            );
        }
    }
    // These routes have no options, or fewer.
    for (method, target, body, status) in [
        ("PUT", "/v1/session/create?index=x", "{}", 200),
        ("PUT", "/v1/session/destroy/x?stale&consistent", "", 200),
        ("GET", "/v1/event/list?stale&consistent", "", 200),
        ("GET", "/v1/event/list?index=x", "", 400),
        ("GET", "/v1/agent/service/x?stale&consistent", "", 404),
        ("GET", "/v1/agent/service/x?wait=x", "", 400),
        ("GET", "/v1/status/leader?index=x", "", 400),
        ("GET", "/v1/status/peers?max_stale=x", "", 400),
        ("GET", "/v1/coordinate/node/", "", 404),
        ("GET", "/v1/coordinate/node/?index=x", "", 400),
        ("PUT", "/v1/snapshot?stale", "x", 500),
    ] {
        assert_eq!(
            client.request(method, target, body).await.status,
            status,
            "{method} {target}"
        );
    }
}

#[tokio::test]
async fn heads_that_gos_server_refuses_end_the_connection() {
    let server = Server::start().await;
    for (head, line, text) in [
        (
            "GET /v1/kv/a HTTP/1.1\r\n",
            "400 Bad Request: missing required Host header",
            None,
        ),
        (
            "GET /v1/kv/a HTTP/1.1\r\nHost: a/b\r\n",
            "400 Bad Request: malformed Host header",
            None,
        ),
        (
            "GET /v1/kv/a HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
            "400 Bad Request",
            None,
        ),
        (
            "PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n",
            "501 Not Implemented",
            Some("Unsupported transfer encoding"),
        ),
        (
            "PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: foo\r\n",
            "417 Expectation Failed",
            Some(""),
        ),
    ] {
        let mut client = server.connect().await;
        client.send(format!("{head}\r\n")).await;

        let answer = client.answer().await;

        assert_eq!(
            answer.head.lines().next(),
            Some(format!("HTTP/1.1 {line}").as_str()),
            "{head}"
        );
        assert_eq!(answer.text(), text.unwrap_or(line), "{head}");
        assert_eq!(answer.header("Connection"), Some("close"), "{head}");
        client.closed().await;
    }
    assert_eq!(server.node.view().kv_len(), 0);
    let mut client = server.connect().await;
    client.send("GET /v1/status/leader HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn lists_of_health_heed_what_consul_heeds() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let registration = r#"{"Node":"a1","Address":"192.0.2.1","NodeMeta":{"x":"y"},
        "Service":{"Service":"db"},"Check":{"Name":"c","ServiceID":"db","Status":"warning"}}"#;
    assert_eq!(
        client.put("/v1/catalog/register", registration).await.text(),
        "true"
    );
    let other = registration.replace("a1", "b1").replace("\"y\"", "\"z\"");
    assert_eq!(client.put("/v1/catalog/register", &other).await.text(), "true");

    // The checks of one node are shown whatever its metadata.
    let of_node = client.get("/v1/health/node/a1?node-meta=x:other").await;
    assert!(of_node.text().contains("\"CheckID\":\"c\""), "{}", of_node.text());
    assert_eq!(
        client.get("/v1/health/checks/db?node-meta=x:other").await.text(),
        "[]"
    );

    for list in [
        "/v1/health/state/warning",
        "/v1/health/checks/db",
        "/v1/health/service/db",
    ] {
        let first = |answer: &super::client::Answer| {
            let text = answer.text();
            text.find("\"a1\"").unwrap() < text.find("\"b1\"").unwrap()
        };
        assert!(first(&client.get(list).await), "{list}");
        assert!(!first(&client.get(&format!("{list}?near=b1")).await), "{list}");
    }

    assert_eq!(client.get("/v1/health/service/db?peer=x").await.text(), "[]");
    assert_ne!(client.get("/v1/health/service/db?peer=").await.text(), "[]");
    for list in [
        "/v1/health/service/db",
        "/v1/health/connect/db",
        "/v1/health/ingress/db",
    ] {
        let refused = client.get(&format!("{list}?sg=x")).await;
        assert_eq!(
            (refused.status, refused.text()),
            (500, "sameness groups are not supported in consul CE")
        );
        let refused = client.get(&format!("{list}?passing=x")).await;
        assert_eq!(
            (refused.status, refused.text()),
            (400, "Invalid value for ?passing")
        );
    }
}

#[tokio::test]
async fn odd_texts_are_read_as_gos_decoder_reads_them() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    for body in [
        r#"{"Name":"web","Meta":{"a":"1"},"Meta":{"b":"\ud800"},"Port":7,"Port":null}"#,
        r#"{"NAME":"db","name":"cache"} trailing"#,
    ] {
        assert_eq!(
            client.put("/v1/agent/service/register", body).await.status,
            200,
            "{body}"
        );
    }

    let shown = client.get("/v1/agent/service/web").await;
    assert!(
        shown.text().contains("\"Meta\":{\"a\":\"1\",\"b\":\"\u{fffd}\"}"),
        "{}",
        shown.text()
    );
    assert!(shown.text().contains("\"Port\":7"), "{}", shown.text());
    assert_eq!(client.get("/v1/agent/service/cache").await.status, 200);
    let cut_off = client.put("/v1/agent/service/register", r#"{"Name":"#).await;
    assert_eq!(
        (cut_off.status, cut_off.text()),
        (400, "Request decode failed: unexpected EOF")
    );
}
