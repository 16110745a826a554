//! What servers count of each other.

use anyhow::Result;
use lictor_tests::{Cluster, until};

use super::{LONG, QUICK, skip};

const SLOW: &str = "slow_operation_threshold = \"1us\"";

/// The values of all series of a metric on one server.
fn values(cluster: &Cluster, number: usize, metric: &str) -> Result<Vec<f64>> {
    let answer = cluster
        .server(number)
        .get("/v1/agent/metrics?format=prometheus")?;
    let text = answer.text();
    let lines = text.lines().filter(|line| {
        line.strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok());
    Ok(values.collect())
}

#[test]
fn a_leader_tells_of_its_followers_and_a_follower_of_its_leader() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    let hcl = format!("{QUICK}\n{SLOW}");
    Cluster::plan(3, 3)?.with_hcl(&hcl).trial(|cluster| {
        cluster.start()?;
        let leader = cluster.leader(&cluster.all())?;
        let follower = cluster.others(leader)[0];
        // Of many slow requests only some are told.
        until("a write to be told of", LONG, || {
            cluster.server(follower).put("/v1/kv/through-a-follower", "v")?;
            let log = cluster.server(follower).log();
            let mut lines = log.lines();
            let is_told = lines.any(|line| line.contains("through-a-follower") && line.contains("forward="));
            Ok(is_told.then_some(()))
        })?;

        until("both followers to have everything", LONG, || {
            let lags = values(cluster, leader, "lictor_raft_follower_lag_entries")?;
            let are_up = lags.len() == 2 && lags.iter().all(|lag| *lag < 0.5);
            Ok(are_up.then_some(()))
        })?;
        for (metric, of) in [
            ("lictor_raft_messages_sent_total", leader),
            ("lictor_raft_messages_received_total", follower),
            ("lictor_raft_commit_duration_seconds_count", leader),
            ("lictor_raft_leader_changes_total", follower),
            ("consul_raft_state_leader", leader),
        ] {
            let values = values(cluster, of, metric)?;
            assert!(
                !values.is_empty() && values.iter().all(|value| *value > 0.5),
                "{metric}: {values:?}"
            );
        }
        assert!(values(cluster, follower, "lictor_raft_follower_lag_entries")?.is_empty());
        assert_eq!(values(cluster, follower, "lictor_peer_queue_capacity")?.len(), 6);
        Ok(())
    })
}
