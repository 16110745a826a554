//! `/v1/txn`.

use anyhow::Result;
use lictor_tests::Server;
use serde_json::{Value, json};

fn set(key: &str, value: &str) -> Value {
    use base64::Engine as _;
    json!({"KV": {"Verb": "set", "Key": key, "Value": base64::engine::general_purpose::STANDARD.encode(value)}})
}

#[test]
fn all_writes_happen_at_one_index() -> Result<()> {
    let server = Server::start()?;

    let response = server.put("/v1/txn", json!([set("t/a", "1"), set("t/b", "2")]).to_string())?;

    assert_eq!(response.status, 200);
    let results = response.json()?;
    assert_eq!(results["Errors"], json!(null));
    assert_eq!(
        (
            &results["Results"][0]["KV"]["Key"],
            &results["Results"][0]["KV"]["Value"]
        ),
        (&json!("t/a"), &json!(null))
    );
    let (a, b) = (server.get("/v1/kv/t/a")?, server.get("/v1/kv/t/b")?);
    assert_eq!(a.index()?, b.index()?);
    assert_eq!((a.value()?, b.value()?), (b"1".to_vec(), b"2".to_vec()));
    Ok(())
}

#[test]
fn one_failed_operation_undoes_all_and_is_named() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/t/a", "before")?;
    let index = server.get("/v1/kv/t/a")?.index()?;
    let cas = json!({"KV": {"Verb": "cas", "Key": "t/a", "Value": "dg==", "Index": index + 1000}});

    let response = server.put(
        "/v1/txn",
        json!([set("t/a", "after"), set("t/new", "x"), cas]).to_string(),
    )?;

    assert_eq!(response.status, 409);
    let body = response.json()?;
    assert_eq!(
        (&body["Results"], &body["Errors"][0]["OpIndex"]),
        (&json!(null), &json!(2))
    );
    assert_eq!(server.get("/v1/kv/t/a?raw")?.text(), "before");
    assert_eq!(server.get("/v1/kv/t/a")?.index()?, index);
    assert_eq!(server.get("/v1/kv/t/new")?.status, 404);
    Ok(())
}

/// R4: all reads of a transaction see one state.
#[test]
fn r4_a_reading_transaction_never_sees_half_of_a_writing_one() -> Result<()> {
    let server = Server::start()?;
    let write = |n: usize| json!([set("pair/a", &n.to_string()), set("pair/b", &n.to_string())]).to_string();
    assert_eq!(server.put("/v1/txn", write(0))?.status, 200);
    let read = json!([{"KV": {"Verb": "get", "Key": "pair/a"}}, {"KV": {"Verb": "get", "Key": "pair/b"}}])
        .to_string();

    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let mut client = server.client();
            for n in 1..300 {
                client.put("/v1/txn", write(n))?;
            }
            Ok(())
        });
        let mut client = server.client();
        while !writer.is_finished() {
            let results = client.put("/v1/txn", &read)?.json()?["Results"].clone();
            let (a, b) = (&results[0]["KV"], &results[1]["KV"]);
            assert_eq!((&a["Value"], &a["ModifyIndex"]), (&b["Value"], &b["ModifyIndex"]));
            assert!(a["Value"].is_string());
            let list = client.get("/v1/kv/pair/?recurse")?.json()?;
            assert_eq!(
                list[0]["ModifyIndex"], list[1]["ModifyIndex"],
                "lists read one state too"
            );
        }
        writer.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })
}

#[test]
fn a_reading_transaction_has_no_index_header() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "v")?;

    let response = server.put("/v1/txn", r#"[{"KV":{"Verb":"get","Key":"k"}}]"#)?;

    assert_eq!(response.json()?["Results"][0]["KV"]["Value"], json!("dg=="));
    assert_eq!(
        (
            response.header("X-Consul-Index"),
            response.header("X-Consul-Knownleader")
        ),
        (None, Some("true"))
    );
    Ok(())
}

#[test]
fn locks_in_transactions_obey_the_session() -> Result<()> {
    let server = Server::start()?;
    let (a, b) = (server.session("")?, server.session("")?);
    let verb = |verb: &str, session: &str| {
        json!([{"KV": {"Verb": verb, "Key": "l", "Value": "dg==", "Session": session}}]).to_string()
    };

    assert_eq!(server.put("/v1/txn", verb("lock", &a))?.status, 200);
    assert_eq!(server.get("/v1/kv/l")?.entry()?["Session"], json!(a));
    assert_eq!(server.put("/v1/txn", verb("lock", &b))?.status, 409);
    assert_eq!(server.put("/v1/txn", verb("check-session", &b))?.status, 409);
    assert_eq!(server.put("/v1/txn", verb("unlock", &b))?.status, 409);
    assert_eq!(server.put("/v1/txn", verb("unlock", &a))?.status, 200);

    assert!(server.get("/v1/kv/l")?.entry()?.get("Session").is_none());
    Ok(())
}

#[test]
fn too_many_operations_and_too_long_bodies_are_413() -> Result<()> {
    let server = Server::start()?;
    let many = |count: usize| {
        json!(
            (0..count)
                .map(|n| set(&format!("m/{n}"), "v"))
                .collect::<Vec<_>>()
        )
        .to_string()
    };

    assert_eq!(server.put("/v1/txn", many(128))?.status, 200);
    assert_eq!(server.put("/v1/txn", many(129))?.status, 413);
    assert_eq!(
        server
            .put(
                "/v1/txn",
                json!([set("big", &"x".repeat(512 * 1024))]).to_string()
            )?
            .status,
        413
    );
    assert_eq!(server.get("/v1/kv/big")?.status, 404);
    Ok(())
}

#[test]
fn what_does_not_decode_is_400() -> Result<()> {
    let server = Server::start()?;

    for body in [
        "",
        "{",
        "[{\"KV\":{\"Verb\":\"set\",\"Key\":\"k\",\"Value\":\"*\"}}]",
        "[{\"Nope\":{}}]",
        "[1]",
    ] {
        assert_eq!(server.put("/v1/txn", body)?.status, 400, "{body}");
    }
    assert_eq!(server.put("/v1/txn", "[]")?.json()?["Results"], json!([]));
    Ok(())
}
