//! Servers that come, go, and come back as others.

use std::process::Command;

use anyhow::{Result, ensure};
use lictor_tests::{Cluster, Load, binary, until, wipe};

use crate::{LONG, QUICK, settle, skip, trial};

fn await_count(cluster: &Cluster, at: usize, count: usize) -> Result<()> {
    until("the members", LONG, || {
        let peers = cluster.server(at).get("/v1/status/peers")?.json()?;
        ensure!(peers.as_array().map(Vec::len) == Some(count), "{peers}");
        Ok(Some(()))
    })
}

/// Its silent predecessor makes room; until then, or for a moment after, the old one is taken for alive.
#[test]
fn a_wiped_server_comes_back_under_its_name() -> Result<()> {
    trial(3, |cluster| {
        for round in 0..2 {
            let leader = cluster.leader(&[0, 1, 2])?;
            let wiped = cluster.others(leader)[0];
            let load = Load::start(&format!("round/{round}"), &cluster.http(&cluster.others(wiped)));
            load.await_more(100)?;

            cluster.server_mut(wiped).kill()?;
            wipe(cluster.server(wiped))?;
            cluster.server_mut(wiped).relaunch()?;
            cluster.await_ready()?;
            load.await_more(100)?;

            settle(cluster, &[0, 1, 2], &load.stop()?)?;
            await_count(cluster, leader, 3)?;
            until("it to vote", LONG, || {
                let caught_up = (0..3).any(|n| {
                    let log = cluster.server(n).log();
                    log.matches("it is caught up").count() > round
                });
                Ok(caught_up.then_some(()))
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_server_that_leaves_is_none_any_more() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("this test is about Lictor's servers");
    }
    Cluster::plan(4, 4)?.with_hcl(QUICK).trial(|cluster| {
        cluster.start()?;
        let leader = cluster.leader(&[0, 1, 2, 3])?;
        let leaving = cluster.others(leader)[0];
        let http = cluster.server(leaving).http();
        let output = Command::new(binary()?)
            .args(["leave", &format!("-http-addr={http}")])
            .output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{words}");

        cluster.server_mut(leaving).await_exit()?;
        await_count(cluster, leader, 3)?;
        let health = cluster
            .server(leader)
            .get(&format!("/v1/catalog/node/server-{leaving}"))?;
        ensure!(health.text().trim() == "null", "{}", health.text());
        ensure!(cluster.server(leader).put("/v1/kv/k", "v")?.is_true());
        Ok(())
    })
}

#[test]
fn a_dead_server_is_removed_by_force() -> Result<()> {
    trial(4, |cluster| {
        let leader = cluster.leader(&[0, 1, 2, 3])?;
        let [dead, by] = [cluster.others(leader)[0], cluster.others(leader)[1]];
        cluster.server_mut(dead).kill()?;
        let answer = cluster
            .server(by)
            .put(&format!("/v1/agent/force-leave/server-{dead}?prune"), "")?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());

        await_count(cluster, leader, 3)?;
        ensure!(cluster.server(by).put("/v1/kv/k", "v")?.is_true());
        Ok(())
    })
}

/// Four servers, of which one dies for good, go on as three without being told.
#[test]
fn autopilot_removes_a_dead_server_that_is_not_needed() -> Result<()> {
    trial(4, |cluster| {
        let leader = cluster.leader(&[0, 1, 2, 3])?;
        let dead = cluster.others(leader)[0];
        cluster.server_mut(dead).kill()?;

        await_count(cluster, leader, 3)?;

        // A third of the three may die as well.
        let next = cluster
            .others(dead)
            .into_iter()
            .find(|&n| n != leader)
            .unwrap_or(leader);
        cluster.server_mut(next).kill()?;
        ensure!(cluster.server(leader).put("/v1/kv/k", "v")?.is_true());
        Ok(())
    })
}
