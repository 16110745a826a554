//! Pages of other origins.

use hyper::header::HeaderValue;

use super::Server;
use super::client::Answer;
use crate::{Cors, Limits, Options};

const PAGE: &str = "http://dash.example:4001";

/// Requests of all kinds, with the status that each gets.
const ALL: [(&str, &str, u16); 8] = [
    ("GET", "/v1/kv/a", 404),
    ("PUT", "/v1/kv/a", 200),
    ("GET", "/v1/kv/a", 200),
    ("GET", "/v1/kv/a?index=x", 400),
    ("GET", "/v1/session/list", 200),
    ("POST", "/v1/status/leader", 405),
    ("GET", "//v1/kv/a", 307),
    ("GET", "/nope", 404),
];

async fn server(origins: &[&'static str]) -> Server {
    let cors = Cors::new(origins.iter().map(|origin| HeaderValue::from_static(origin)));
    let options = Options {
        cors,
        ..Options::default()
    };
    Server::with(Limits::default(), options).await
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("Access-Control-Allow-Origin")
}

#[tokio::test]
async fn every_answer_may_be_read_by_the_pages_of_allowed_origins() {
    for (origins, allow_origin) in [(["*"], "*"), ([PAGE], PAGE)] {
        let server = server(&origins).await;
        let mut client = server.connect().await;
        for (method, target, status) in ALL {
            let answer = client.request_with(method, target, &[("Origin", PAGE)], "").await;

            assert_eq!(
                (answer.status, allowed(&answer)),
                (status, Some(allow_origin)),
                "{method} {target}"
            );
            let exposed = answer.header("Access-Control-Expose-Headers").unwrap();
            assert!(exposed.contains("X-Consul-Index"), "{method} {target}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_told_nothing() {
    let server = server(&[PAGE]).await;
    let mut client = server.connect().await;
    for (method, target, status) in ALL {
        let stranger = [("Origin", "http://other.example")];
        let answer = client.request_with(method, target, &stranger, "").await;

        assert_eq!(
            (answer.status, allowed(&answer)),
            (status, None),
            "{method} {target}"
        );
        assert!(
            answer.header("Access-Control-Allow-Methods").is_none(),
            "{method} {target}"
        );
    }
    assert_eq!(allowed(&client.get("/v1/kv/a").await), None, "no origin at all");
}

#[tokio::test]
async fn a_preflight_is_answered_on_every_path_and_does_nothing() {
    let server = server(&[PAGE]).await;
    let mut client = server.connect().await;
    for target in ["/v1/kv/a", "/v1/session/create", "/nope", "//v1/kv/a", "/v1/kv"] {
        let asked = [("Origin", PAGE), ("Access-Control-Request-Method", "PUT")];
        let answer = client.request_with("OPTIONS", target, &asked, "").await;

        assert_eq!(
            (answer.status, answer.text(), allowed(&answer)),
            (200, "", Some(PAGE)),
            "{target}"
        );
        assert_eq!(answer.header("Access-Control-Max-Age"), Some("600"), "{target}");
        let methods = answer.header("Access-Control-Allow-Methods").unwrap();
        assert!(methods.contains("PUT"), "{target}");
        let headers = answer.header("Access-Control-Allow-Headers").unwrap();
        assert!(
            headers.contains("content-type") && headers.contains("x-consul-token"),
            "{target}"
        );
    }
    assert_eq!(
        client.request("OPTIONS", "/v1/kv/a", "").await.header("Allow"),
        Some("OPTIONS,GET,PUT,DELETE")
    );
    let stranger = client.request("OPTIONS", "/nope", "").await;
    assert_eq!(
        (stranger.status, stranger.header("Access-Control-Max-Age")),
        (200, None)
    );
    assert_eq!(server.node.view().kv_len(), 0);
}

#[tokio::test]
async fn without_origins_nothing_changes() {
    let server = server(&[]).await;
    let mut client = server.connect().await;

    let answer = client
        .request_with("GET", "/v1/kv/a", &[("Origin", PAGE)], "")
        .await;
    assert_eq!(allowed(&answer), None);
    assert_eq!(client.request("OPTIONS", "/nope", "").await.status, 404);
}
