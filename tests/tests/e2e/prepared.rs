//! Prepared queries are as durable as keys, and go with their sessions.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::Server;
use serde_json::Value;

fn create(server: &Server, query: &str) -> Result<String> {
    let created = server.client().call("POST", "/v1/query", &[], query.as_bytes())?;
    ensure!(created.status == 200, "{} {}", created.status, created.text());
    Ok(created.json()?["ID"].as_str().context("no ID")?.to_owned())
}

/// The nodes that a query answers with.
fn nodes(server: &Server, name: &str) -> Result<Vec<String>> {
    let answer = server.get(&format!("/v1/query/{name}/execute"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let answer = answer.json()?;
    let nodes = answer["Nodes"].as_array().context("no nodes")?;
    let name = |entry: &Value| entry["Node"]["Node"].as_str().map(str::to_owned);
    let mut names: Vec<_> = nodes.iter().filter_map(name).collect();
    names.sort();
    Ok(names)
}

fn register(server: &Server, node: &str, status: &str) -> Result<()> {
    let body = format!(
        r#"{{"Node":"{node}","Address":"192.0.2.1","Service":{{"Service":"web","Tags":["{node}"]}},
            "Check":{{"Name":"c","ServiceID":"web","Status":"{status}"}}}}"#
    );
    let registered = server.put("/v1/catalog/register", body)?;
    ensure!(registered.is_true(), "{}", registered.text());
    Ok(())
}

#[test]
fn queries_outlive_crashes_and_come_back_with_a_snapshot() -> Result<()> {
    let mut server = Server::start()?;
    for (node, status) in [("n1", "passing"), ("n2", "warning"), ("n3", "critical")] {
        register(&server, node, status)?;
    }
    let query = r#"{"Name":"web","Service":{"Service":"web","OnlyPassing":true}}"#;
    let id = create(&server, query)?;
    let template = r#"{"Name":"on-","Template":{"Type":"name_prefix_match"},
        "Service":{"Service":"web","Tags":["${name.suffix}"]}}"#;
    create(&server, template)?;
    ensure!(nodes(&server, "web")? == ["n1"]);
    ensure!(nodes(&server, "on-n2")? == ["n2"]);

    server.crash_and_restart()?;

    ensure!(nodes(&server, &id)? == ["n1"], "found by its id");
    ensure!(nodes(&server, "on-n2")? == ["n2"], "the template is there");
    let archive = server.get("/v1/snapshot")?.body;
    ensure!(server.delete(&format!("/v1/query/{id}"))?.status == 200);
    ensure!(server.get("/v1/query/web/execute")?.status == 404);
    let restored = server.put("/v1/snapshot", archive)?;
    ensure!(restored.status == 200, "{}", restored.text());
    ensure!(nodes(&server, "web")? == ["n1"]);
    let kept = server.get(&format!("/v1/query/{id}"))?.json()?;
    ensure!(kept[0]["Service"]["OnlyPassing"] == true, "{kept}");
    Ok(())
}

#[test]
fn a_query_goes_with_its_session_and_wakes_who_waits() -> Result<()> {
    let server = Server::start()?;
    let session = server.session(r#"{"LockDelay":"0s"}"#)?;
    let id = create(
        &server,
        &format!(r#"{{"Session":"{session}","Service":{{"Service":"web"}}}}"#),
    )?;
    let index = server.get("/v1/query")?.index()?;
    let waiting = server.watch(format!("/v1/query?index={index}&wait=60s"));

    ensure!(
        server
            .put(&format!("/v1/session/destroy/{session}"), "")?
            .is_true()
    );

    let woken = waiting
        .join()
        .map_err(|_| anyhow::anyhow!("a watcher panicked"))??;
    ensure!(
        woken.json()?.as_array().is_some_and(Vec::is_empty),
        "{}",
        woken.text()
    );
    ensure!(server.get(&format!("/v1/query/{id}"))?.status == 404);
    Ok(())
}
