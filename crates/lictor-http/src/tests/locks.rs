//! The list of locks: holders, lock-delays, and who is woken.

use serde_json::{Value, json};

use super::Server;
use super::client::{Answer, Connection};

async fn session(client: &mut Connection, fields: &str) -> String {
    let made: Value = parsed(&client.put("/v1/session/create", fields).await);
    made["ID"].as_str().unwrap().to_owned()
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn the_end_of_a_lock_delay_wakes_whoever_watches_the_list() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let id = session(&mut client, r#"{"LockDelay": "50ms"}"#).await;
    client.put(&format!("/v1/kv/a?acquire={id}"), "1").await;
    client.put(&format!("/v1/session/destroy/{id}"), "").await;

    let mut list = client.get("/v1/locks").await;
    while parsed(&list) != json!([]) {
        list = client
            .get(&format!("/v1/locks?index={}&wait=60s", list.index()))
            .await;
        assert_eq!(list.status, 200);
    }
}

#[tokio::test]
async fn a_lock_is_listed_from_its_holder_to_the_end_of_its_delay() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let id = session(&mut client, r#"{"LockDelay": "15s"}"#).await;
    let none = client.get("/v1/locks").await;
    assert_eq!(parsed(&none), json!([]));

    client.put("/v1/kv/free", "1").await;
    client.put(&format!("/v1/kv/a%22b?acquire={id}"), "1").await;
    let held = client.get(&format!("/v1/locks?index={}", none.index())).await;
    client.put(&format!("/v1/session/destroy/{id}"), "").await;
    let delayed = client.get(&format!("/v1/locks?index={}", held.index())).await;

    let at = held.index();
    assert_eq!(
        parsed(&held),
        json!([{"Key": "a\"b", "Session": id, "LockDelay": 0, "LockIndex": 1, "ModifyIndex": at, "Waiting": []}])
    );
    let delay: u64 = 15_000_000_000;
    let at = delayed.index();
    assert_eq!(
        parsed(&delayed),
        json!([{"Key": "a\"b", "Session": "", "LockDelay": delay, "LockIndex": 1, "ModifyIndex": at, "Waiting": []}])
    );
}
