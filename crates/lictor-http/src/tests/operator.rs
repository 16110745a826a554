//! The operator's view of a server that stands alone.

use serde_json::{Value, json};

use super::Server;
use super::client::Answer;

const ID: &str = "11111111-2222-4333-8444-555555555555";

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raft_configuration_and_the_health_name_the_server() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    let raft = body(&client.get("/v1/operator/raft/configuration").await);
    let health = client.get("/v1/operator/autopilot/health").await;
    let state = body(&client.get("/v1/operator/autopilot/state").await);

    let last = raft["Servers"][0]["LastIndex"].as_u64().unwrap();
    let expected = json!({"Servers": [{
        "ID": ID, "Node": "n1", "Address": "127.0.0.1:8300", "Leader": true, "ProtocolVersion": "3",
        "Voter": true, "LastIndex": last,
    }], "Index": 0});
    assert_eq!(raft, expected);
    assert_eq!(health.status, 200);
    let health = body(&health);
    assert_eq!(
        (&health["Healthy"], &health["FailureTolerance"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(health["Servers"][0]["LastContact"], "0s");
    assert_eq!((&state["Leader"], &state["Voters"]), (&json!(ID), &json!([ID])));
    assert_eq!(state["Servers"][ID]["Status"], "leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autopilot_is_set_by_compare_and_set() {
    const PATH: &str = "/v1/operator/autopilot/configuration";
    let server = Server::start().await;
    let mut client = server.connect().await;
    let before = body(&client.get(PATH).await);

    let stale = client.put(&format!("{PATH}?cas=1"), r#"{"MinQuorum":7}"#).await;
    let index = before["ModifyIndex"].as_u64().unwrap();
    let wanted = r#"{"MinQuorum":3,"LastContactThreshold":"1.5s","CreateIndex":0}"#;
    let set = client.put(&format!("{PATH}?cas={index}"), wanted).await;

    assert_eq!((stale.text(), set.text()), ("false", "true"));
    let after = body(&client.get(PATH).await);
    assert_eq!(
        (&after["MinQuorum"], &after["LastContactThreshold"]),
        (&json!(3), &json!("1.5s"))
    );
    assert!(after["ModifyIndex"].as_u64().unwrap() > index);
    for (query, body, expected) in [
        ("", "{", "Error parsing autopilot config: "),
        (
            "",
            r#"{"Foo":1}"#,
            r#"Error parsing autopilot config: json: unknown field "Foo""#,
        ),
        (
            "?cas=junk",
            "{}",
            r#"Error parsing cas value: strconv.ParseUint: parsing "junk": invalid syntax"#,
        ),
    ] {
        let refused = client.put(&format!("{PATH}{query}"), body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text().starts_with(expected), "{}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lone_server_cannot_do_is_refused_in_consuls_words() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    for (method, path, expected) in [
        ("POST", "/v1/operator/raft/transfer-leader", "cannot find peer"),
        (
            "POST",
            "/v1/operator/raft/transfer-leader?id=x",
            "Could not find address for server id x",
        ),
        (
            "DELETE",
            "/v1/operator/raft/peer?id=x",
            r#"id "x" was not found in the Raft configuration"#,
        ),
        (
            "DELETE",
            "/v1/operator/raft/peer?address=127.0.0.1:8300",
            "the last server of a cluster cannot leave it",
        ),
    ] {
        let refused = client.request(method, path, "").await;
        assert_eq!((refused.status, refused.text()), (500, expected));
    }
}
