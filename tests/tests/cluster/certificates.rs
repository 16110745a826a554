//! Servers that know each other by certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lictor_tests::{Cluster, binary, join_address, until};
use tempfile::TempDir;

use crate::forming::{await_line, await_peers};
use crate::{QUICK, skip};

/// An authority in a folder of its own.
struct Authority(TempDir);

impl Authority {
    fn new() -> Result<Self> {
        let authority = Self(tempfile::tempdir()?);
        authority.tls(&["ca", "create"])?;
        Ok(authority)
    }

    fn tls(&self, words: &[&str]) -> Result<()> {
        let output = Command::new(binary()?)
            .arg("tls")
            .args(words)
            .current_dir(self.0.path())
            .output()?;
        ensure!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// The configuration with one more certificate of a server, which is the one of this number.
    fn issue(&self, number: usize) -> Result<String> {
        self.issue_for("server", number)
    }

    /// The same for another role.
    fn issue_for(&self, role: &str, number: usize) -> Result<String> {
        self.tls(&["cert", "create", &format!("-{role}")])?;
        let file = |name: String| -> Result<PathBuf> {
            let path = self.0.path().join(name);
            ensure!(path.exists(), "{} is missing", path.display());
            Ok(path)
        };
        Ok(hcl(
            &file("lictor-agent-ca.pem".to_owned())?,
            &file(format!("dc1-{role}-lictor-{number}.pem"))?,
            &file(format!("dc1-{role}-lictor-{number}-key.pem"))?,
        ))
    }
}

fn hcl(ca: &Path, certificate: &Path, key: &Path) -> String {
    let files = [("ca_file", ca), ("cert_file", certificate), ("key_file", key)];
    let files = files.map(|(name, file)| format!("{name} = \"{}\"\n", file.display()));
    format!(
        "tls {{ internal_rpc {{\n{}verify_incoming = true\nverify_outgoing = true\nverify_server_hostname = true\n}} }}\n{QUICK}",
        files.concat()
    )
}

/// Each of three servers has a certificate of its own. Who has one of another authority, or none, stays outside.
#[test]
fn servers_with_certificates_of_one_authority_form_a_cluster_and_refuse_all_others() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    let (authority, other) = (Authority::new()?, Authority::new()?);
    Cluster::plan(4, 3)?.trial(|cluster| {
        for number in 0..3 {
            cluster.set_hcl(&authority.issue(number)?);
            cluster.launch(number)?;
        }
        cluster.await_ready()?;
        let leader = cluster.leader(&[0, 1, 2])?;
        for number in 0..3 {
            let key = format!("/v1/kv/{number}");
            ensure!(cluster.server(number).put(&key, "v")?.is_true());
        }
        ensure!(cluster.same(&[0, 1, 2])?.len() == 3);
        let log = cluster.server(leader).log();
        ensure!(!log.contains("the port for other servers is open"), "{log}");

        let contact = join_address(cluster.server(0).seat());
        for (config, seen) in [(other.issue(0)?, "certificate"), (String::new(), "certificates")] {
            let stranger = Cluster::of(vec![cluster.seat_mut(3).clone()]).with_hcl(&config);
            stranger.trial(|stranger| {
                stranger.seat_mut(0).join = vec![contact.clone()];
                stranger.launch(0)?;
                await_line(stranger.server(0), &["WARN", "no cluster yet", "certificate"])?;
                Ok(())
            })?;
            await_line(
                cluster.server(0),
                &["WARN", "refused a connection of another server", seen],
            )?;
            await_peers(cluster.server(0), 3)?;
        }

        // A leader that dies is replaced, and comes back, all of it inside TLS.
        cluster.server_mut(leader).kill()?;
        let next = cluster.leader(&cluster.others(leader))?;
        ensure!(cluster.server(next).put("/v1/kv/after", "v")?.is_true());
        cluster.server_mut(leader).relaunch()?;
        cluster.await_ready()?;
        cluster.same(&[0, 1, 2]).map(|_| ())
    })
}

#[test]
fn a_certificate_that_other_servers_would_refuse_is_refused_at_the_start() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("a Consul does not look at its own name");
    }
    let authority = Authority::new()?;
    let config = authority.issue(0)?;
    Cluster::plan(1, 1)?
        .with_hcl(&format!("{config}\ndatacenter = \"dc2\""))
        .trial(|cluster| {
            cluster.launch(0)?;

            let status = cluster.server_mut(0).await_exit()?;

            ensure!(status.code() == Some(1), "{status}");
            let log = cluster.server(0).log();
            let last = log.lines().last().context("no words")?;
            ensure!(last.contains("certificates between servers"), "{log}");
            Ok(())
        })
}

/// An agent has a certificate of its own kind, which opens nothing but what agents do.
#[test]
fn a_client_agent_shows_a_certificate_of_its_own_kind() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    let (authority, other) = (Authority::new()?, Authority::new()?);
    Cluster::plan(4, 3)?.trial(|cluster| {
        for number in 0..3 {
            cluster.set_hcl(&authority.issue(number)?);
            cluster.launch(number)?;
        }
        cluster.await_ready()?;
        let client = authority.issue_for("client", 0)?;
        cluster.set_hcl(&client);
        let agent = cluster.client_agent("web-1")?;

        ensure!(agent.put("/v1/kv/a", "one")?.is_true());
        let service = r#"{"Name":"web","Check":{"TTL":"60s","Status":"passing"}}"#;
        ensure!(agent.put("/v1/agent/service/register", service)?.status == 200);
        until("the service to be known", crate::LONG, || {
            let found = cluster.server(0).get("/v1/health/service/web?passing")?.json()?;
            Ok((found[0]["Node"]["Node"] == "web-1").then_some(()))
        })?;
        for number in 0..3 {
            cluster.server_mut(number).kill()?;
            until("the agent to write", crate::LONG, || {
                Ok(agent.put("/v1/kv/a", "two")?.is_true().then_some(()))
            })?;
            cluster.server_mut(number).relaunch()?;
            cluster.await_ready()?;
        }

        // As a server with it one does not even start.
        cluster.launch(3)?;
        ensure!(cluster.server_mut(3).await_exit()?.code() == Some(1));
        let log = cluster.server(3).log();
        ensure!(log.contains("it is one of a client agent"), "{log}");
        let contact = join_address(cluster.server(0).seat());
        let stranger = Cluster::of(vec![cluster.seat_mut(3).clone()]);
        let stranger = stranger.with_hcl(&other.issue_for("client", 0)?);
        stranger.trial(|stranger| {
            stranger.seat_mut(0).join = vec![contact];
            stranger.launch_with(0, |options| options.client = true)?;
            await_line(
                stranger.server(0),
                &["WARN", "no server was found", "certificate"],
            )
            .map(|_| ())
        })
    })
}
