//! Sessions bound to service checks: the agent's local services reach the catalog and end sessions.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use lictor_tests::{Server, until};
use serde_json::json;

const SYNC: Duration = Duration::from_secs(20);

fn register(server: &Server, status: &str) -> Result<()> {
    let body = json!({"ID": "web-1", "Name": "web", "Port": 80, "Check": {"TTL": "300s", "Status": status}});
    let response = server.put("/v1/agent/service/register", body.to_string())?;
    ensure!(response.status == 200, "{}", response.text());
    await_status(server, status)
}

/// The catalog follows the agent a little later.
fn await_status(server: &Server, status: &str) -> Result<()> {
    until("the catalog to follow", SYNC, || {
        let checks = server.get("/v1/health/checks/web")?.json()?;
        Ok((checks[0]["Status"] == status).then_some(()))
    })
}

/// A session that depends on the service, and holds `/v1/kv/l`.
fn bound(server: &Server) -> Result<String> {
    let session = server
        .session(r#"{"Name":"test1","LockDelay":"0s","Behavior":"release","Checks":["service:web-1"]}"#)?;
    ensure!(server.put(&format!("/v1/kv/l?acquire={session}"), "x")?.is_true());
    Ok(session)
}

fn lives(server: &Server, session: &str) -> Result<bool> {
    Ok(server.get(&format!("/v1/session/info/{session}"))?.json()? != json!([]))
}

#[test]
fn a_critical_check_ends_the_session_and_frees_its_lock() -> Result<()> {
    let server = Server::start()?;
    register(&server, "passing")?;
    let session = bound(&server)?;
    let index = server.get("/v1/kv/l")?.index()?;
    let watch = server.watch(format!("/v1/kv/l?index={index}&wait=60s"));
    server.await_open_connections(1)?;

    assert_eq!(server.put("/v1/agent/check/fail/service:web-1", "")?.status, 200);

    let woken = watch.join().map_err(|_| anyhow!("panicked"))??;
    assert!(woken.entry()?.get("Session").is_none());
    assert!(!lives(&server, &session)?);
    Ok(())
}

#[test]
fn a_warning_ends_nothing() -> Result<()> {
    let server = Server::start()?;
    register(&server, "passing")?;
    let session = bound(&server)?;

    server.put("/v1/agent/check/warn/service:web-1?note=slow", "")?;
    await_status(&server, "warning")?;

    assert!(lives(&server, &session)?);
    assert_eq!(server.get("/v1/kv/l")?.entry()?["Session"], json!(session));
    Ok(())
}

#[test]
fn a_session_on_a_critical_check_is_refused() -> Result<()> {
    let server = Server::start()?;
    register(&server, "critical")?;

    let response = server.put("/v1/session/create", r#"{"Checks":["service:web-1"]}"#)?;

    assert_eq!(response.status, 500);
    assert!(
        response
            .text()
            .contains("Check 'service:web-1' is in critical state"),
        "{}",
        response.text()
    );
    Ok(())
}

#[test]
fn deregistering_the_service_ends_the_session() -> Result<()> {
    let server = Server::start()?;
    register(&server, "passing")?;
    let session = bound(&server)?;

    server.put("/v1/agent/service/deregister/web-1", "")?;

    until("the session to end", SYNC, || {
        Ok((!lives(&server, &session)?).then_some(()))
    })?;
    assert!(server.get("/v1/kv/l")?.entry()?.get("Session").is_none());
    Ok(())
}

#[test]
fn a_ttl_check_that_is_not_updated_turns_critical_and_ends_the_session() -> Result<()> {
    let server = Server::start()?;
    let body = json!({"ID": "web-1", "Name": "web", "Check": {"TTL": "3s", "Status": "passing"}});
    server.put("/v1/agent/service/register", body.to_string())?;
    await_status(&server, "passing")?;
    let session = bound(&server)?;

    until("the session to end", SYNC, || {
        Ok((!lives(&server, &session)?).then_some(()))
    })?;

    assert_eq!(
        server.get("/v1/health/checks/web")?.json()?[0]["Status"],
        json!("critical")
    );
    Ok(())
}

#[test]
fn services_of_the_agent_survive_a_restart() -> Result<()> {
    let mut server = Server::start()?;
    register(&server, "passing")?;

    server.crash_and_restart()?;

    let services = until("the service to be back", SYNC, || {
        let services = server.get("/v1/agent/services")?.json()?;
        Ok(services.get("web-1").is_some().then_some(services))
    })?;
    assert_eq!(services["web-1"]["Service"], json!("web"));
    Ok(())
}
