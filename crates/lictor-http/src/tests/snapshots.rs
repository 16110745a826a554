//! Archives through the API.

use super::Server;
use super::client::{Answer, Connection};

async fn put_archive(client: &mut Connection, archive: &[u8]) -> Answer {
    let len = archive.len();
    client
        .send(format!(
            "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n"
        ))
        .await;
    client.send(archive).await;
    client.answer().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_the_store_back() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/a?flags=3", "1").await;
    let then = client.get("/v1/kv/?recurse").await;

    let snapshot = client.get("/v1/snapshot").await;
    assert_eq!(snapshot.header("Content-Type"), Some("application/x-gzip"));
    assert_eq!(snapshot.header("X-Consul-Knownleader"), Some("true"));
    assert!(snapshot.index() >= then.index());
    client.put("/v1/kv/a", "2").await;
    client.put("/v1/kv/b", "new").await;
    let restored = put_archive(&mut client, &snapshot.body).await;

    assert_eq!((restored.status, restored.text()), (200, ""));
    assert_eq!(restored.header("Content-Type"), Some("application/octet-stream"));
    let now = client.get("/v1/kv/?recurse").await;
    assert_eq!((now.text(), now.index()), (then.text(), then.index()));
    assert_eq!(client.get("/v1/kv/b").await.status, 404);
    // The server puts itself back into the catalog, where it was when the snapshot was taken.
    assert!(client.get("/v1/catalog/nodes").await.text().contains("n1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_waits_is_answered_though_the_index_goes_back() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/a", "1").await;
    let snapshot = client.get("/v1/snapshot").await;
    client.put("/v1/kv/a", "2").await;
    let index = client.get("/v1/kv/a").await.index();
    let mut waiting = server.connect().await;
    waiting
        .ask("GET", &format!("/v1/kv/a?index={index}&wait=5m"), "")
        .await;
    super::until("the query sleeps", || server.node.watches().waiters() >= 2).await;

    put_archive(&mut client, &snapshot.body).await;

    let answer = waiting.answer().await;
    assert!(answer.text().contains("MQ=="), "{}", answer.text());
    assert!(answer.index() < index, "{} {index}", answer.index());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_archive_is_refused_in_consuls_words() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/a", "1").await;
    let archive = client.get("/v1/snapshot").await.body;
    let mut damaged = archive.clone();
    damaged[archive.len() / 2] ^= 1;

    for (bad, expected) in [
        (&b""[..], "failed to decompress snapshot: EOF"),
        (b"junk", "failed to decompress snapshot: unexpected EOF"),
        (&archive[..archive.len() / 2], "failed to read snapshot file: "),
        (&damaged, ""),
    ] {
        let refused = put_archive(&mut client, bad).await;
        assert_eq!(refused.status, 500);
        assert!(refused.text().starts_with(expected), "{}", refused.text());
    }
    let elsewhere = client.get("/v1/snapshot?dc=nowhere").await;
    assert_eq!(
        (elsewhere.status, elsewhere.text()),
        (500, "No path to datacenter")
    );
    assert_eq!(client.get("/v1/kv/a?raw").await.text(), "1");
}
