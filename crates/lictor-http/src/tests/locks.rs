//! The list of locks: holders, lock-delays, and who is woken; how long they last.

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

/// Milliseconds, of which some have gone by.
fn ms(answer: &Value, kind: &str, name: &str) -> u64 {
    answer[kind][name]
        .as_u64()
        .unwrap_or_else(|| panic!("{kind} {name}: {answer}"))
}

#[tokio::test]
async fn times_are_told_of_what_ends_by_the_clock_and_was_asked_for() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let timed = session(&mut client, r#"{"TTL": "100s"}"#).await;
    let exact = session(&mut client, r#"{"TTL": "100s", "TTLExact": true}"#).await;
    let endless = session(&mut client, "{}").await;
    let gone = session(&mut client, r#"{"LockDelay": "50s", "TTL": "100s"}"#).await;
    client.put("/v1/kv/held", "").await;
    client.put(&format!("/v1/kv/a%2Fb%22?acquire={gone}"), "").await;
    client.put(&format!("/v1/session/destroy/{gone}"), "").await;
    client
        .request("POST", "/mod/v2/lock/deploys?ttl=70&value=v", "")
        .await;
    client
        .request("POST", "/mod/v2/lock/kept?ttl=0&value=v", "")
        .await;

    let target = format!(
        "/v1/locks/times?session={timed}&session={exact}&session={endless}&session={gone}&session=junk\
         &key=a%2Fb%22&key=held&key=a/b%22&fair-lock=deploys&fair-lock=kept&fair-lock=none"
    );
    let told = client.get(&target).await;

    assert_eq!(told.status, 200);
    let told = parsed(&told);
    let names = |kind: &str| -> Vec<String> { told[kind].as_object().unwrap().keys().cloned().collect() };
    let mut expected = vec![timed.clone(), exact.clone()];
    expected.sort();
    assert_eq!(names("Sessions"), expected);
    assert_eq!(names("LockDelays"), ["a/b\""]);
    assert_eq!(names("FairLocks"), ["deploys"]);
    // As Consul's, a session ends two TTLs after its last renewal.
    assert!(
        (150_000..=200_000).contains(&ms(&told, "Sessions", &timed)),
        "{told}"
    );
    assert!(
        (50_000..=100_000).contains(&ms(&told, "Sessions", &exact)),
        "{told}"
    );
    assert!((1..=50_000).contains(&ms(&told, "LockDelays", "a/b\"")), "{told}");
    assert!(
        (20_000..=70_000).contains(&ms(&told, "FairLocks", "deploys")),
        "{told}"
    );
}

#[tokio::test]
async fn a_question_for_times_names_some_and_not_too_many() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    for bad in ["", "?stale", "?keys=a"] {
        let answer = client.get(&format!("/v1/locks/times{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let names: Vec<_> = (0..256).map(|at| format!("key=k{at}")).collect();
    let most = client.get(&format!("/v1/locks/times?{}", names.join("&"))).await;
    assert_eq!(
        parsed(&most),
        json!({"Sessions": {}, "LockDelays": {}, "FairLocks": {}})
    );
    let more = client
        .get(&format!("/v1/locks/times?session=s&{}", names.join("&")))
        .await;
    assert_eq!(more.status, 400);
    let elsewhere = client.get("/v1/locks/times?key=a&dc=elsewhere").await;
    assert_eq!(
        (elsewhere.status, &*elsewhere.body),
        (500, &b"No path to datacenter"[..])
    );
}
