//! Several real servers: how they become one, answer as one, and go on when some of them die.
//!
//! Every test starts servers of its own and can be repeated at will. One that fails prints the servers' last words and
//! says where it left their logs and data.

mod agents;
mod catch_up;
mod certificates;
mod datacenters;
mod failover;
mod fair_locks;
mod faults;
mod forming;
mod keyring;
mod lines;
mod members;
mod metrics;
mod partitions;
mod peer_port;
mod readme;
mod serving;
mod sessions;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Cluster, Told};

/// For what takes as long as it takes on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// New servers vote soon.
const QUICK: &str = "autopilot { server_stabilization_time = \"1s\" }";

/// Says why a test has nothing to prove here. A test that skips passes, but not in silence.
fn skip(why: &str) -> Result<()> {
    writeln!(std::io::stderr(), "skipped: {why}")?;
    Ok(())
}

/// Runs a test on servers that have formed a cluster.
fn trial(count: usize, test: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    Cluster::plan(count, count)?.with_hcl(QUICK).trial(|cluster| {
        cluster.start()?;
        test(cluster)
    })
}

/// Says how a load went, and checks it against what these servers hold.
fn settle(cluster: &Cluster, among: &[usize], told: &[Told]) -> Result<()> {
    let stored = cluster.same(among)?;
    for worker in told {
        worker.check(&stored)?;
        writeln!(
            std::io::stderr(),
            "{}: {} keys, register {}, {} unclear ({}), longest pause {:?}",
            worker.register,
            worker.once.len(),
            worker.acknowledged,
            worker.unclear,
            worker.last_unclear,
            worker.longest_pause
        )?;
    }
    Ok(())
}

/// The term, as a server knows it.
fn term(cluster: &Cluster, number: usize) -> Result<u64> {
    let about = cluster.server(number).get("/v1/agent/self")?.json()?;
    let term = about["Stats"]["raft"]["term"].as_str().context("no term")?;
    Ok(term.parse()?)
}

/// Checks that every write of a load got a clear answer.
fn none_unclear(told: &[Told], when: &str) -> Result<()> {
    let unclear: u64 = told.iter().map(|worker| worker.unclear).sum();
    let last = told.iter().map(|worker| worker.last_unclear.as_str());
    let last: Vec<_> = last.filter(|words| !words.is_empty()).collect();
    ensure!(unclear == 0, "{unclear} writes failed {when}: {last:?}");
    Ok(())
}

/// Runs what must not move the leadership; it answers whether the term is the same afterwards. Once more if not: a leader
/// that gets no processor or disk for a while is replaced whatever is done to others.
fn under_one_leader(mut attempt: impl FnMut(&str) -> Result<bool>) -> Result<()> {
    if !attempt("first")? {
        writeln!(std::io::stderr(), "tried again: another was elected")?;
        ensure!(attempt("second")?, "another was elected, twice");
    }
    Ok(())
}
