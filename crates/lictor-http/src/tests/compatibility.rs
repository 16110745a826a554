//! The page on compatibility lists every endpoint with what this server makes of it.

use super::Server;
use crate::route::{KV, ROUTES, Route};

/// What an endpoint does, by what it answers to a request with nothing in it.
async fn support(server: &Server, route: &Route) -> &'static str {
    let mut statuses = Vec::new();
    for verb in route.verbs {
        let mut client = server.connect().await;
        let answer = client.request(verb.name(), route.path, "").await;
        statuses.push((answer.status, answer.body == b"ACL support disabled"));
    }
    match statuses.as_slice() {
        all if all.iter().all(|(status, _)| *status == 501) => "not there: 501",
        all if all.iter().all(|(_, acl_off)| *acl_off) => "access control is off: 401",
        all if all.iter().any(|(status, _)| *status == 501) => "in part: 501 for the rest",
        _ => "there",
    }
}

#[tokio::test]
async fn the_page_on_compatibility_lists_every_endpoint() {
    let server = Server::start().await;
    let mut expected = Vec::new();
    for route in [&KV].into_iter().chain(&ROUTES) {
        let verbs: Vec<_> = route.verbs.iter().map(|verb| verb.name()).collect();
        let support = support(&server, route).await;
        expected.push(format!("| `{}` | {} | {support} |", route.path, verbs.join(", ")));
    }
    expected.sort();

    let page = include_str!("../../../../docs/compatibility.md");
    let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `/")).collect();

    assert!(
        listed == expected,
        "the table of endpoints in docs/compatibility.md must be:\n{}",
        expected.join("\n")
    );
}
