//! Snapshots: saved, restored, and what a crash makes of them.

use std::process::Command;

use anyhow::{Context, Result};
use lictor_tests::{Server, binary};
use serde_json::{Value, json};

/// All that a client can see of keys and sessions, with their indexes.
fn picture(server: &Server) -> Result<Value> {
    let rows = server.get("/v1/kv/?recurse")?;
    let sessions = server.get("/v1/session/list")?;
    Ok(json!([rows.json()?, rows.index()?, sessions.json()?]))
}

fn fill(server: &Server) -> Result<()> {
    for n in 0..500 {
        server.put(&format!("/v1/kv/then/{n:03}?flags={n}"), format!("value {n}"))?;
    }
    server.delete("/v1/kv/then/499")?;
    let session = server.session(r#"{"Name":"holder","TTL":"60s","LockDelay":"0s"}"#)?;
    server.put(&format!("/v1/kv/then/held?acquire={session}"), "mine")?;
    Ok(())
}

#[test]
fn a_restore_survives_kill_9_and_indexes_go_on() -> Result<()> {
    let mut server = Server::start()?;
    fill(&server)?;
    let then = picture(&server)?;
    let archive = server.get("/v1/snapshot")?.body;
    server.put("/v1/kv/then/001", "changed")?;
    server.put("/v1/kv/new", "1")?;
    let last = server.get("/v1/kv/new")?.index()?;

    assert_eq!(server.put("/v1/snapshot", &archive)?.status, 200);

    assert_eq!(picture(&server)?, then);
    server.put("/v1/kv/after", "1")?;
    server.crash_and_restart()?;
    assert!(server.get("/v1/kv/after")?.index()? > last);
    server.delete("/v1/kv/after")?;
    let now = picture(&server)?;
    assert_eq!((&now[0], &now[2]), (&then[0], &then[2]));
    Ok(())
}

#[test]
fn a_snapshot_fills_another_server() -> Result<()> {
    let (one, other) = (Server::start()?, Server::start()?);
    fill(&one)?;
    let archive = one.get("/v1/snapshot")?.body;
    other.put("/v1/kv/other", "1")?;

    assert_eq!(other.put("/v1/snapshot", &archive)?.status, 200);

    assert_eq!(picture(&other)?, picture(&one)?);
    other.put("/v1/kv/then/001", "later")?;
    let then = one.get("/v1/kv/?recurse")?.index()?;
    assert!(other.get("/v1/kv/then/001")?.index()? > then);
    Ok(())
}

#[test]
fn the_command_line_saves_inspects_and_restores() -> Result<()> {
    let server = Server::start()?;
    fill(&server)?;
    let then = picture(&server)?;
    let file = server.temp_dir().join("backup.snap");
    let run = |name: &str, arguments: &[&str]| -> Result<(bool, String)> {
        let mut command = Command::new(binary()?);
        command.arg("snapshot").arg(name).args(arguments).arg(&file);
        let output = command
            .env("CONSUL_HTTP_ADDR", server.http().to_string())
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(text)?))
    };

    let (saved, text) = run("save", &[])?;
    assert!(
        saved && text.starts_with("Saved and verified snapshot to index "),
        "{text}"
    );
    let (inspected, text) = run("inspect", &["-format=json", "-kvdetails", "-kvdepth=1"])?;
    assert!(inspected, "{text}");
    let found: Value = serde_json::from_str(&text)?;
    let kvs = found["Stats"].as_array().context("a list")?;
    let kvs = kvs.iter().find(|stat| stat["Name"] == "KVS").context("keys")?;
    assert_eq!(
        (&kvs["Count"], &found["StatsKV"][0]["Name"]),
        (&json!(500), &json!("then"))
    );
    server.delete("/v1/kv/?recurse")?;
    assert_eq!(run("restore", &[])?, (true, "Restored snapshot\n".to_owned()));

    assert_eq!(picture(&server)?, then);
    std::fs::write(&file, "junk")?;
    let refused = "Error restoring snapshot: Unexpected response code: 500 \
                   (failed to decompress snapshot: unexpected EOF)\n";
    assert_eq!(run("restore", &[])?, (false, refused.to_owned()));
    assert_eq!(picture(&server)?, then);
    Ok(())
}

/// Whoever moves from Consul saves there and restores here, and clients see what they saw.
#[test]
fn a_snapshot_of_a_real_consul_is_restored() -> Result<()> {
    let Some(consul) = lictor_tests::consul()? else {
        return crate::skip("no Consul binary as $CONSUL_BIN or on $PATH");
    };
    let old = Server::with(lictor_tests::Options {
        program: Some(consul.clone()),
        ..lictor_tests::Options::default()
    })?;
    fill(&old)?;
    let node = r#"{"Node":"web-1","Address":"192.0.2.1","NodeMeta":{"rack":"7"},
        "Service":{"ID":"w1","Service":"web","Port":80,"Tags":["a"],"Meta":{"v":"2"}},
        "Check":{"CheckID":"c","Name":"c","Status":"warning","ServiceID":"w1"}}"#;
    assert_eq!(old.put("/v1/catalog/register", node)?.status, 200);
    let lists = ["/v1/health/service/web", "/v1/catalog/node/web-1"];
    let known = |server: &Server| -> Result<Value> {
        let found = lists.map(|list| server.get(list).and_then(|answer| answer.json()));
        let [health, node] = found;
        Ok(json!([picture(server)?, health?, node?]))
    };
    let then = known(&old)?;
    let file = old.temp_dir().join("consul.snap");
    let run = |program: &std::path::Path, name: &str, server: &Server| -> Result<String> {
        let mut command = Command::new(program);
        command.args(["snapshot", name]).arg(&file);
        let output = command
            .env("CONSUL_HTTP_ADDR", server.http().to_string())
            .output()?;
        anyhow::ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    };
    run(&consul, "save", &old)?;
    let last = old.get("/v1/kv/?recurse")?.index()?;

    for program in [binary()?, consul.clone()] {
        let new = Server::start()?;
        assert_eq!(run(&program, "restore", &new)?, "Restored snapshot\n");

        assert_eq!(known(&new)?, then);
        new.put("/v1/kv/after", "1")?;
        assert!(new.get("/v1/kv/after")?.index()? > last);
        let held = new.get("/v1/kv/then/held")?.entry()?;
        let session = held["Session"].as_str().context("nobody holds it")?;
        assert!(
            new.put(&format!("/v1/kv/then/held?release={session}"), "")?
                .is_true()
        );
    }
    Ok(())
}
