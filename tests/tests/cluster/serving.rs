//! Any server answers everything, as if it were alone.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_tests::until;
use serde_json::json;

use crate::{LONG, trial};

#[test]
fn what_one_server_took_all_servers_show_at_once() -> Result<()> {
    trial(3, |cluster| {
        let mut clients: Vec<_> = (0..3).map(|n| cluster.server(n).client()).collect();
        for round in 0..60 {
            let writer = round % 3;
            let value = round.to_string();
            ensure!(clients[writer].put("/v1/kv/k", &value)?.is_true());

            // Its own write, with nobody asked.
            let own = clients[writer].get("/v1/kv/k?stale")?;
            ensure!(
                own.value()? == value.as_bytes(),
                "own write, stale: {}",
                own.text()
            );
            for (reader, client) in clients.iter_mut().enumerate() {
                for mode in ["default", "consistent"] {
                    let seen = client.get(&format!("/v1/kv/k?{mode}"))?;
                    ensure!(
                        seen.value()? == value.as_bytes(),
                        "{mode} at {reader}: {}",
                        seen.text()
                    );
                }
            }
        }
        Ok(())
    })
}

#[test]
fn transactions_and_check_and_set_work_at_every_server() -> Result<()> {
    trial(3, |cluster| {
        for number in 0..3 {
            let server = cluster.server(number);
            let body = json!([
                {"KV": {"Verb": "set", "Key": format!("t/{number}/a"), "Value": STANDARD.encode("1")}},
                {"KV": {"Verb": "get", "Key": format!("t/{number}/a")}},
            ]);
            let answer = server.put("/v1/txn", body.to_string())?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            let index = &answer.json()?["Results"][1]["KV"]["ModifyIndex"];
            let key = format!("/v1/kv/t/{number}/a");
            ensure!(server.put(&format!("{key}?cas={index}"), "2")?.is_true());
            ensure!(server.put(&format!("{key}?cas={index}"), "3")?.is_false());
            let check = json!([{"KV": {"Verb": "check-index", "Key": format!("t/{number}/a"), "Index": 1}}]);
            let refused = server.put("/v1/txn", check.to_string())?;
            ensure!(refused.status == 409, "{} {}", refused.status, refused.text());
            ensure!(server.delete(&format!("/v1/kv/t/{number}?recurse"))?.is_true());
            ensure!(server.get(&key)?.status == 404);
        }
        cluster.same(&[0, 1, 2]).map(|_| ())
    })
}

#[test]
fn writes_explain_themselves_at_every_server() -> Result<()> {
    trial(3, |cluster| {
        let holder = cluster.server(0).session(r#"{"LockDelay":"30s"}"#)?;
        let other = cluster.server(0).session("{}")?;
        let taken = cluster.server(0).put(&format!("/v1/kv/l?acquire={holder}"), "")?;
        ensure!(taken.is_true());
        let refused = |n: usize, reason: &str| {
            let answer = cluster
                .server(n)
                .put(&format!("/v1/kv/l?acquire={other}&explain"), "")?;
            let shown = answer.header("X-Lictor-Refused").unwrap_or_default();
            ensure!(answer.is_false() && shown.starts_with(reason), "{n}: {shown:?}");
            Ok(())
        };
        for n in 0..3 {
            let server = cluster.server(n);
            let told = server.put("/v1/kv/k?explain", n.to_string())?;
            let index = server.get("/v1/kv/k")?.index()?.to_string();
            ensure!(
                told.header("X-Lictor-Modify-Index") == Some(index.as_str()),
                "{n}: {told:?}"
            );
            refused(n, &format!("held; session={holder}"))?;
        }
        let ended = cluster
            .server(1)
            .put(&format!("/v1/session/destroy/{holder}"), "")?;
        ensure!(ended.is_true());
        for n in 0..3 {
            refused(n, "lock-delay; remaining=")?;
        }
        Ok(())
    })
}

#[test]
fn a_key_with_a_ttl_goes_by_itself_whichever_server_took_it() -> Result<()> {
    trial(3, |cluster| {
        for n in 0..3 {
            let server = cluster.server(n);
            ensure!(server.put(&format!("/v1/kv/brief/{n}?ttl=1s"), "1")?.is_true());
        }
        for n in 0..3 {
            let server = cluster.server((n + 1) % 3);
            let found = server.get(&format!("/v1/kv/brief/{n}"))?;
            let target = format!("/v1/kv/brief/{n}?index={}&wait=60s", found.index()?);
            ensure!(found.status == 404 || server.get(&target)?.status == 404);
        }
        Ok(())
    })
}

#[test]
fn a_lock_taken_at_one_server_is_taken_at_all() -> Result<()> {
    trial(3, |cluster| {
        let sessions = (0..3)
            .map(|n| cluster.server(n).session(r#"{"LockDelay":"0s","TTL":"60s"}"#))
            .collect::<Result<Vec<_>>>()?;
        for holder in 0..3 {
            let acquire = |n: usize| {
                cluster
                    .server(n)
                    .put(&format!("/v1/kv/lock?acquire={}", sessions[n]), "")
            };
            ensure!(acquire(holder)?.is_true());
            for other in cluster.others(holder) {
                ensure!(acquire(other)?.is_false(), "the lock was taken twice");
                let renewed = cluster
                    .server(other)
                    .put(&format!("/v1/session/renew/{}", sessions[holder]), "")?;
                ensure!(renewed.status == 200, "{} {}", renewed.status, renewed.text());
            }
            // Anybody may let go for the holder.
            let other = (holder + 1) % 3;
            let release = format!("/v1/kv/lock?release={}", sessions[holder]);
            ensure!(cluster.server(other).put(&release, "")?.is_true());
        }
        Ok(())
    })
}

#[test]
fn queries_that_wait_at_any_server_are_woken_by_writes_at_any_other() -> Result<()> {
    trial(3, |cluster| {
        ensure!(cluster.server(0).put("/v1/kv/w/k", "0")?.is_true());
        for writer in 0..3 {
            let mut watches = Vec::new();
            for reader in 0..3 {
                for query in ["w/k?", "w/?recurse&", "w/k?stale&", "w/k?consistent&"] {
                    // Its own view may be behind a write through another server, so the index comes from a default read.
                    let index = cluster.server(reader).get("/v1/kv/w/k")?.index()?;
                    let server = cluster.server(reader);
                    watches.push((
                        reader,
                        query,
                        server.watch(format!("/v1/kv/{query}index={index}&wait=60s")),
                    ));
                }
                cluster.server(reader).await_open_connections(4)?;
            }

            let value = format!("by {writer}");
            ensure!(cluster.server(writer).put("/v1/kv/w/k", &value)?.is_true());

            for (reader, query, watch) in watches {
                let seen = watch.join().map_err(|_| anyhow!("panicked"))??;
                ensure!(
                    seen.status == 200 && seen.text().contains(&STANDARD.encode(&value)),
                    "{query} at {reader}: {} {}",
                    seen.status,
                    seen.text()
                );
            }
        }
        Ok(())
    })
}

#[test]
fn every_server_refuses_in_the_same_words() -> Result<()> {
    trial(3, |cluster| {
        let unknown = "11111111-2222-3333-4444-555555555555";
        let big = "x".repeat(600_000);
        let requests: Vec<(&str, String, &str)> = vec![
            ("PUT", format!("/v1/kv/k?acquire={unknown}"), "v"),
            ("PUT", format!("/v1/kv/k?release={unknown}"), "v"),
            ("PUT", format!("/v1/session/renew/{unknown}"), ""),
            ("PUT", format!("/v1/session/destroy/{unknown}"), ""),
            ("PUT", "/v1/session/renew/nonsense".to_owned(), ""),
            ("PUT", "/v1/session/create".to_owned(), r#"{"TTL":"1s"}"#),
            (
                "PUT",
                "/v1/session/create".to_owned(),
                r#"{"Behavior":"nonsense"}"#,
            ),
            ("PUT", "/v1/session/create".to_owned(), r#"{"Node":"nobody"}"#),
            (
                "PUT",
                "/v1/session/create".to_owned(),
                r#"{"NodeChecks":["none"]}"#,
            ),
            ("PUT", "/v1/kv/k?cas=x".to_owned(), "v"),
            ("PUT", "/v1/kv/".to_owned(), "v"),
            ("PUT", "/v1/kv/k".to_owned(), &big),
            (
                "PUT",
                "/v1/txn".to_owned(),
                r#"[{"KV":{"Verb":"nonsense","Key":"k"}}]"#,
            ),
            (
                "PUT",
                "/v1/txn".to_owned(),
                r#"[{"KV":{"Verb":"get","Key":"missing"}},{"KV":{"Verb":"check-index","Key":"k","Index":9}}]"#,
            ),
            (
                "PUT",
                "/v1/catalog/register".to_owned(),
                r#"{"Node":"n","Address":""}"#,
            ),
            ("PUT", "/v1/catalog/deregister".to_owned(), "{}"),
            ("GET", "/v1/kv/missing".to_owned(), ""),
            ("GET", "/v1/kv/k?stale&consistent".to_owned(), ""),
        ];
        for (method, target, body) in requests {
            let answers = (0..3)
                .map(|n| {
                    cluster
                        .server(n)
                        .client()
                        .call(method, &target, &[], body.as_bytes())
                        .map(|answer| (answer.status, answer.text()))
                })
                .collect::<Result<Vec<_>>>()?;
            ensure!(
                answers.iter().all(|answer| *answer == answers[0]),
                "{method} {target} {}: {answers:?}",
                &body[..body.len().min(100)]
            );
        }
        Ok(())
    })
}

#[test]
fn without_a_quorum_writes_wait_and_fail_while_stale_reads_go_on() -> Result<()> {
    trial(3, |cluster| {
        ensure!(cluster.server(0).put("/v1/kv/k", "v")?.is_true());
        cluster.same(&[0, 1, 2])?;
        let healthy = cluster.server(0).get("/v1/kv/k?stale")?;
        ensure!(healthy.header("X-Consul-Knownleader") == Some("true"));
        let leader = cluster.leader(&[0, 1, 2])?;
        let left = cluster.others(leader)[0];
        for number in cluster.others(left) {
            cluster.server_mut(number).kill()?;
        }

        // Each of these waits for a leader for its time before it is refused.
        let server = cluster.server(left);
        let (write, read) = std::thread::scope(|scope| {
            let write = scope.spawn(|| server.put("/v1/kv/k", "w"));
            let read = scope.spawn(|| server.get("/v1/kv/k?consistent"));
            (write.join(), read.join())
        });
        for answer in [write, read] {
            let answer = answer.map_err(|_| anyhow!("panicked"))??;
            ensure!(answer.status == 500, "{} {}", answer.status, answer.text());
        }
        let stale = server.get("/v1/kv/k?stale")?;

        ensure!(stale.value()? == b"v");
        ensure!(
            stale.header("X-Consul-Knownleader") == Some("false"),
            "{:?}",
            stale.headers
        );
        let silence: u64 = stale.header("X-Consul-Lastcontact").unwrap_or("0").parse()?;
        ensure!(
            Duration::from_millis(silence) > Duration::ZERO,
            "{:?}",
            stale.headers
        );
        let again = server.put("/v1/kv/k", "w")?;
        ensure!(again.text() == "No cluster leader", "{}", again.text());
        Ok(())
    })
}

/// The headers tell of the read, and some bodies do too.
#[test]
fn a_server_without_a_leader_says_so_in_the_body_as_in_the_headers() -> Result<()> {
    trial(2, |cluster| {
        let told = |known: &str| {
            until("the body to follow the headers", LONG, || {
                let answer = cluster_usage(cluster.server(0))?;
                ensure!(answer == (known.to_owned(), known.to_owned()), "{answer:?}");
                Ok(Some(()))
            })
        };
        told("true")?;

        cluster.server(1).pause()?;

        let lost = told("false");
        cluster.server(1).signal(rustix::process::Signal::CONT)?;
        lost
    })
}

/// Whether a leader is known, as header and body of one answer have it.
fn cluster_usage(server: &lictor_tests::Server) -> Result<(String, String)> {
    let answer = server.get("/v1/operator/usage?stale")?;
    let header = answer
        .header("X-Consul-Knownleader")
        .unwrap_or_default()
        .to_owned();
    Ok((header, answer.json()?["KnownLeader"].to_string()))
}
