//! The web page: one file for every view, its parts, and how browsers may keep them.

use super::Server;
use super::client::Answer;
use crate::{Limits, Options};

async fn server() -> Server {
    let options = Options {
        page: true,
        ..Options::default()
    };
    Server::with(Limits::default(), options).await
}

async fn get(server: &Server, target: &str, headers: &str) -> Answer {
    let mut client = server.connect().await;
    client
        .send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"))
        .await;
    client.answer().await
}

/// The addresses of what the page loads.
fn parts(page: &str) -> Vec<&str> {
    let named = page.split("href=\"").chain(page.split("src=\"")).skip(1);
    let named = named.filter_map(|rest| rest.split_once('"'));
    named
        .map(|(address, _)| address)
        .filter(|address| address.starts_with('/'))
        .collect()
}

#[tokio::test]
async fn every_view_is_the_same_page_at_both_addresses() {
    let server = server().await;
    let page = get(&server, "/ui/", "").await;

    assert_eq!(page.status, 200);
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    for target in [
        "/ui/keys?at=a%2Fb",
        "/ui/no/such/view",
        "/mod/dashboard/",
        "/mod/dashboard/stats",
    ] {
        let other = get(&server, target, "").await;
        assert_eq!((other.status, other.text()), (200, page.text()), "{target}");
    }
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let server = server().await;
    let page = get(&server, "/ui/", "").await;

    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(!page.text().contains("://"), "{}", page.text());
}

#[tokio::test]
async fn the_parts_of_the_page_are_kept_by_their_version() {
    let server = server().await;
    let page = get(&server, "/ui/", "").await;
    let parts = parts(page.text());
    assert_eq!(parts.len(), 3, "{parts:?}");

    for part in parts {
        let plain = get(&server, part, "").await;
        assert_eq!(plain.status, 200, "{part}");
        assert_eq!(
            plain.header("Cache-Control"),
            Some("public, max-age=31536000, immutable"),
            "{part}"
        );
        let (path, _) = part.split_once('?').unwrap();
        let other = get(&server, &format!("{path}?another"), "").await;
        assert_eq!(other.header("Cache-Control"), Some("no-cache"));
        assert_eq!(other.body, plain.body);
        let packed = get(&server, part, "Accept-Encoding: gzip\r\n").await;
        assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
        assert!(packed.body.len() < plain.body.len());
        let tag = plain.header("Etag").unwrap();
        let known = format!("GET {path} HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"x\", W/{tag}\r\n\r\n");
        let mut client = server.connect().await;
        client.send(known).await;
        assert_eq!(client.head().await.status, 304);
    }
}

#[tokio::test]
async fn what_is_no_part_of_the_page_is_not_found() {
    let server = server().await;

    let missing = get(&server, "/mod/dashboard/static/%3Cb%3E.js", "").await;

    assert_eq!(missing.status, 404);
    assert_eq!(missing.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(missing.text(), "/mod/dashboard/static/<b>.js: File not found");
    assert_eq!(get(&server, "/uix", "").await.status, 404);
    assert_eq!(get(&server, "/mod/dashboards/", "").await.status, 404);
    let written = server.connect().await.put("/ui/", "").await;
    assert_eq!((written.status, written.header("Allow")), (405, Some("GET,HEAD")));
}

#[tokio::test]
async fn the_root_and_missing_slashes_lead_to_the_page() {
    let server = server().await;

    for (target, status, location) in [
        ("/", 301, "/ui/"),
        ("/ui", 302, "/ui/"),
        ("/mod/dashboard", 302, "/mod/dashboard/"),
    ] {
        let answer = get(&server, target, "").await;
        assert_eq!(
            (answer.status, answer.header("Location")),
            (status, Some(location)),
            "{target}"
        );
    }
}

#[tokio::test]
async fn a_server_without_the_page_has_none_of_it() {
    let server = Server::start().await;

    assert_eq!(get(&server, "/", "").await.status, 200);
    for target in ["/ui/", "/ui", "/mod/dashboard/", "/ui/static/app.js"] {
        assert_eq!(get(&server, target, "").await.status, 404, "{target}");
    }
}
