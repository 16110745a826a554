//! One key: PUT, GET, DELETE, `cas`, flags, raw.

use anyhow::Result;
use lictor_tests::Server;
use serde_json::json;

#[test]
fn a_value_comes_back_in_base64_with_indexes_and_flags() -> Result<()> {
    let server = Server::start()?;

    assert!(server.put("/v1/kv/a/b?flags=42", "value")?.is_true());
    let response = server.get("/v1/kv/a/b")?;

    let entry = response.entry()?;
    assert_eq!(response.value()?, b"value");
    assert_eq!(
        (&entry["Flags"], &entry["LockIndex"], &entry["Key"]),
        (&json!(42), &json!(0), &json!("a/b"))
    );
    assert_eq!(entry["CreateIndex"], entry["ModifyIndex"]);
    assert_eq!(
        response.index()?,
        entry["ModifyIndex"].as_u64().unwrap_or_default()
    );
    let text = response.text();
    let places: Vec<_> = ["LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"]
        .map(|name| text.find(&format!("\"{name}\"")))
        .into();
    assert!(
        places.is_sorted() && places[0].is_some(),
        "field order as Consul's: {text}"
    );
    assert!(entry.get("Session").is_none());
    Ok(())
}

#[test]
fn a_missing_key_is_404_without_a_body_but_with_the_table_index() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/other", "x")?;

    let response = server.get("/v1/kv/missing")?;

    assert_eq!((response.status, response.body.len()), (404, 0));
    assert_eq!(response.index()?, server.get("/v1/kv/other")?.index()?);
    assert_eq!(response.header("Content-Type"), None);
    Ok(())
}

#[test]
fn raw_answers_the_bytes_themselves() -> Result<()> {
    let server = Server::start()?;
    let value: Vec<u8> = (0..=255).collect();
    server.put("/v1/kv/bytes", &value)?;

    let response = server.get("/v1/kv/bytes?raw")?;

    assert_eq!(response.body, value);
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(response.header("Content-Security-Policy"), Some("sandbox"));
    assert!(
        response
            .header("Content-Type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    assert_eq!(
        server.get("/v1/kv/bytes?raw=false")?.body,
        value,
        "switches count by presence"
    );
    Ok(())
}

#[test]
fn an_empty_value_is_null() -> Result<()> {
    let server = Server::start()?;

    server.put("/v1/kv/empty", "")?;

    assert_eq!(server.get("/v1/kv/empty")?.entry()?["Value"], json!(null));
    assert_eq!(server.get("/v1/kv/empty?raw")?.body, b"");
    Ok(())
}

#[test]
fn writing_what_is_there_changes_no_index_and_a_new_value_does() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k?flags=1", "v")?;
    let first = server.get("/v1/kv/k")?.index()?;

    assert!(server.put("/v1/kv/k?flags=1", "v")?.is_true());
    assert_eq!(server.get("/v1/kv/k")?.index()?, first);

    server.put("/v1/kv/k", "v")?;
    let entry = server.get("/v1/kv/k")?.entry()?;
    assert!(
        entry["ModifyIndex"].as_u64() > Some(first),
        "flags are always replaced"
    );
    assert_eq!(
        (entry["CreateIndex"].as_u64(), &entry["Flags"]),
        (Some(first), &json!(0))
    );
    Ok(())
}

#[test]
fn cas_writes_only_over_the_index_it_names() -> Result<()> {
    let server = Server::start()?;

    assert!(
        server.put("/v1/kv/k?cas=7", "x")?.is_false(),
        "a missing key has no index but 0"
    );
    assert!(server.put("/v1/kv/k?cas=0", "first")?.is_true());
    assert!(server.put("/v1/kv/k?cas=0", "again")?.is_false());
    let index = server.get("/v1/kv/k")?.index()?;
    assert!(
        server
            .put(&format!("/v1/kv/k?cas={}", index + 1), "x")?
            .is_false()
    );
    assert!(server.put(&format!("/v1/kv/k?cas={index}"), "second")?.is_true());
    assert!(server.put(&format!("/v1/kv/k?cas={index}"), "third")?.is_false());

    assert_eq!(server.get("/v1/kv/k?raw")?.body, b"second");
    Ok(())
}

#[test]
fn of_many_cas_on_one_index_exactly_one_wins() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "start")?;
    let index = server.get("/v1/kv/k")?.index()?;

    let wins: usize = std::thread::scope(|scope| {
        let server = &server;
        let tries: Vec<_> = (0..16)
            .map(|n| scope.spawn(move || server.put(&format!("/v1/kv/k?cas={index}"), n.to_string())))
            .collect();
        tries
            .into_iter()
            .filter_map(|t| t.join().ok()?.ok())
            .filter(lictor_tests::Response::is_true)
            .count()
    });

    assert_eq!(wins, 1);
    Ok(())
}

#[test]
fn delete_answers_true_for_what_is_not_there_and_obeys_cas() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "v")?;
    let index = server.get("/v1/kv/k")?.index()?;

    assert!(server.delete("/v1/kv/missing")?.is_true());
    assert!(server.delete("/v1/kv/missing?cas=9")?.is_true());
    assert!(server.delete("/v1/kv/k?cas=0")?.is_false());
    assert!(server.delete(&format!("/v1/kv/k?cas={}", index + 1))?.is_false());
    assert!(server.delete(&format!("/v1/kv/k?cas={index}"))?.is_true());

    assert_eq!(server.get("/v1/kv/k")?.status, 404);
    Ok(())
}

#[test]
fn conflicting_verbs_are_named() -> Result<()> {
    let server = Server::start()?;

    let response = server.put("/v1/kv/k?release=b&cas=1", "x")?;

    assert_eq!(
        (response.status, response.text().as_str()),
        (400, "Conflicting flags: cas=1&release=b\n")
    );
    assert_eq!(server.delete("/v1/kv/k?recurse&cas=1")?.status, 400);
    assert_eq!(server.get("/v1/kv/k")?.status, 404);
    Ok(())
}

#[test]
fn junk_in_numbers_is_refused_as_go_words_it() -> Result<()> {
    let server = Server::start()?;

    for target in ["/v1/kv/k?cas=abc", "/v1/kv/k?flags=abc"] {
        let response = server.put(target, "x")?;
        assert_eq!(response.status, 500, "{target}");
        assert!(
            response
                .text()
                .contains(r#"strconv.ParseUint: parsing "abc": invalid syntax"#),
            "{target}"
        );
    }
    let response = server.put("/v1/kv/k?flags=18446744073709551616", "x")?;
    assert!(response.text().contains("value out of range"));
    assert!(server.put("/v1/kv/k?flags=18446744073709551615", "x")?.is_true());
    Ok(())
}

#[test]
fn the_largest_value_is_taken_and_one_byte_more_is_413() -> Result<()> {
    let server = Server::start()?;
    let mut value = vec![b'x'; 512 * 1024];

    assert!(server.put("/v1/kv/big", &value)?.is_true());
    assert_eq!(server.get("/v1/kv/big?raw")?.body, value);
    value.push(b'x');
    let refused = server.put("/v1/kv/bigger", &value)?;

    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("524288"), "{}", refused.text());
    assert_eq!(server.get("/v1/kv/bigger")?.status, 404);
    Ok(())
}

#[test]
fn keys_may_hold_any_text() -> Result<()> {
    let server = Server::start()?;
    let path = "/v1/kv/%E5%88%86%E5%B8%83/a%20b%3F%26%23%25";

    assert!(server.put(path, "v")?.is_true());

    assert_eq!(server.get(path)?.entry()?["Key"], json!("分布/a b?&#%"));
    Ok(())
}

#[test]
fn another_datacenter_is_refused_on_reads_and_writes() -> Result<()> {
    let server = Server::start()?;

    for response in [
        server.get("/v1/kv/k?dc=elsewhere")?,
        server.put("/v1/kv/k?dc=elsewhere", "x")?,
    ] {
        assert_eq!(response.status, 500);
        assert!(
            response.text().contains("No path to datacenter"),
            "{}",
            response.text()
        );
    }
    assert!(server.put("/v1/kv/k?dc=dc1", "x")?.is_true());
    Ok(())
}

#[test]
fn all_consistency_modes_read_ones_own_writes() -> Result<()> {
    let server = Server::start()?;
    let mut client = server.client();
    for n in 0..50 {
        let value = n.to_string();
        client.put("/v1/kv/k", &value)?;
        for mode in ["", "&stale", "&consistent"] {
            assert_eq!(
                client.get(&format!("/v1/kv/k?raw{mode}"))?.text(),
                value,
                "{mode}"
            );
        }
    }
    assert_eq!(client.get("/v1/kv/k?stale&consistent")?.status, 400);
    Ok(())
}
