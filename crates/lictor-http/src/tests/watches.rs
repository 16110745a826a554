//! Blocking queries over real connections.

use std::time::Duration;

use super::{Server, until};

/// Waits until so many queries sleep.
async fn sleepers(server: &Server, count: usize) {
    until("the expected number of queries sleeps", || {
        // One is the agent's, who waits for a restore.
        server.node.watches().waiters() == count + 1
    })
    .await;
}

#[tokio::test]
async fn a_query_sleeps_until_its_key_changes() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    writer.put("/v1/kv/a", "1").await;
    let index = watcher.get("/v1/kv/a").await.index();

    watcher
        .ask("GET", &format!("/v1/kv/a?raw&index={index}"), "")
        .await;
    sleepers(&server, 1).await;
    writer.put("/v1/kv/b", "other").await;
    writer.put("/v1/kv/a", "2").await;

    let answer = watcher.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "2"));
    assert!(answer.index() > index);
}

#[tokio::test]
async fn a_missing_key_is_waited_for_and_a_deleted_one_is_told() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    let index = watcher.get("/v1/kv/a").await.index();

    watcher.ask("GET", &format!("/v1/kv/a?index={index}"), "").await;
    sleepers(&server, 1).await;
    writer.put("/v1/kv/a", "1").await;
    let created = watcher.answer().await;
    watcher
        .ask("GET", &format!("/v1/kv/a?index={}", created.index()), "")
        .await;
    sleepers(&server, 1).await;
    writer.request("DELETE", "/v1/kv/a", "").await;
    let deleted = watcher.answer().await;

    assert_eq!((created.status, deleted.status), (200, 404));
    assert!(deleted.index() > created.index());
}

#[tokio::test]
async fn a_missing_key_is_not_told_of_deletes_around_it() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    writer.put("/v1/kv/d/other", "1").await;
    let index = watcher.get("/v1/kv/d/a").await.index();
    watcher
        .ask("GET", &format!("/v1/kv/d/a?raw&index={index}"), "")
        .await;
    sleepers(&server, 1).await;

    writer.request("DELETE", "/v1/kv/d/?recurse", "").await;
    until("the delete has woken the query", || {
        server.node.watches().woken_total() > 0
    })
    .await;
    writer.get("/v1/kv/d/a").await;
    writer.put("/v1/kv/d/a", "here").await;

    assert_eq!(watcher.answer().await.text(), "here");
}

#[tokio::test]
async fn an_index_ahead_waits_the_whole_time_and_then_tells_the_true_one() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/a", "1").await;
    let index = client.get("/v1/kv/a").await.index();
    let started = std::time::Instant::now();

    let answer = client.get("/v1/kv/a?index=999999&wait=50ms").await;

    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!((answer.status, answer.index()), (200, index));
}

#[tokio::test]
async fn a_query_whose_client_left_is_forgotten() {
    let server = Server::start().await;
    let mut watcher = server.connect().await;
    let index = watcher.get("/v1/kv/a").await.index();
    watcher.ask("GET", &format!("/v1/kv/a?index={index}"), "").await;
    sleepers(&server, 1).await;

    drop(watcher);

    sleepers(&server, 0).await;
}

#[tokio::test]
async fn one_change_answers_all_who_wait_for_it_alike() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    writer.put("/v1/kv/herd/a", "1").await;
    let index = writer.get("/v1/kv/herd/?recurse").await.index();
    let mut herd = Vec::new();
    for at in 0..100 {
        let mut watcher = server.connect().await;
        let form = ["recurse", "keys", "recurse&pretty"][at % 3];
        watcher
            .ask("GET", &format!("/v1/kv/herd/?{form}&index={index}"), "")
            .await;
        herd.push(watcher);
    }
    sleepers(&server, 100).await;

    writer.put("/v1/kv/herd/b", "2").await;

    for (at, watcher) in herd.iter_mut().enumerate() {
        let form = ["recurse", "keys", "recurse&pretty"][at % 3];
        let expected = writer.get(&format!("/v1/kv/herd/?{form}")).await;
        let answer = watcher.answer().await;
        assert_eq!(
            (answer.text(), answer.index()),
            (expected.text(), expected.index()),
            "{form}"
        );
    }
}

#[tokio::test]
async fn a_session_is_waited_for_by_its_id_alone() {
    let server = Server::start().await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    let created = writer.put("/v1/session/create", "").await;
    let id = created.text()[7..43].to_owned();
    let index = watcher.get(&format!("/v1/session/info/{id}")).await.index();

    watcher
        .ask("GET", &format!("/v1/session/info/{id}?index={index}"), "")
        .await;
    sleepers(&server, 1).await;
    writer.put("/v1/session/create", "").await;
    writer.put(&format!("/v1/session/destroy/{id}"), "").await;

    let answer = watcher.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "[]"));
}

#[tokio::test]
async fn a_stop_answers_waiting_queries_with_what_there_is() {
    let server = Server::start().await;
    let mut watcher = server.connect().await;
    watcher.put("/v1/kv/a", "1").await;
    let index = watcher.get("/v1/kv/a").await.index();
    watcher
        .ask("GET", &format!("/v1/kv/a?raw&index={index}"), "")
        .await;
    let mut idle = server.connect().await;
    idle.get("/v1/kv/a").await;
    sleepers(&server, 1).await;

    let started = std::time::Instant::now();
    server.handle.shutdown().await;

    let answer = watcher.answer().await;
    assert_eq!((answer.status, answer.text(), answer.index()), (200, "1", index));
    watcher.closed().await;
    idle.closed().await;
    assert!(started.elapsed() < crate::Limits::default().drain_timeout);
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}
