//! Nodes that join, stop, die, are removed and come back.

use anyhow::{Context, Result, ensure};
use lictor_tests::{is_consul, until};
use rustix::process::Signal;

use super::nodes::{LONG, Nodes};
use crate::skip;

#[test]
fn followers_send_clients_to_the_leader_with_what_they_asked() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let nodes = Nodes::cluster(3)?;
    nodes.post(1, "raft", "paxos")?;
    let leader = nodes.haddr(1);
    let body = r#"{"key":"via","value":"follower"}"#;
    let join = format!("/join?id=node3&addr={}", nodes.raddr(3));
    for follower in [2, 3] {
        for (method, target, body) in [
            ("GET", "/key?key=raft&level=default", ""),
            ("GET", "/key/?level=consistent&key=ra%66t&x", ""),
            ("GET", "/key?key=nothing", ""),
            ("POST", "/key", body),
            ("DELETE", "/key/?key=raft", ""),
            ("GET", &join, ""),
            ("GET", "/remove?id=nobody", ""),
        ] {
            let answer = nodes.ask(follower, method, target, body)?;
            assert_eq!(answer.status, 307, "{method} {target}");
            assert_eq!(
                answer.header("Location"),
                Some(format!("http://{leader}{target}").as_str()),
                "{method}"
            );
            assert!(answer.body.is_empty(), "{method} {target}");
        }
    }
    assert_eq!(
        nodes.get(1, "via", "consistent")?.status,
        404,
        "a redirect stores nothing"
    );

    assert_eq!(nodes.follow(3, "POST", "/key", body)?.status, 200);
    assert_eq!(
        nodes
            .follow(2, "GET", "/key?key=via&level=consistent", "")?
            .text(),
        "follower"
    );
    assert_eq!(
        nodes.follow(2, "GET", &join, "")?.status,
        200,
        "it is a member already"
    );
    nodes.await_value(&[1, 2, 3], "via", "follower")?;
    assert_eq!(nodes.follow(3, "DELETE", "/key/?key=via", "")?.status, 200);
    assert_eq!(nodes.get(1, "via", "consistent")?.status, 404);
    Ok(())
}

#[test]
fn all_nodes_stop_and_start_without_flags() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let mut nodes = Nodes::cluster(3)?;
    nodes.post(1, "raft", "paxos")?;
    nodes.stop(2)?;
    assert_eq!(nodes.post(1, "while-down", "1")?.status, 200);
    nodes.start(2, &[])?;
    nodes.await_value(&[2], "while-down", "1")?;

    for number in [1, 2, 3] {
        nodes.stop(number)?;
    }
    // A node that founded a cluster, or joined one, does neither again.
    let member = nodes.haddr(2);
    nodes.start(1, &["-bootstrap", "-join", &member])?;
    nodes.start(2, &["-join", &member])?;
    nodes.start(3, &[])?;

    let leader = nodes.leader(&[1, 2, 3])?;
    assert_eq!(nodes.get(leader, "raft", "consistent")?.text(), "paxos");
    assert_eq!(nodes.members(leader)?, ["node1", "node2", "node3"]);
    Ok(())
}

#[test]
fn a_node_without_flags_waits_until_it_is_joined() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /join");
    }
    let mut nodes = Nodes::cluster(2)?;
    nodes.add()?;
    nodes.post(1, "raft", "paxos")?;
    nodes.start(3, &[])?;
    assert_eq!(nodes.get(3, "raft", "stale")?.status, 404);
    let refused = nodes.post(3, "raft", "x")?;
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("1")));

    let misnamed = nodes.follow(2, "GET", &format!("/join?id=x&addr={}", nodes.raddr(3)), "")?;
    assert_eq!(misnamed.status, 500);
    assert_eq!(nodes.members(1)?, ["node1", "node2"]);
    let target = format!("/join?id=node3&addr={}", nodes.raddr(3));
    let joined = nodes.follow(2, "POST", &target, "")?;
    assert_eq!((joined.status, joined.body.len()), (200, 0));

    nodes.await_value(&[3], "raft", "paxos")?;
    let answer = nodes.get(3, "raft", "default")?;
    assert_eq!(
        answer.header("Location"),
        Some(format!("http://{}/key?key=raft&level=default", nodes.haddr(1)).as_str())
    );
    nodes.await_vote(3)
}

#[test]
fn what_cannot_be_joined_leaves_a_cluster_of_one_at_work() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /join");
    }
    let mut nodes = Nodes::cluster(1)?;
    nodes.add()?;
    let dead = format!("/join?id=node2&addr={}", nodes.raddr(2));
    assert_eq!(nodes.ask(1, "GET", &dead, "")?.status, 500);
    let taken = format!("/join?id=node2&addr={}", nodes.raddr(1));
    assert_eq!(nodes.ask(1, "GET", &taken, "")?.status, 500);
    let itself = format!("/join?id=node1&addr={}", nodes.raddr(1));
    assert_eq!(nodes.ask(1, "GET", &itself, "")?.status, 200);

    assert_eq!(nodes.post(1, "still", "here")?.status, 200);
    assert_eq!(nodes.get(1, "still", "consistent")?.text(), "here");
    assert_eq!(nodes.members(1)?, ["node1"]);
    Ok(())
}

#[test]
fn a_removed_node_keeps_quiet_and_comes_back() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /remove");
    }
    let mut nodes = Nodes::cluster(3)?;
    nodes.post(1, "raft", "paxos")?;
    nodes.await_value(&[3], "raft", "paxos")?;
    assert_eq!(nodes.follow(2, "GET", "/remove?id=node3", "")?.status, 200);
    assert_eq!(nodes.members(1)?, ["node1", "node2"]);
    nodes.post(1, "raft", "multi-paxos")?;

    assert_eq!(nodes.get(3, "raft", "stale")?.text(), "paxos");
    until("it to know", LONG, || {
        Ok((nodes.get(3, "raft", "default")?.status == 503).then_some(()))
    })?;
    for (method, target) in [
        ("GET", "/key?key=raft&level=consistent"),
        ("DELETE", "/key?key=raft"),
    ] {
        assert_eq!(nodes.ask(3, method, target, "")?.status, 503, "{method} {target}");
    }
    assert_eq!(nodes.leader(&[1])?, 1, "nobody was disturbed");
    assert_eq!(
        nodes.ask(1, "GET", "/remove?id=node3", "")?.status,
        200,
        "once more"
    );

    let join = format!("/join?id=node3&addr={}", nodes.raddr(3));
    assert_eq!(nodes.ask(1, "GET", &join, "")?.status, 200);
    nodes.await_value(&[3], "raft", "multi-paxos")?;

    // The same by its own flag, after a stop, through a follower.
    assert_eq!(nodes.ask(1, "GET", "/remove?id=node3", "")?.status, 200);
    nodes.stop(3)?;
    nodes.post(1, "raft", "zab")?;
    let member = nodes.haddr(2);
    nodes.start(3, &["-join", &member])?;
    nodes.await_value(&[3], "raft", "zab")?;
    nodes.await_vote(3)
}

#[test]
fn a_node_comes_back_to_a_leader_that_it_never_met() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /remove");
    }
    let mut nodes = Nodes::cluster(3)?;
    assert_eq!(nodes.ask(1, "GET", "/remove?id=node3", "")?.status, 200);
    nodes.add()?;
    let member = nodes.haddr(1);
    nodes.start(4, &["-join", &member])?;
    nodes.await_vote(4)?;
    until("node4 to lead", LONG, || {
        let leader = nodes.leader(&[1, 2, 4])?;
        if leader != 4 {
            nodes.hand_over(leader, 4)?;
        }
        Ok((leader == 4).then_some(()))
    })?;

    let join = format!("/join?id=node3&addr={}", nodes.raddr(3));
    assert_eq!(nodes.follow(2, "GET", &join, "")?.status, 200);
    assert_eq!(nodes.post(4, "raft", "paxos")?.status, 200);
    nodes.await_value(&[3], "raft", "paxos")
}

#[test]
fn a_node_that_lost_its_data_takes_its_old_place() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /join");
    }
    let mut nodes = Nodes::cluster(3)?;
    nodes.post(1, "raft", "paxos")?;
    nodes.kill(3)?;
    nodes.wipe(3)?;

    let member = nodes.haddr(1);
    nodes.start(3, &["-join", &member])?;

    nodes.await_vote(3)?;
    nodes.await_value(&[3], "raft", "paxos")?;
    assert_eq!(nodes.members(1)?, ["node1", "node2", "node3"]);
    Ok(())
}

#[test]
fn when_the_leader_dies_another_takes_over_and_nothing_is_lost() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let mut nodes = Nodes::cluster(3)?;
    for number in 0..20 {
        assert_eq!(nodes.post(1, &format!("k{number}"), "v")?.status, 200);
    }
    nodes.kill(1)?;

    let leader = nodes.leader(&[2, 3])?;
    for number in 0..20 {
        let answer = nodes.get(leader, &format!("k{number}"), "consistent")?;
        assert_eq!(answer.text(), "v", "k{number}");
    }
    assert_eq!(
        nodes
            .follow(5 - leader, "POST", "/key", r#"{"key":"after","value":"1"}"#)?
            .status,
        200
    );
    nodes.start(1, &[])?;
    nodes.await_value(&[1], "after", "1")
}

#[test]
fn a_leader_that_is_removed_hands_over_until_one_node_is_left() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /remove");
    }
    let nodes = Nodes::cluster(3)?;
    nodes.post(1, "raft", "paxos")?;
    assert_eq!(nodes.ask(1, "GET", "/remove?id=node1", "")?.status, 200);

    let leader = nodes.leader(&[2, 3])?;
    let other = 5 - leader;
    assert_eq!(nodes.post(leader, "raft", "zab")?.status, 200);
    assert_eq!(nodes.get(1, "raft", "stale")?.text(), "paxos");
    let gone = format!("/remove?id={}", Nodes::name(other));
    assert_eq!(nodes.ask(leader, "GET", &gone, "")?.status, 200);
    assert_eq!(nodes.post(leader, "alone", "1")?.status, 200);
    let last = format!("/remove?id={}", Nodes::name(leader));
    assert_eq!(nodes.ask(leader, "GET", &last, "")?.status, 500);
    assert_eq!(nodes.get(leader, "alone", "consistent")?.text(), "1");
    Ok(())
}

#[test]
fn without_a_majority_nothing_is_answered_but_stale_reads() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let mut nodes = Nodes::cluster(2)?;
    nodes.post(1, "raft", "paxos")?;
    nodes.kill(2)?;

    let refused = nodes.post(1, "raft", "lost")?;
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("1")));
    for level in ["default", "consistent"] {
        assert_eq!(nodes.get(1, "raft", level)?.status, 503, "{level}");
    }
    assert_eq!(nodes.get(1, "raft", "stale")?.status, 200);
    nodes.start(2, &[])?;
    let leader = nodes.leader(&[1, 2])?;
    assert_eq!(nodes.post(leader, "raft", "zab")?.status, 200);
    Ok(())
}

/// Who stood still while others chose a new leader says nothing old, but where it is asked to.
#[test]
fn a_leader_that_was_paused_answers_with_nothing_old() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let nodes = Nodes::cluster(3)?;
    nodes.post(1, "raft", "old")?;
    nodes.signal(1, Signal::STOP)?;
    let leader = nodes.leader(&[2, 3])?;
    assert_eq!(nodes.post(leader, "raft", "new")?.status, 200);
    assert_eq!(nodes.get(5 - leader, "raft", "default")?.status, 307);
    nodes.signal(1, Signal::CONT)?;

    for level in ["default", "consistent"] {
        let answer = nodes.get(1, "raft", level)?;
        let is_fresh = match answer.status {
            200 => answer.text() == "new",
            307 | 503 => true,
            _ => false,
        };
        ensure!(is_fresh, "{level}: {} {}", answer.status, answer.text());
    }
    assert_eq!(
        nodes
            .follow(1, "GET", "/key?key=raft&level=consistent", "")?
            .text(),
        "new"
    );
    nodes.await_value(&[1], "raft", "new")
}

#[test]
fn clients_are_sent_to_where_the_leader_is_now() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let mut nodes = Nodes::cluster(3)?;
    nodes.stop(1)?;
    let leader = nodes.leader(&[2, 3])?;
    nodes.stop(leader)?;
    nodes.move_http(leader)?;
    nodes.start(leader, &[])?;
    nodes.start(1, &[])?;

    // Whoever leads now, the others know its place, also the new one.
    let wrote = until("a write", LONG, || {
        let wrote = nodes.follow(5 - leader, "POST", "/key", r#"{"key":"a","value":"1"}"#)?;
        Ok((wrote.status == 200).then_some(wrote))
    })?;
    assert!(wrote.body.is_empty());
    until("the move to be known", LONG, || {
        let to = nodes.leader(&[1, 2, 3])?;
        if to != leader {
            nodes.hand_over(to, leader)?;
            return Ok(None);
        }
        let answer = nodes.get(5 - leader, "a", "default")?;
        let location = answer.header("Location").context("no redirect")?;
        Ok(location
            .starts_with(&format!("http://{}/", nodes.haddr(leader)))
            .then_some(()))
    })
}

/// An address that is given goes before what the node says of itself.
#[test]
fn an_http_address_may_be_given_with_the_join() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /join");
    }
    let mut nodes = Nodes::cluster(1)?;
    nodes.add()?;
    nodes.start(2, &[])?;
    let target = format!("/join?id=node2&addr={}&http=front.example:80", nodes.raddr(2));
    assert_eq!(nodes.ask(1, "GET", &target, "")?.status, 200);
    assert_eq!(nodes.ask(1, "GET", "/remove?id=node1", "")?.status, 200);
    assert_eq!(nodes.leader(&[2])?, 2);
    let back = format!("/join?id=node1&addr={}", nodes.raddr(1));
    assert_eq!(nodes.ask(2, "GET", &back, "")?.status, 200);

    let location = until("a redirect", LONG, || {
        Ok(nodes
            .get(1, "a", "default")?
            .header("Location")
            .map(str::to_owned))
    })?;
    assert_eq!(location, "http://front.example:80/key?key=a&level=default");
    Ok(())
}
