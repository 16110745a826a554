//! The cluster key is changed for another while everything runs.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_tests::{Cluster, Load, Response, Server, join_address, until};
use serde_json::{Value, json};

use crate::forming::{await_line, await_peers};
use crate::{LONG, QUICK, none_unclear, settle, skip};

const PATH: &str = "/v1/operator/keyring";

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

fn hcl(byte: u8) -> String {
    format!("encrypt = \"{}\"\n{QUICK}", key(byte))
}

fn order(server: &Server, method: &str, byte: u8) -> Result<Response> {
    let body = json!({ "Key": key(byte) }).to_string();
    server.client().call(method, PATH, &[], body.as_bytes())
}

fn done(answer: &Response) -> Result<()> {
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(())
}

/// The ring of the datacenter, as a server tells it.
fn ring(server: &Server) -> Result<Value> {
    let answer = server.get(PATH)?;
    done(&answer)?;
    let rings = answer.json()?;
    ensure!(
        rings[0]["WAN"] == true && rings[1]["WAN"] == false,
        "the rings are {rings}"
    );
    Ok(rings[1].clone())
}

/// Waits until all nodes, the client agent among them, have exactly these keys, and the first is the primary of all.
fn await_ring(server: &Server, nodes: u64, keys: &[u8]) -> Result<()> {
    let held: Value = keys.iter().map(|byte| (key(*byte), json!(nodes))).collect();
    let primary = json!({ key(keys[0]): nodes });
    until("all nodes to have the keys", LONG, || {
        let ring = ring(server)?;
        ensure!(
            ring["NumNodes"] == nodes && ring["Keys"] == held && ring["PrimaryKeys"] == primary,
            "{ring}"
        );
        Ok(Some(()))
    })
}

/// Servers and an agent write all the while; then a server comes back that missed nothing, and who has the old key
/// alone stays outside.
#[test]
fn the_cluster_key_is_changed_without_a_failed_write() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    Cluster::plan(5, 3)?.with_hcl(&hcl(1)).trial(|cluster| {
        for number in 0..3 {
            cluster.launch(number)?;
        }
        cluster.await_ready()?;
        let mut agent = cluster.client_agent("web-1")?;
        let mut asked = cluster.http(&[0, 1, 2]);
        asked.push(agent.http());
        let load = Load::start("load", &asked);
        load.await_more(50)?;
        await_ring(cluster.server(0), 4, &[1])?;

        done(&order(cluster.server(1), "POST", 2)?)?;
        await_ring(cluster.server(0), 4, &[1, 2])?;
        load.await_more(50)?;
        done(&order(&agent, "PUT", 2)?)?;
        await_ring(cluster.server(2), 4, &[2, 1])?;
        load.await_more(50)?;
        let refused = order(cluster.server(0), "DELETE", 2)?;
        ensure!(
            refused.status == 500 && refused.text().contains("Removing the primary key is not allowed"),
            "{} {}",
            refused.status,
            refused.text()
        );
        done(&order(cluster.server(2), "DELETE", 1)?)?;
        await_ring(cluster.server(1), 4, &[2])?;
        load.await_more(50)?;
        let told = load.stop()?;
        none_unclear(&told, "while the key was changed")?;
        settle(cluster, &[0, 1, 2], &told)?;

        // The data directory goes before the configuration, which has the old key.
        cluster.server_mut(0).kill()?;
        cluster.server_mut(0).relaunch()?;
        cluster.await_ready()?;
        agent.kill()?;
        agent.relaunch()?;
        agent.await_ready()?;
        await_ring(cluster.server(0), 4, &[2])?;

        let contact = join_address(cluster.server(0).seat());
        let stranger = Cluster::of(vec![cluster.seat_mut(3).clone()]).with_hcl(&hcl(1));
        stranger.trial(|stranger| {
            stranger.seat_mut(0).join = vec![contact];
            stranger.launch(0)?;
            await_line(stranger.server(0), &["WARN", "no cluster yet", "key"]).map(|_| ())
        })?;
        await_peers(cluster.server(0), 3)?;
        cluster.set_hcl(&hcl(2));
        cluster.launch(4)?;
        cluster.await_ready()?;
        await_peers(cluster.server(0), 4)?;
        await_ring(cluster.server(4), 5, &[2])
    })
}

#[test]
fn a_server_that_does_not_answer_is_told_of() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    Cluster::plan(2, 2)?.with_hcl(&hcl(1)).trial(|cluster| {
        cluster.start()?;
        let leader = cluster.leader(&[0, 1])?;
        let other = cluster.others(leader)[0];
        cluster.server(other).pause()?;

        let answer = order(cluster.server(leader), "POST", 2)?;

        ensure!(
            answer.status == 500 && answer.text().contains("1/2 nodes reported success"),
            "{} {}",
            answer.status,
            answer.text()
        );
        cluster.server(other).signal(rustix::process::Signal::CONT)?;
        until("it to answer again", LONG, || {
            done(&order(cluster.server(leader), "POST", 2)?).map(Some)
        })?;
        let file = cluster.server(other).data_dir().join("KEYRING");
        let kept = std::fs::read_to_string(file).context("the keys of the other server")?;
        ensure!(
            kept == format!("{}\n{}\n", "01".repeat(32), "02".repeat(32)),
            "{kept}"
        );
        Ok(())
    })
}
