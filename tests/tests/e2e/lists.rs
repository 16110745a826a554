//! `recurse`, `keys`, separators, and the index of a list.

use anyhow::Result;
use lictor_tests::Server;
use serde_json::{Value, json};

fn keys(server: &Server, target: &str) -> Result<Value> {
    server.get(target)?.json()
}

#[test]
fn a_list_holds_all_keys_with_the_prefix_in_byte_order() -> Result<()> {
    let server = Server::start()?;
    for key in ["ab", "a/z", "a-b", "a", "a/b/c", "b"] {
        server.put(&format!("/v1/kv/{key}"), "v")?;
    }

    assert_eq!(
        keys(&server, "/v1/kv/a?keys")?,
        json!(["a", "a-b", "a/b/c", "a/z", "ab"])
    );
    let rows = keys(&server, "/v1/kv/a/?recurse")?;
    assert_eq!(
        (&rows[0]["Key"], &rows[1]["Key"], rows.as_array().map(Vec::len)),
        (&json!("a/b/c"), &json!("a/z"), Some(2))
    );
    Ok(())
}

#[test]
fn a_separator_folds_each_name_once() -> Result<()> {
    let server = Server::start()?;
    for key in ["d/a/1", "d/a/2", "d/b", "d/c/1", "d0"] {
        server.put(&format!("/v1/kv/{key}"), "v")?;
    }

    assert_eq!(
        keys(&server, "/v1/kv/d/?keys&separator=/")?,
        json!(["d/a/", "d/b", "d/c/"])
    );
    assert_eq!(keys(&server, "/v1/kv/d?keys&separator=/")?, json!(["d/", "d0"]));
    assert_eq!(
        keys(&server, "/v1/kv/d/?keys&seperator=/")?,
        json!(["d/a/", "d/b", "d/c/"])
    );
    assert_eq!(
        keys(&server, "/v1/kv/d/?keys&separator=a/")?,
        json!(["d/a/", "d/b", "d/c/1"])
    );
    Ok(())
}

#[test]
fn nothing_below_a_prefix_is_404_but_the_empty_store_has_an_empty_key_list() -> Result<()> {
    let server = Server::start()?;

    let all = server.get("/v1/kv/?keys")?;
    assert_eq!((all.status, all.json()?), (200, json!([])));
    assert_eq!(server.get("/v1/kv/?recurse")?.status, 404);
    assert_eq!(server.get("/v1/kv/none/?keys")?.status, 404);
    assert!(server.get("/v1/kv/none/?keys")?.index()? >= 1);
    Ok(())
}

/// R10: keys that a separator folds away count too.
#[test]
fn r10_the_index_of_a_folded_list_covers_the_folded_keys() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/f/a/1", "v")?;
    server.put("/v1/kv/f/b", "v")?;
    let before = server.get("/v1/kv/f/?keys&separator=/")?.index()?;

    server.put("/v1/kv/f/a/2", "v")?;
    let changed = server.get("/v1/kv/f/a/2")?.index()?;
    server.put("/v1/kv/elsewhere", "v")?;

    assert!(changed > before);
    assert_eq!(server.get("/v1/kv/f/?keys&separator=/")?.index()?, changed);
    assert_eq!(server.get("/v1/kv/f/?recurse")?.index()?, changed);
    Ok(())
}

#[test]
fn a_delete_raises_the_index_of_the_lists_above_it() -> Result<()> {
    let server = Server::start()?;
    for key in ["d/x", "d/y", "e"] {
        server.put(&format!("/v1/kv/{key}"), "v")?;
    }
    let before = server.get("/v1/kv/d/?recurse")?.index()?;

    server.delete("/v1/kv/d/x")?;

    let after = server.get("/v1/kv/d/?recurse")?.index()?;
    assert!(after > before);
    server.put("/v1/kv/e", "changed")?;
    assert_eq!(
        server.get("/v1/kv/d/?recurse")?.index()?,
        after,
        "only changes below the prefix count"
    );
    Ok(())
}

/// R11, R12: a recursive delete shows at every prefix below it, which Consul forgets where an older mark lies.
#[test]
fn r11_a_recursive_delete_raises_the_index_of_longer_prefixes() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul keeps the old index here");
    }
    let server = Server::start()?;
    for key in ["l/a", "l/b", "l0"] {
        server.put(&format!("/v1/kv/{key}"), "v")?;
    }
    server.delete("/v1/kv/l/b")?;
    let before = server.get("/v1/kv/l/?recurse")?.index()?;
    let watch = server.watch(format!("/v1/kv/l/?recurse&index={before}&wait=60s"));
    server.await_open_connections(1)?;

    assert!(server.delete("/v1/kv/l?recurse")?.is_true());

    let woken = watch.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    assert_eq!(woken.status, 404);
    assert!(woken.index()? > before);
    assert_eq!(server.get("/v1/kv/l0")?.status, 404);
    Ok(())
}

#[test]
fn a_recursive_delete_takes_the_prefix_and_nothing_else() -> Result<()> {
    let server = Server::start()?;
    for key in ["t/1", "t/2/3", "t", "u"] {
        server.put(&format!("/v1/kv/{key}"), "v")?;
    }

    assert!(server.delete("/v1/kv/t/?recurse")?.is_true());

    assert_eq!(keys(&server, "/v1/kv/?keys")?, json!(["t", "u"]));
    Ok(())
}

#[test]
fn a_list_of_many_keys_is_complete() -> Result<()> {
    let server = Server::start()?;
    let mut client = server.client();
    for block in 0..20 {
        let sets: Vec<Value> = (0..50)
            .map(
                |n| json!({"KV": {"Verb": "set", "Key": format!("many/{block:02}/{n:02}"), "Value": "dg=="}}),
            )
            .collect();
        assert_eq!(client.put("/v1/txn", json!(sets).to_string())?.status, 200);
    }

    let rows = client.get("/v1/kv/many/?recurse")?.json()?;
    let names: Vec<&str> = rows
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["Key"].as_str())
        .collect();

    assert_eq!(names.len(), 1000);
    assert!(names.is_sorted());
    assert_eq!(
        client
            .get("/v1/kv/many/?keys&separator=/")?
            .json()?
            .as_array()
            .map(Vec::len),
        Some(20)
    );
    Ok(())
}
