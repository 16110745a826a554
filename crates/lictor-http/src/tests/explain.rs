//! Writes that are asked what they did.

use super::Server;
use super::client::Connection;

const INDEX: &str = "X-Lictor-Modify-Index";
const TOKEN: &str = "X-Lictor-Lock-Index";
const REFUSED: &str = "X-Lictor-Refused";

async fn session(client: &mut Connection, body: &str) -> String {
    let created = client.put("/v1/session/create", body).await;
    let created: serde_json::Value = serde_json::from_slice(&created.body).unwrap();
    created["ID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn writes_explain_themselves_to_whoever_asks_and_to_nobody_else() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    let plain = client.put("/v1/kv/k", "1").await;
    assert!(!plain.head.contains("Lictor"));
    let told = client.put("/v1/kv/k?explain", "2").await;
    let index = client.get("/v1/kv/k").await.index();
    assert_eq!(
        (told.text(), told.header(INDEX)),
        ("true", Some(index.to_string().as_str()))
    );
    assert_eq!(told.header(TOKEN), None, "nothing was locked");

    let refused = client.put("/v1/kv/k?cas=1&explain", "3").await;
    assert_eq!(
        (refused.text(), refused.header(REFUSED)),
        ("false", Some(format!("index; modify-index={index}").as_str()))
    );
    let gone = client.request("DELETE", "/v1/kv/k?explain", "").await;
    let missing = client.get("/v1/kv/k").await.index();
    assert_eq!(gone.header(INDEX), Some(missing.to_string().as_str()));
}

#[tokio::test]
async fn a_refused_lock_says_who_holds_it_and_how_long_a_delay_runs() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let one = session(&mut client, r#"{"LockDelay":"30s"}"#).await;
    let other = session(&mut client, "{}").await;

    let taken = client.put(&format!("/v1/kv/l?acquire={one}&explain"), "").await;
    assert_eq!((taken.text(), taken.header(TOKEN)), ("true", Some("1")));
    let held = client.put(&format!("/v1/kv/l?acquire={other}&explain"), "").await;
    assert_eq!(
        (held.text(), held.header(REFUSED)),
        ("false", Some(format!("held; session={one}").as_str()))
    );
    client.put(&format!("/v1/session/destroy/{one}"), "").await;
    let delayed = client.put(&format!("/v1/kv/l?acquire={other}&explain"), "").await;

    let reason = delayed.header(REFUSED).unwrap_or_default();
    let left = reason
        .strip_prefix("lock-delay; remaining=")
        .and_then(|left| left.strip_suffix('s')?.parse::<f64>().ok());
    assert!(left.is_some_and(|left| left > 0.0 && left <= 30.0), "{reason}");
}
