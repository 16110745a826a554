//! Lists that are too long for one buffer.

use std::io::Read as _;

use super::Server;
use super::client::{Answer, Connection};

/// Twelve keys of 150 KiB: 2.4 MB as JSON.
async fn filled() -> (Server, Connection) {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let value = "x".repeat(150 * 1024);
    for at in 0..12 {
        client.put(&format!("/v1/kv/l/{at:02}?flags={at}"), &value).await;
    }
    (server, client)
}

fn flags(list: &[u8]) -> Vec<u64> {
    let rows: serde_json::Value = serde_json::from_slice(list).unwrap();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["Flags"].as_u64().unwrap()).collect()
}

async fn packed(client: &mut Connection, target: &str) -> Answer {
    client
        .send(format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
        ))
        .await;
    client.answer().await
}

#[tokio::test]
async fn a_long_list_goes_out_in_pieces_and_is_whole() {
    let (_server, mut client) = filled().await;

    let plain = client.get("/v1/kv/l/?recurse").await;
    let pretty = client.get("/v1/kv/l/?recurse&pretty").await;
    let short = client.get("/v1/kv/l/0?recurse").await;

    assert_eq!(plain.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(plain.header("Content-Length"), None);
    assert_eq!(plain.header("Content-Type"), Some("application/json"));
    assert_eq!(plain.index(), short.index() + 2);
    assert_eq!(flags(&plain.body), (0..12).collect::<Vec<_>>());
    let mut expected = crate::json::indented(&plain.body);
    expected.push(b'\n');
    assert!(pretty.body == expected);
    // Ten of them are still too long, and eight of another name are not there.
    assert_eq!(flags(&short.body), (0..10).collect::<Vec<_>>());
    assert_eq!(client.get("/v1/kv/m?recurse").await.status, 404);
    // The connection goes on after the last chunk.
    assert_eq!(client.get("/v1/status/leader").await.status, 200);
}

#[tokio::test]
async fn a_long_list_is_packed_piece_by_piece() {
    let (_server, mut client) = filled().await;

    let plain = client.get("/v1/kv/l/?recurse").await;
    let packed = packed(&mut client, "/v1/kv/l/?recurse").await;

    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == plain.body);
}

#[tokio::test]
async fn a_long_list_of_names_goes_out_in_pieces() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let long = "k".repeat(60_000);
    for at in 0..20 {
        client.put(&format!("/v1/kv/n/{at:02}{long}/x"), "").await;
    }

    let answer = client.get("/v1/kv/n/?keys&separator=/").await;

    assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
    let names: Vec<String> = serde_json::from_slice(&answer.body).unwrap();
    let expected: Vec<_> = (0..20).map(|at| format!("n/{at:02}{long}/")).collect();
    assert!(names == expected);
}

#[tokio::test]
async fn a_long_transaction_goes_out_in_pieces() {
    let (_server, mut client) = filled().await;
    let trees = r#"[{"KV":{"Verb":"get-tree","Key":"l/"}},{"KV":{"Verb":"get","Key":"l/00"}}]"#;
    let writes = r#"[{"KV":{"Verb":"set","Key":"k","Value":"eA=="}},{"KV":{"Verb":"get-tree","Key":"l/"}}]"#;

    for (ops, count) in [(trees, 13), (writes, 13)] {
        let answer = client.put("/v1/txn", ops).await;

        assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
        let shown: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(shown["Results"].as_array().unwrap().len(), count);
        assert!(shown["Errors"].is_null());
    }
}

#[tokio::test]
async fn long_lists_of_sessions_and_of_the_catalog_go_out_in_pieces() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let long = "n".repeat(100_000);
    for at in 0..12 {
        let check = format!(r#"{{"CheckID":"c{at}","Name":"c","ServiceID":"s{at}","Notes":"{long}"}}"#);
        let service = format!(r#"{{"ID":"s{at}","Service":"web","Tags":["{long}"]}}"#);
        let body = format!(
            r#"{{"Node":"other","Address":"192.0.2.1","SkipNodeUpdate":true,"Service":{service},"Check":{check}}}"#
        );
        assert_eq!(client.put("/v1/catalog/register", &body).await.text(), "true");
        let node = format!(r#"{{"Node":"m{at}","Address":"192.0.2.1","NodeMeta":{{"m":"{long}"}}}}"#);
        assert_eq!(client.put("/v1/catalog/register", &node).await.text(), "true");
        let session = format!(r#"{{"Name":"{long}"}}"#);
        assert_eq!(client.put("/v1/session/create", &session).await.status, 200);
    }

    for (path, part, count) in [
        ("/v1/session/list", "", 12),
        ("/v1/session/node/n1", "", 12),
        ("/v1/catalog/nodes", "", 14),
        ("/v1/catalog/service/web", "", 12),
        ("/v1/catalog/node/other", "/Services", 12),
        ("/v1/catalog/node-services/other", "/Services", 12),
        ("/v1/health/service/web", "", 12),
        ("/v1/health/node/other", "", 12),
        ("/v1/health/checks/web", "", 12),
        ("/v1/health/state/critical", "", 12),
    ] {
        let answer = client.get(path).await;

        assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"), "{path}");
        let shown: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let shown = shown.pointer(part).unwrap();
        let len = shown
            .as_array()
            .map_or_else(|| shown.as_object().unwrap().len(), Vec::len);
        assert_eq!(len, count, "{path}");
    }
}

#[tokio::test]
async fn who_waits_for_a_long_list_gets_all_of_it() {
    let (server, mut client) = filled().await;
    let mut writer = server.connect().await;
    let index = client.get("/v1/kv/l/?recurse").await.index();
    client
        .ask("GET", &format!("/v1/kv/l/?recurse&index={index}"), "")
        .await;

    writer.put("/v1/kv/l/99?flags=99", "").await;

    let answer = client.answer().await;
    assert!(answer.index() > index);
    assert_eq!(flags(&answer.body), (0..12).chain([99]).collect::<Vec<_>>());
}
