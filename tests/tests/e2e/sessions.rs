//! Sessions: create, read, renew, destroy, expiry.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use lictor_tests::Server;
use serde_json::json;

#[test]
fn no_body_and_an_empty_object_give_the_defaults() -> Result<()> {
    let server = Server::start()?;

    for body in ["", "{}", "null"] {
        let id = server.session(body)?;
        let session = server.get(&format!("/v1/session/info/{id}"))?.entry()?;
        assert_eq!(session["ID"], json!(id));
        assert_eq!(session["LockDelay"], json!(15_000_000_000_u64));
        assert_eq!(
            (&session["Behavior"], &session["TTL"]),
            (&json!("release"), &json!(""))
        );
        assert_eq!(
            (&session["NodeChecks"], &session["Node"]),
            (&json!(["serfHealth"]), &json!(server.node()))
        );
    }
    Ok(())
}

#[test]
fn lock_delay_is_shown_as_it_was_given_also_over_a_minute() -> Result<()> {
    let server = Server::start()?;

    for (given, shown) in [
        (json!("100s"), 100_000_000_000_u64),
        (json!("1m40s"), 100_000_000_000),
        (json!(20), 20_000_000_000),
        (json!(1000), 1000),
        (json!("0s"), 0),
    ] {
        let id = server.session(&json!({"LockDelay": given}).to_string())?;
        assert_eq!(
            server.get(&format!("/v1/session/info/{id}"))?.entry()?["LockDelay"],
            json!(shown),
            "{given}"
        );
    }
    Ok(())
}

#[test]
fn bad_sessions_are_refused_in_consuls_words() -> Result<()> {
    let server = Server::start()?;

    for (body, status, text) in [
        (r#"{"Behavior":"x"}"#, 500, "Invalid Behavior setting 'x'"),
        (
            r#"{"TTL":"9s"}"#,
            500,
            "Invalid Session TTL '9000000000', must be between [10s=24h0m0s]",
        ),
        (r#"{"TTL":"25h"}"#, 500, "must be between [10s=24h0m0s]"),
        (r#"{"TTL":"x"}"#, 500, "Session TTL 'x' invalid"),
        (r#"{"Node":"nobody"}"#, 500, "Missing node registration"),
        (
            r#"{"NodeChecks":["nope"]}"#,
            500,
            "Missing check 'nope' registration",
        ),
        ("{", 400, "Request decode failed"),
        (r#"{"LockDelay":"x"}"#, 400, "Request decode failed"),
    ] {
        let response = server.put("/v1/session/create", body)?;
        assert_eq!(response.status, status, "{body}: {}", response.text());
        assert!(response.text().contains(text), "{body}: {}", response.text());
    }
    assert_eq!(server.get("/v1/session/list")?.json()?, json!([]));
    Ok(())
}

#[test]
fn sessions_are_listed_and_gone_once_destroyed() -> Result<()> {
    let server = Server::start()?;
    let (a, b) = (server.session("")?, server.session("")?);
    let ids = |target: &str| -> Result<Vec<String>> {
        let list = server.get(target)?.json()?;
        let mut ids: Vec<String> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|s| Some(s["ID"].as_str()?.to_owned()))
            .collect();
        ids.sort();
        Ok(ids)
    };
    let mut both = vec![a.clone(), b.clone()];
    both.sort();

    assert_eq!(ids("/v1/session/list")?, both);
    assert_eq!(ids(&format!("/v1/session/node/{}", server.node()))?, both);
    assert!(
        server
            .put(&format!("/v1/session/destroy/{}", a.to_uppercase()), "")?
            .is_true()
    );

    assert_eq!(ids("/v1/session/list")?, [b]);
    assert_eq!(server.get(&format!("/v1/session/info/{a}"))?.json()?, json!([]));
    assert!(server.put(&format!("/v1/session/destroy/{a}"), "")?.is_true());
    let renewed = server.put(&format!("/v1/session/renew/{a}"), "")?;
    assert_eq!(
        (renewed.status, renewed.text()),
        (404, format!("Session id '{a}' not found"))
    );
    Ok(())
}

#[test]
fn the_end_of_a_session_frees_or_deletes_its_keys_at_one_index() -> Result<()> {
    let server = Server::start()?;
    let release = server.session(r#"{"LockDelay":0}"#)?;
    let delete = server.session(r#"{"LockDelay":0,"Behavior":"delete"}"#)?;
    for key in ["r/1", "r/2", "r/3"] {
        server.put(&format!("/v1/kv/{key}?acquire={release}&flags=5"), "kept")?;
    }
    for key in ["d/1", "d/2"] {
        server.put(&format!("/v1/kv/{key}?acquire={delete}"), "gone")?;
    }

    server.put(&format!("/v1/session/destroy/{release}"), "")?;
    server.put(&format!("/v1/session/destroy/{delete}"), "")?;

    let rows = server.get("/v1/kv/r/?recurse")?.json()?;
    let rows = rows.as_array().ok_or_else(|| anyhow!("no list"))?;
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert!(row.get("Session").is_none());
        assert_eq!(
            (&row["LockIndex"], &row["Flags"], &row["Value"]),
            (&json!(1), &json!(5), &json!("a2VwdA=="))
        );
        assert_eq!(row["ModifyIndex"], rows[0]["ModifyIndex"]);
    }
    assert_eq!(server.get("/v1/kv/d/?keys")?.status, 404);
    Ok(())
}

/// TTL sessions end after twice their TTL, never before the TTL; renewing one moves its end; watchers wake.
#[test]
fn a_session_that_is_not_renewed_expires_and_wakes_watchers() -> Result<()> {
    let server = Server::start()?;
    let body = r#"{"TTL":"10s","LockDelay":"0s","Behavior":"delete"}"#;
    let (left, renewed) = (server.session(body)?, server.session(body)?);
    let begun = Instant::now();
    server.put(&format!("/v1/kv/left?acquire={left}"), "x")?;
    server.put(&format!("/v1/kv/renewed?acquire={renewed}"), "x")?;
    let index = server.get("/v1/kv/left")?.index()?;
    let watch = server.watch(format!("/v1/kv/left?index={index}&wait=60s"));

    let mut client = server.client();
    while !watch.is_finished() {
        let answer = client.put(&format!("/v1/session/renew/{renewed}"), "")?;
        assert_eq!(answer.status, 200);
        // Often enough for a TTL of ten seconds.
        std::thread::park_timeout(Duration::from_millis(200));
    }

    let took = begun.elapsed();
    let woken = watch.join().map_err(|_| anyhow!("panicked"))??;
    assert_eq!(woken.status, 404);
    assert!(woken.index()? > index);
    assert!(
        took >= Duration::from_secs(10) && took <= Duration::from_secs(30),
        "ended after {took:?}"
    );
    assert_eq!(
        server.get(&format!("/v1/session/info/{left}"))?.json()?,
        json!([])
    );
    assert_eq!(server.get("/v1/kv/renewed")?.entry()?["Session"], json!(renewed));
    Ok(())
}
