//! Reads beyond Consul's API, over real connections.

use lictor_proto::Command;
use lictor_proto::v1::ReapTombstones;

use super::client::Connection;
use super::{Server, until};

/// Waits until so many queries sleep.
async fn sleepers(server: &Server, count: usize) {
    until("the expected number of queries sleeps", || {
        // One is the agent's, who waits for a restore.
        server.node.watches().waiters() == count + 1
    })
    .await;
}

/// The next event of a stream; heartbeats are passed over.
async fn event(stream: &mut Connection) -> String {
    let mut text = String::new();
    loop {
        text.push_str(std::str::from_utf8(&stream.chunk().await).unwrap());
        if let Some(event) = text.strip_suffix("\n\n") {
            if !event.starts_with(':') {
                return event.to_owned();
            }
            text.clear();
        }
    }
}

async fn stream(server: &Server, target: &str, headers: &str) -> Connection {
    let mut stream = server.connect().await;
    stream
        .send(format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{headers}\r\n"
        ))
        .await;
    let head = stream.head().await;
    assert_eq!(
        (head.status, head.header("Content-Type")),
        (200, Some("text/event-stream"))
    );
    stream
}

/// Rule R14.
#[tokio::test]
async fn r14_who_knows_that_a_key_is_missing_sleeps_through_writes_elsewhere() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    writer.put("/v1/kv/other", "1").await;
    for target in ["/v1/kv/a?", "/v1/kv/d/?recurse&", "/v1/kv/d/?keys&"] {
        let known = watcher.get(target).await.index();
        let at_once = watcher.get(&format!("{target}index=1")).await;
        assert_eq!(at_once.status, 404, "{target}");
        writer.put("/v1/kv/other", target).await;

        watcher.ask("GET", &format!("{target}index={known}"), "").await;
        sleepers(&server, 1).await;
        writer.put("/v1/kv/a", "here").await;
        writer.put("/v1/kv/d/x", "here").await;

        let told = watcher.answer().await;
        assert!(told.status == 200 && told.index() > known, "{target}");
        writer.request("DELETE", "/v1/kv/a", "").await;
        writer.request("DELETE", "/v1/kv/d/?recurse", "").await;
        let gone = watcher.get(&format!("{target}index={}", told.index())).await;
        assert_eq!(gone.status, 404, "what was deleted meanwhile is told: {target}");
    }
}

/// Rule R14.
#[tokio::test]
async fn r14_who_knows_a_session_sleeps_through_other_sessions() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut watcher = server.connect().await;
    let session = async |client: &mut Connection| {
        let answer = client.put("/v1/session/create", "{}").await;
        let id: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        id["ID"].as_str().unwrap().to_owned()
    };
    let id = session(&mut client).await;
    let known = watcher.get(&format!("/v1/session/info/{id}")).await.index();
    session(&mut client).await;

    watcher
        .ask("GET", &format!("/v1/session/info/{id}?index={known}"), "")
        .await;
    sleepers(&server, 1).await;
    client.put(&format!("/v1/session/destroy/{id}"), "").await;

    assert_eq!(watcher.answer().await.text(), "[]");
}

#[tokio::test]
async fn changes_name_deletes_and_an_index_too_old_gets_everything() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/p/a", "1").await;
    client.put("/v1/kv/p/b", "1").await;
    client.put("/v1/kv/p/d/x", "1").await;
    let known = client.get("/v1/kv/p/?recurse").await.index();
    client.put("/v1/kv/p/b", "2").await;
    client.request("DELETE", "/v1/kv/p/a", "").await;
    client.request("DELETE", "/v1/kv/p/d/?recurse", "").await;

    let changes = client
        .get(&format!("/v1/kv/p/?recurse&changed&novalue&index={known}"))
        .await;
    let all = client.get("/v1/kv/p/?recurse&changed").await;

    let shown: serde_json::Value = serde_json::from_slice(&changes.body).unwrap();
    let index = |at: usize| shown[at]["ModifyIndex"].as_u64().unwrap();
    assert_eq!(
        (shown[0]["Key"].as_str(), &shown[0]["Value"]),
        (Some("p/b"), &serde_json::Value::Null)
    );
    let deleted = |name: &str, key: &str, at| {
        let index = index(at);
        serde_json::json!({ name: key, "Deleted": true, "ModifyIndex": index })
    };
    assert_eq!(shown[1], deleted("Key", "p/a", 1));
    assert_eq!(shown[2], deleted("Prefix", "p/d/", 2));
    assert!(index(0) < index(1) && index(1) < index(2) && index(2) == changes.index());
    assert_eq!(changes.header("X-Lictor-Full"), None);
    assert_eq!(all.header("X-Lictor-Full"), Some("true"));
    assert!(all.text().contains("p/b") && !all.text().contains("Deleted"));
}

#[tokio::test]
async fn one_watch_covers_keys_and_prefixes() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    writer.put("/v1/kv/b/1", "1").await;
    let target = "/v1/kv-watch?key=a&prefix=b/";
    let first = watcher.get(target).await;
    assert!(first.text().contains("\"b/1\""), "{}", first.text());

    watcher
        .ask("GET", &format!("{target}&index={}", first.index()), "")
        .await;
    sleepers(&server, 1).await;
    writer.put("/v1/kv/c", "no matter").await;
    writer.put("/v1/kv/a", "here").await;
    let second = watcher.answer().await;
    writer.request("DELETE", "/v1/kv/b/1", "").await;
    let changes = watcher
        .get(&format!("{target}&changed&index={}", second.index()))
        .await;

    assert!(
        second.text().starts_with(r#"[{"LockIndex":0,"Key":"a""#),
        "{}",
        second.text()
    );
    assert!(
        changes.text().starts_with(r#"[{"Key":"b/1","Deleted":true"#),
        "{}",
        changes.text()
    );
    for bad in ["/v1/kv-watch", "/v1/kv-watch?key="] {
        assert_eq!(watcher.get(bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_stream_tells_what_there_is_and_each_change_and_goes_on_where_it_was_left() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    let mut one = stream(&server, "/v1/kv/a?pretty", "").await;
    let missing = event(&mut one).await;
    assert!(missing.ends_with("\nevent: missing\ndata: null"), "{missing}");

    writer.put("/v1/kv/b", "no matter").await;
    writer.put("/v1/kv/a", "1").await;
    let first = event(&mut one).await;
    let index = writer.get("/v1/kv/a").await.index();
    let row = writer.get("/v1/kv/a").await;
    assert_eq!(first, format!("id: {index}\ndata: {}", row.text()));

    drop(one);
    let mut again = stream(&server, "/v1/kv/a", &format!("Last-Event-ID: {index}\r\n")).await;
    sleepers(&server, 1).await;
    writer.put("/v1/kv/a", "2").await;
    let second = event(&mut again).await;
    assert!(
        second.starts_with("id: ") && second.contains("\"Value\":\"Mg==\""),
        "{second}"
    );
    drop(again);
    sleepers(&server, 0).await;
}

#[tokio::test]
async fn a_stream_of_changes_tells_only_what_changed() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    writer.put("/v1/kv/p/a", "1").await;
    writer.put("/v1/kv/p/b", "1").await;
    let mut changes = stream(&server, "/v1/kv/p/?recurse&changed", "").await;
    let all = event(&mut changes).await;
    assert!(all.contains("p/a") && all.contains("p/b"));

    writer.request("DELETE", "/v1/kv/p/a", "").await;

    let change = event(&mut changes).await;
    assert!(
        change.contains(r#"data: [{"Key":"p/a","Deleted":true,"#),
        "{change}"
    );
    assert!(!change.contains("p/b"));
}

/// The next heartbeat comes within its time.
async fn heartbeat(stream: &mut Connection) {
    while &*stream.chunk().await != b":\n\n" {}
}

#[tokio::test]
async fn a_stream_of_changes_on_quiet_keys_is_not_told_all_when_deletes_elsewhere_are_forgotten() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    writer.put("/v1/kv/quiet/a", "1").await;
    writer.put("/v1/kv/loud", "1").await;
    let mut changes = stream(&server, "/v1/kv/quiet/?recurse&changed", "").await;
    assert!(event(&mut changes).await.contains("quiet/a"));
    writer.request("DELETE", "/v1/kv/loud", "").await;

    heartbeat(&mut changes).await;
    let index = server.node.view().newest_tombstone().unwrap().0;
    let reap = Command::ReapTombstones(ReapTombstones { index });
    server.node.propose(reap).await.unwrap();
    assert_eq!(server.node.view().tombstone_horizon().0, index);
    heartbeat(&mut changes).await;
    writer.put("/v1/kv/quiet/b", "2").await;

    let change = event(&mut changes).await;
    assert!(
        change.contains("quiet/b") && !change.contains("quiet/a"),
        "{change}"
    );
    assert!(!change.contains("event: full"), "{change}");
}

#[tokio::test]
async fn the_catalog_streams_too_and_what_cannot_wait_answers_as_ever() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut nodes = stream(&server, "/v1/catalog/nodes", "").await;
    assert!(event(&mut nodes).await.contains("\"Node\":\"n1\""));

    let ask = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{headers}\r\n")
    };
    client.send(ask("/v1/status/leader", "")).await;
    let plain = client.answer().await;
    assert_eq!(plain.header("Content-Type"), Some("application/json"));
    client.put("/v1/kv/k", "v").await;
    client.send(ask("/v1/kv/k?raw", "")).await;
    assert_eq!(client.answer().await.text(), "v");
    client.send(ask("/v1/kv/k", "Last-Event-ID: x\r\n")).await;
    assert_eq!(client.answer().await.status, 400);
    client
        .send("GET /v1/kv/k HTTP/1.1\r\nHost: x\r\nAccept: application/json, text/event-stream\r\n\r\n")
        .await;
    assert_eq!(
        client.answer().await.header("Content-Type"),
        Some("application/json")
    );
}

#[tokio::test]
async fn a_stop_ends_streams() {
    let server = Server::start().await;
    let mut stream = stream(&server, "/v1/kv/a", "").await;
    event(&mut stream).await;
    sleepers(&server, 1).await;

    let ended = async { while !stream.chunk().await.is_empty() {} };
    let ((), ()) = tokio::join!(server.handle.shutdown(), ended);
}

#[tokio::test]
async fn an_export_is_what_the_command_line_writes() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/p/a%22?flags=7", "1").await;
    client.put("/v1/kv/p/b", "").await;

    let exported = client.get("/v1/kv/p/?export").await;
    let nothing = client.get("/v1/kv/none/?export").await;

    let expected = "[\n\t{\n\t\t\"key\": \"p/a\\\"\",\n\t\t\"flags\": 7,\n\t\t\"value\": \"MQ==\"\n\t},\n\t{\n\t\t\"key\": \
                    \"p/b\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"\"\n\t}\n]\n";
    assert_eq!(exported.text(), expected);
    assert_eq!((nothing.status, nothing.text()), (200, "[]\n"));
}
