//! Servers of two datacenters that know of each other.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Cluster, Server, until};
use serde_json::Value;

use crate::{LONG, QUICK, skip};

/// The members of all datacenters, by name, with their status.
fn members(server: &Server, query: &str) -> Result<Vec<(String, u64)>> {
    let members = server.get(&format!("/v1/agent/members?wan=1{query}"))?.json()?;
    let members = members.as_array().context("no list of members")?;
    let member = |member: &Value| {
        let name = member["Name"].as_str().context("no name")?;
        Ok((name.to_owned(), member["Status"].as_u64().context("no status")?))
    };
    let mut members: Vec<_> = members.iter().map(member).collect::<Result<_>>()?;
    members.sort();
    Ok(members)
}

fn await_members(server: &Server, expected: &[(&str, u64)]) -> Result<()> {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, status)| ((*name).to_owned(), *status))
        .collect();
    until("the members of all datacenters", LONG, || {
        let found = members(server, "")?;
        ensure!(found == expected, "{found:?}");
        Ok(Some(()))
    })
}

#[test]
fn servers_of_another_datacenter_are_members_and_nothing_more() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    let mut other = Cluster::plan(1, 1)?.with_hcl("datacenter = \"dc2\"");
    other.seat_mut(0).name = "far".to_owned();
    Cluster::plan(2, 2)?.with_hcl(QUICK).trial(|cluster| {
        cluster.start()?;
        let agent = cluster.client_agent("web-1")?;
        other.trial(|other| {
            other.start()?;
            let near = cluster.server(0);
            let join = |server: &Server, to: &Server| {
                let seat = to.seat();
                server.put(
                    &format!("/v1/agent/join/{}:{}?wan=1", seat.address, seat.server),
                    "",
                )
            };
            await_members(near, &[("server-0.dc1", 1), ("server-1.dc1", 1)])?;

            let joined = join(other.server(0), near)?;

            ensure!(joined.status == 200, "{} {}", joined.status, joined.text());
            let all = [("far.dc2", 1), ("server-0.dc1", 1), ("server-1.dc1", 1)];
            await_members(near, &all)?;
            await_members(other.server(0), &all)?;
            // Nobody told these but the server that was joined.
            await_members(cluster.server(1), &all)?;
            await_members(&agent, &all)?;
            let far = members(near, "&filter=Tags.dc+==+dc2")?;
            ensure!(far == [("far.dc2".to_owned(), 1)], "{far:?}");
            let lan = near.get("/v1/agent/members")?.json()?;
            ensure!(lan.as_array().map(Vec::len) == Some(3), "{lan}");
            ensure!(near.get("/v1/catalog/datacenters")?.text() == "[\"dc1\"]");
            ensure!(near.get("/v1/kv/k?dc=dc2")?.status == 500);

            // Its name is all that a server of the own datacenter shares with one of another.
            let again = join(cluster.server(1), near)?;
            ensure!(again.status == 200, "{} {}", again.status, again.text());
            let nobody = near.put("/v1/agent/join/127.0.0.1:1?wan=1", "")?;
            ensure!(
                nobody.status == 500 && nobody.text().contains("Failed to join 127.0.0.1:1: "),
                "{} {}",
                nobody.status,
                nobody.text()
            );

            other.server_mut(0).kill()?;
            await_members(near, &[("far.dc2", 4), ("server-0.dc1", 1), ("server-1.dc1", 1)])?;
            // It has forgotten everybody, and is told.
            other.server_mut(0).relaunch()?;
            await_members(near, &all)?;
            await_members(other.server(0), &all)
        })
    })
}
