//! Agents without a server: they answer as a server does, outlive the one they ask, and take their sessions with them.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Cluster, Response, Server, exchange, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{LONG, trial};

/// What a server says of the health of a node's agent.
fn serf_health(server: &Server, node: &str) -> Result<Option<String>> {
    let checks = server.get(&format!("/v1/health/node/{node}?stale"))?.json()?;
    let checks = checks.as_array().context("no list of checks")?;
    let check = checks.iter().find(|check| check["CheckID"] == "serfHealth");
    Ok(check.and_then(|check| check["Status"].as_str().map(str::to_owned)))
}

/// A member as a server lists it.
fn member(server: &Server, name: &str) -> Result<Option<Value>> {
    let members = server.get("/v1/agent/members")?.json()?;
    let members = members.as_array().context("no list of members")?;
    Ok(members.iter().find(|member| member["Name"] == name).cloned())
}

fn has_status(server: &Server, name: &str, status: u8) -> Result<Option<()>> {
    Ok(member(server, name)?.and_then(|member| (member["Status"] == status).then_some(())))
}

#[test]
fn a_client_agent_answers_as_a_server_does() -> Result<()> {
    trial(3, |cluster| {
        let agent = cluster.client_agent("web-1")?;
        ensure!(agent.put("/v1/kv/a?flags=7", "one")?.is_true());
        let (own, server) = (agent.get("/v1/kv/a")?, cluster.server(0).get("/v1/kv/a")?);
        ensure!(own.json()? == server.json()?, "{} {}", own.text(), server.text());
        for header in ["X-Consul-Index", "Content-Type", "X-Consul-Knownleader"] {
            ensure!(
                own.header(header).is_some() && own.header(header) == server.header(header),
                "{header}: {:?}",
                own.header(header)
            );
        }
        ensure!(agent.get("/v1/kv/none")?.status == 404);
        ensure!(agent.get("/v1/nothing")?.status == 404);
        let txn = r#"[{"KV":{"Verb":"set","Key":"b","Value":"MQ=="}},{"KV":{"Verb":"get","Key":"a"}}]"#;
        ensure!(agent.put("/v1/txn", txn)?.status == 200);
        let big = vec![b'x'; 400_000];
        ensure!(agent.put("/v1/kv/big", &big)?.is_true());
        ensure!(agent.get("/v1/kv/big?raw")?.body == big);
        ensure!(agent.put("/v1/kv/big", vec![b'x'; 600_000])?.status == 413);

        let about = agent.get("/v1/agent/self")?.json()?;
        ensure!(about["Config"]["Server"] == json!(false), "{about}");
        ensure!(about["Stats"]["consul"]["known_servers"] == "3", "{about}");
        let listed = member(cluster.server(1), "web-1")?.context("it is no member")?;
        ensure!(
            listed["Tags"]["role"] == "node" && listed["Status"] == 1,
            "{listed}"
        );
        ensure!(agent.get("/v1/agent/members")?.json()?.as_array().map(Vec::len) == Some(4));
        Ok(())
    })
}

/// What is sent is less than was announced, and nothing follows.
fn break_off(server: &Server, target: &str) -> Result<Response> {
    let mut stream = server.client().connect()?;
    write!(
        stream,
        "PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n["
    )?;
    stream.shutdown(Shutdown::Write)?;
    exchange(&mut stream, b"")
}

#[test]
fn a_body_that_is_broken_off_is_the_clients_fault_at_an_agent_too() -> Result<()> {
    trial(1, |cluster| {
        let agent = cluster.client_agent("web-1")?;
        for (target, status, text) in [
            ("/v1/kv/a", 500, "unexpected EOF"),
            ("/v1/txn", 400, "Failed to parse body: unexpected EOF"),
            ("/v1/session/create", 400, "Request decode failed: unexpected EOF"),
            (
                "/v1/agent/service/register",
                400,
                "Request decode failed: unexpected EOF",
            ),
        ] {
            for asked in [cluster.server(0), &agent] {
                let answer = break_off(asked, target)?;
                ensure!(
                    answer.status == status && answer.text() == text,
                    "{target} at {}: {} {}",
                    asked.node(),
                    answer.status,
                    answer.text()
                );
            }
        }
        ensure!(agent.get("/v1/kv/a")?.status == 404);
        Ok(())
    })
}

/// Each server dies once, the one that the agent asks among them.
#[test]
fn a_client_agent_goes_on_when_its_server_dies() -> Result<()> {
    trial(3, |cluster| {
        let agent = cluster.client_agent("web-1")?;
        ensure!(agent.put("/v1/kv/turn", "0")?.is_true());
        for number in cluster.all() {
            let index = agent.get("/v1/kv/turn")?.index()?;
            let waiting = agent.watch(format!("/v1/kv/turn?index={index}&wait=60s"));

            cluster.server_mut(number).kill()?;
            until("the agent to read", LONG, || {
                let answer = agent.get("/v1/kv/turn?consistent")?;
                Ok((answer.status == 200).then_some(()))
            })?;
            let value = format!("after {number}");
            until("the agent to write", LONG, || {
                Ok(agent.put("/v1/kv/turn", &value)?.is_true().then_some(()))
            })?;

            let woken = waiting
                .join()
                .map_err(|_| anyhow::anyhow!("a watcher panicked"))??;
            ensure!(woken.status == 200, "{} {}", woken.status, woken.text());
            ensure!(woken.index()? > index, "it was told nothing new");
            cluster.server_mut(number).relaunch()?;
            cluster.await_ready()?;
        }
        ensure!(
            serf_health(cluster.server(0), "web-1")?.as_deref() == Some("passing"),
            "it lived all the time"
        );
        Ok(())
    })
}

#[test]
fn the_sessions_of_a_client_agent_end_with_it() -> Result<()> {
    trial(3, |cluster| {
        let mut agent = cluster.client_agent("web-1")?;
        let session = agent.session(r#"{"LockDelay":"0s"}"#)?;
        ensure!(
            agent
                .put(&format!("/v1/kv/lock?acquire={session}"), "")?
                .is_true()
        );
        let server = cluster.server(0);
        let info = server.get(&format!("/v1/session/info/{session}"))?.json()?;
        ensure!(info[0]["Node"] == "web-1", "{info}");

        agent.kill()?;

        until("its health to be critical", LONG, || {
            Ok((serf_health(server, "web-1")?.as_deref() == Some("critical")).then_some(()))
        })?;
        let lock = server.get("/v1/kv/lock?consistent")?.entry()?;
        ensure!(lock.get("Session").is_none(), "{lock}");
        until("it to be a failed member", LONG, || {
            has_status(server, "web-1", 4)
        })?;

        agent.relaunch()?;
        until("it to live again", LONG, || {
            Ok((serf_health(server, "web-1")?.as_deref() == Some("passing")).then_some(()))
        })?;
        until("it to be a member again", LONG, || has_status(server, "web-1", 1))
    })
}

#[test]
fn services_of_a_client_agent_are_in_the_catalog_until_it_leaves() -> Result<()> {
    trial(3, |cluster| {
        let mut agent = cluster.client_agent("web-1")?;
        let server = cluster.server(2);
        let service = r#"{"Name":"web","Port":80,"Check":{"TTL":"60s"}}"#;
        ensure!(agent.put("/v1/agent/service/register", service)?.status == 200);
        ensure!(agent.put("/v1/agent/check/pass/service:web", "")?.status == 200);
        let healthy = |server: &Server| -> Result<Option<Value>> {
            let found = server.get("/v1/health/service/web?passing")?.json()?;
            Ok(found.get(0).cloned())
        };
        let found = until("the service to be healthy", LONG, || healthy(server))?;
        ensure!(found["Node"]["Node"] == "web-1", "{found}");
        ensure!(
            healthy(&agent)?.is_some_and(|own| own == found),
            "the agent answers the same"
        );

        agent.signal(Signal::TERM)?;
        ensure!(agent.await_exit()?.success());

        ensure!(server.get("/v1/catalog/node/web-1")?.json()?.is_null());
        until("it to have left", LONG, || has_status(server, "web-1", 3))?;
        agent.relaunch()?;
        until("the service to be back", LONG, || healthy(server))?;
        until("it to be a member again", LONG, || has_status(server, "web-1", 1))
    })
}

/// How many queries wait in the servers.
fn waiting(cluster: &Cluster) -> Result<u64> {
    let mut count = 0;
    for number in cluster.all() {
        let metrics = cluster.server(number).get("/v1/agent/metrics")?.json()?;
        let gauges = metrics["Gauges"].as_array().cloned().unwrap_or_default();
        let gauge = gauges.iter().find(|gauge| {
            gauge["Name"]
                .as_str()
                .is_some_and(|name| name.ends_with(".watches.waiting"))
        });
        count += gauge
            .and_then(|gauge| gauge["Value"].as_u64())
            .unwrap_or_default();
    }
    Ok(count)
}

#[test]
fn equal_questions_that_wait_are_asked_once() -> Result<()> {
    trial(1, |cluster| {
        let agent = cluster.client_agent("web-1")?;
        ensure!(agent.put("/v1/kv/k", "0")?.is_true());
        let index = agent.get("/v1/kv/k")?.index()?;
        let before = waiting(cluster)?;

        let herd: Vec<_> = (0..30)
            .map(|_| agent.watch(format!("/v1/kv/k?index={index}&wait=60s")))
            .collect();
        agent.await_open_connections(30)?;
        until("the question to be asked", Duration::from_secs(10), || {
            Ok((waiting(cluster)? > before).then_some(()))
        })?;
        ensure!(
            waiting(cluster)? == before + 1,
            "{before} and {}",
            waiting(cluster)?
        );

        ensure!(agent.put("/v1/kv/k", "1")?.is_true());
        for watcher in herd {
            let told = watcher
                .join()
                .map_err(|_| anyhow::anyhow!("a watcher panicked"))??;
            ensure!(told.status == 200 && told.index()? > index, "{}", told.text());
        }
        Ok(())
    })
}

/// Who listens at an agent hears what is fired anywhere, each event once, and those alone that are for this node.
#[test]
fn user_events_reach_client_agents() -> Result<()> {
    trial(3, |cluster| {
        let agents = [cluster.client_agent("web-1")?, cluster.client_agent("web-2")?];
        let heard = |server: &Server| -> Result<Vec<String>> {
            let events = server.get("/v1/event/list")?.json()?;
            let events = events.as_array().context("no list of events")?;
            Ok(events
                .iter()
                .filter_map(|event| event["Name"].as_str().map(str::to_owned))
                .collect())
        };
        let service = r#"{"Name":"web","Tags":["v2"]}"#;
        ensure!(agents[1].put("/v1/agent/service/register", service)?.status == 200);
        for server in [cluster.server(0), &agents[0]] {
            ensure!(heard(server)?.is_empty());
        }
        let index = agents[0].get("/v1/event/list")?.index()?;
        let waiting = agents[0].watch(format!("/v1/event/list?index={index}&wait=60s"));

        for (server, event) in [
            (cluster.server(0), "for-all"),
            (&agents[1], "for-web-1?node=web-1"),
            (cluster.server(2), "for-v2?service=web&tag=v2"),
            (&agents[0], "last"),
        ] {
            let fired = server.put(&format!("/v1/event/fire/{event}"), "x")?;
            ensure!(fired.status == 200, "{} {}", fired.status, fired.text());
        }

        let woken = waiting
            .join()
            .map_err(|_| anyhow::anyhow!("a watcher panicked"))??;
        ensure!(
            woken.status == 200 && woken.text().contains("for-all"),
            "{}",
            woken.text()
        );
        let expected: [&[&str]; 3] = [
            &["for-all", "for-web-1", "last"],
            &["for-all", "for-v2", "last"],
            &["for-all", "last"],
        ];
        for (server, expected) in [&agents[0], &agents[1], cluster.server(1)]
            .into_iter()
            .zip(expected)
        {
            until("the events to be heard", LONG, || {
                let mut heard = heard(server)?;
                // What is fired at different servers has no order.
                heard.sort();
                ensure!(heard == expected, "{heard:?}");
                Ok(Some(()))
            })?;
        }
        // Told again and again, heard once; and an agent that comes later hears nothing of it.
        let late = cluster.client_agent("web-3")?;
        ensure!(late.put("/v1/event/fire/new", "")?.status == 200);
        until("the new event", LONG, || {
            let heard = heard(&late)?;
            ensure!(heard == ["new"], "{heard:?}");
            Ok(Some(()))
        })?;
        ensure!(
            heard(&agents[0])?
                .iter()
                .filter(|name| *name == "for-all")
                .count()
                == 1
        );
        Ok(())
    })
}
