//! What Lictor adds to Consul's API: the page about it, run as printed, and what it does not say.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lictor_tests::{Options, Server};
use serde_json::json;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/extensions.md");

/// The examples of a page: what is run, and what it prints.
fn examples(page: &str) -> Result<Vec<(String, String)>> {
    let mut examples = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let (mut script, mut printed) = (String::new(), String::new());
        for line in block.lines() {
            match line.strip_prefix("# ") {
                Some(line) => writeln!(printed, "{line}")?,
                None => writeln!(script, "{line}")?,
            }
        }
        examples.push((script, printed));
    }
    Ok(examples)
}

/// Without line ends at the end, and with all indexes alike: they are what they are.
fn normal(text: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.trim_end().chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let before = out.to_lowercase();
        let is_index = ["index: ", "index\":", "index="]
            .iter()
            .any(|name| before.ends_with(name));
        out.push_str(if is_index && !digits.is_empty() {
            "N"
        } else {
            &digits
        });
        digits.clear();
        out.push(c);
    }
    out
}

/// Resident memory of the server.
fn memory_kib(server: &Server) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn the_page_s_examples_print_what_it_says() -> Result<()> {
    let server = Server::start()?;
    // As printed, and yet at this server.
    fs::write(
        server.temp_dir().join(".curlrc"),
        format!("connect-to = \"localhost:8500:{}\"\n", server.http()),
    )?;
    let page = fs::read_to_string(PAGE)?;
    let examples = examples(&page)?;
    ensure!(examples.len() >= 8, "the page has lost its examples");

    for (script, printed) in examples {
        // Answers that end without a line break get one.
        let script_lines: String = script
            .lines()
            .map(|line| {
                if line.starts_with("curl") || line.starts_with("for") {
                    format!("out=$({line}); [ -z \"$out\" ] || printf '%s\\n' \"$out\"\n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        let ran = Command::new("sh")
            .args(["-c", &script_lines])
            .env("CURL_HOME", server.temp_dir())
            .output()
            .context("sh")?;
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(normal(&out), normal(&printed), "{script}{error}");
    }
    Ok(())
}

#[test]
fn nothing_is_added_for_who_does_not_ask() -> Result<()> {
    let server = Server::start()?;
    let mut client = server.client();

    let answers = [
        client.put("/v1/kv/a", "1")?,
        client.put("/v1/kv/a?cas=0", "2")?,
        client.get("/v1/kv/a")?,
        client.get("/v1/kv/?recurse")?,
        client.get("/v1/kv/?keys")?,
        client.delete("/v1/kv/a")?,
    ];

    for answer in answers {
        assert!(
            !answer
                .headers
                .iter()
                .any(|(name, _)| name.to_lowercase().contains("lictor")),
            "{:?}",
            answer.headers
        );
    }
    Ok(())
}

#[test]
fn limits_are_settings_and_named_where_they_refuse() -> Result<()> {
    let server = Server::with(Options {
        hcl: "limits {\n kv_max_value_size = 1000\n txn_max_req_len = 2000\n txn_max_ops = 3\n}\n".to_owned(),
        ..Options::default()
    })?;

    let value = server.put("/v1/kv/a", vec![b'x'; 1001])?;
    assert_eq!(value.status, 413);
    assert!(value.text().contains("kv_max_value_size"), "{}", value.text());
    let body = server.put("/v1/txn", vec![b' '; 2001])?;
    assert!(
        body.status == 413 && body.text().contains("txn_max_req_len"),
        "{}",
        body.text()
    );
    let op = json!({"KV": {"Verb": "set", "Key": "a", "Value": ""}});
    assert_eq!(
        server.put("/v1/txn", json!([op, op, op]).to_string())?.status,
        200
    );
    let ops = server.put("/v1/txn", json!([op, op, op, op]).to_string())?;
    assert!(
        ops.status == 413 && ops.text().contains("txn_max_ops"),
        "{}",
        ops.text()
    );
    Ok(())
}

#[test]
fn an_import_says_how_far_it_came_and_keeps_that() -> Result<()> {
    let server = Server::start()?;
    let entry = |key: usize| json!({"key": format!("{key:04}"), "flags": key, "value": "dg=="});
    let mut all: Vec<_> = (0..1000).map(entry).collect();

    let done = server.put("/v1/kv/good/?import", json!(all).to_string())?;
    assert_eq!(done.text(), r#"{"Imported":1000}"#);
    all[300] = json!({"key": "bad", "value": "not base64"});
    let failed = server.put("/v1/kv/part/?import", json!(all).to_string())?;

    assert_eq!(failed.status, 400);
    assert!(
        failed
            .text()
            .starts_with("Import failed after 256 keys: key \"part/bad\""),
        "{}",
        failed.text()
    );
    assert_eq!(
        server.get("/v1/kv/part/?recurse&count")?.text(),
        r#"{"Count":256}"#
    );
    assert_eq!(server.get("/v1/kv/good/0999")?.entry()?["Flags"], json!(999));
    let exported = server.get("/v1/kv/good/?export")?;
    assert_eq!(
        server.put("/v1/kv/again/?import", exported.body)?.text(),
        r#"{"Imported":1000}"#
    );
    Ok(())
}

#[test]
fn a_recursive_delete_of_many_keys_is_one_small_step() -> Result<()> {
    const KEYS: usize = 50_000;
    let server = Server::with(Options {
        dev: true,
        ..Options::default()
    })?;
    let mut body = String::from("[");
    for key in 0..KEYS {
        body.push_str(if key == 0 { "" } else { "," });
        write!(body, r#"{{"key":"{key:07}","value":"dg=="}}"#)?;
    }
    body.push(']');
    let mut client = server.client().with_timeout(Duration::from_secs(300));
    let imported = client.put("/v1/kv/many/?import", body)?;
    assert_eq!(imported.json()?["Imported"], KEYS);
    let before = memory_kib(&server)?;

    assert!(server.delete("/v1/kv/many/?recurse")?.is_true());

    assert!(
        memory_kib(&server)? < before + 32 * 1024,
        "a delete must not take memory for each key"
    );
    assert_eq!(server.get("/v1/kv/many/?recurse&count")?.json()?["Count"], 0);
    Ok(())
}

#[test]
fn a_key_with_a_ttl_goes_by_itself_after_a_restart_too() -> Result<()> {
    let mut server = Server::start()?;
    assert!(server.put("/v1/kv/brief?ttl=10s", "1")?.is_true());
    assert!(server.put("/v1/kv/kept?ttl=1s", "1")?.is_true());
    assert!(server.put("/v1/kv/kept", "2")?.is_true());
    for bad in ["ttl=", "ttl=0s", "ttl=5", "ttl=60s&acquire=x"] {
        assert_eq!(
            server.put(&format!("/v1/kv/brief?{bad}"), "1")?.status,
            400,
            "{bad}"
        );
    }

    server.crash_and_restart()?;

    let found = server.get("/v1/kv/brief")?;
    assert_eq!(found.status, 200, "its time begins anew");
    let gone = server.get(&format!("/v1/kv/brief?index={}&wait=60s", found.index()?))?;
    assert_eq!(gone.status, 404);
    assert_eq!(server.get("/v1/kv/kept")?.value()?, b"2", "a later write wins");
    Ok(())
}

#[test]
fn an_exact_session_of_a_second_ends_after_a_second() -> Result<()> {
    let server = Server::with(Options {
        hcl: "session_ttl_min = \"1s\"\n".to_owned(),
        ..Options::default()
    })?;
    let begun = Instant::now();
    let id = server.session(r#"{"TTL":"1s","TTLExact":true}"#)?;
    let shown = server.get(&format!("/v1/session/info/{id}"))?;
    assert_eq!(shown.entry()?["TTLExact"], json!(true));

    let gone = server.get(&format!(
        "/v1/session/info/{id}?index={}&wait=60s",
        shown.index()?
    ))?;

    assert_eq!(gone.text(), "[]");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    Ok(())
}
