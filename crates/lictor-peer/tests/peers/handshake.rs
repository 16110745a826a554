//! Who is let in.

use lictor_peer::certs::{self, Authority, Pair, Request, Use};
use lictor_peer::{CallError, NotSent, Role, Security, SecurityError};
use tokio::net::TcpListener;

use crate::server::{ECHO, Plan};

fn key(byte: u8) -> Security {
    Security::cluster_key(&[byte; 32]).unwrap()
}

fn authority() -> Pair {
    let wanted = Authority {
        common_name: "Test CA",
        days: 1,
        permitted_domains: &[],
    };
    certs::create_authority(&wanted).unwrap()
}

fn certificate(authority: &Pair, name: &str) -> Pair {
    let request = Request {
        purpose: Use::Server,
        names: &[name.to_owned()],
        addresses: &[],
        days: 1,
    };
    certs::issue(authority, &request).unwrap()
}

fn certified(authority: &Pair, datacenter: &str) -> Security {
    let own = certificate(authority, &format!("server.{datacenter}.lictor"));
    let (ca, own_certificate, own_key) = (
        authority.certificate.as_bytes(),
        own.certificate.as_bytes(),
        own.key.as_bytes(),
    );
    Security::certificates(ca, own_certificate, own_key, datacenter, "lictor").unwrap()
}

#[tokio::test]
async fn servers_talk_in_each_way_of_protection() {
    let authority = authority();
    let ways = [
        [Security::open(), Security::open()],
        [key(1), key(1)],
        [certified(&authority, "dc1"), certified(&authority, "dc1")],
    ];
    for [one, other] in ways {
        let (a, mut b) = (
            Plan::secured(1, one).start().await,
            Plan::secured(2, other).start().await,
        );
        a.knows(&b);

        assert_eq!(a.call(b.id, ECHO, b"call").await.unwrap(), "call");
        a.peers.send_raft(b.id, true, "urgent".into()).unwrap();
        assert_eq!(b.raft_message().await, (a.id, "urgent".into()));
        a.peers.send_raft(b.id, false, "append".into()).unwrap();
        assert_eq!(b.raft_message().await, (a.id, "append".into()));
        let (remote, answer) = a.ask(b.address).await.unwrap();
        assert_eq!(
            (&remote.identity, &answer[..]),
            (b.peers.identity(), &b"hello"[..])
        );
        assert!(a.peers.health_of(b.id).unwrap().connected);
    }
}

#[tokio::test]
async fn another_cluster_key_is_refused_and_named() {
    let (a, b) = (
        Plan::secured(1, key(1)).start().await,
        Plan::secured(2, key(2)).start().await,
    );

    let text = a.ask_refused(b.address).await;

    assert_eq!(text, "the other side has another cluster key");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_and_named() {
    let a = Plan::secured(1, certified(&authority(), "dc1")).start().await;
    let b = Plan::secured(2, certified(&authority(), "dc1")).start().await;

    let text = a.ask_refused(b.address).await;

    assert!(text.contains("certificate"), "{text}");
}

#[tokio::test]
async fn who_has_a_certificate_but_not_a_servers_is_refused_on_both_sides() {
    let authority = authority();
    let b = Plan::secured(2, certified(&authority, "dc1")).start().await;
    // Of the same authority, for the servers of another datacenter.
    let a = Plan::secured(1, certified(&authority, "dc2")).start().await;

    let from_a = a.ask_refused(b.address).await;
    let from_b = b.ask_refused(a.address).await;

    for text in [from_a, from_b] {
        assert!(text.contains("certificate"), "{text}");
    }
}

#[test]
fn what_cannot_work_is_refused_before_it_is_used() {
    let authority = authority();
    let client = certificate(&authority, "client.dc1.lictor");
    let (ca, own, own_key) = (
        authority.certificate.as_bytes(),
        client.certificate.as_bytes(),
        client.key.as_bytes(),
    );

    let wrong_name = Security::certificates(ca, own, own_key, "dc1", "lictor");
    let no_certificate = Security::certificates(ca, own_key, own_key, "dc1", "lictor");
    let no_key = Security::certificates(ca, own, own, "dc1", "lictor");
    let short = Security::cluster_key(&[0; 15]);

    assert!(matches!(wrong_name, Err(SecurityError::Certificate(_))));
    assert!(matches!(
        no_certificate,
        Err(SecurityError::Pem {
            wanted: "certificate",
            ..
        })
    ));
    assert!(matches!(
        no_key,
        Err(SecurityError::Pem {
            wanted: "private key",
            ..
        })
    ));
    assert!(matches!(
        short,
        Err(SecurityError::ShortKey { len_bytes: 15, .. })
    ));
}

#[tokio::test]
async fn ways_of_protection_do_not_mix() {
    let (a, b) = (Plan::new(1).start().await, Plan::secured(2, key(1)).start().await);

    let text = a.ask_refused(b.address).await;
    assert!(
        text.contains("this server uses no protection, the other a cluster key"),
        "{text}"
    );
    let text = b.ask_refused(a.address).await;
    assert!(
        text.contains("this server uses a cluster key, the other no protection"),
        "{text}"
    );
}

#[tokio::test]
async fn clusters_and_datacenters_do_not_mix() {
    let mut plan = Plan::new(2);
    plan.cluster = Some(2);
    let (a, b) = (Plan::new(1).start().await, plan.start().await);
    let mut plan = Plan::new(3);
    plan.datacenter = "dc2";
    let c = plan.start().await;

    let text = a.ask_refused(b.address).await;
    assert!(text.contains("different clusters: lictor-2 is of"), "{text}");
    let text = a.ask_refused(c.address).await;
    assert!(
        text.contains("different datacenters: lictor-3 is in dc2, lictor-1 in dc1"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_outside_can_ask_and_do_nothing_else_until_it_joins() {
    let mut plan = Plan::new(2);
    plan.cluster = None;
    let (a, mut b) = (Plan::new(1).start().await, plan.start().await);

    let (remote, _) = b.ask(a.address).await.unwrap();
    assert_eq!(remote.cluster, a.peers.cluster());
    assert_eq!(a.ask(b.address).await.unwrap().0.cluster, None);
    a.knows(&b);
    let error = a.call(b.id, ECHO, b"x").await.unwrap_err();
    let refused = NotSent::Refused("refused: lictor-2 has not joined a cluster yet".to_owned());
    assert_eq!(error, CallError::NotSent(refused));

    b.peers.set_cluster(a.peers.cluster().unwrap());
    b.knows(&a);

    a.call_until_reached(b.id).await;
    while a.peers.send_raft(b.id, true, "now".into()).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.raft_message().await.1, "now");
}

#[tokio::test]
async fn the_owner_decides_about_names() {
    let mut plan = Plan::new(2);
    plan.refused_name = Some("lictor-1");
    let (a, b) = (Plan::new(1).start().await, plan.start().await);

    assert_eq!(
        a.ask_refused(b.address).await,
        "refused: the name lictor-1 is taken"
    );
}

#[tokio::test]
async fn a_server_that_finds_itself_is_told() {
    let a = Plan::new(1).start().await;

    let error = a.ask(a.address).await.unwrap_err();

    assert_eq!(error, CallError::NotSent(NotSent::Itself));
}

#[tokio::test]
async fn another_server_at_the_address_is_not_taken_for_the_peer() {
    let (a, b) = (Plan::new(1).start().await, Plan::new(2).start().await);
    let third = lictor_proto::RaftId(3);
    a.peers.set_address(third, &b.address.to_string());

    let error = a.call(third, ECHO, b"x").await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains("another server than expected, lictor-2"), "{text}");
}

#[tokio::test]
async fn nobody_there_is_not_sent() {
    let a = Plan::new(1).start().await;
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();

    let error = a.ask(gone).await.unwrap_err();

    assert!(
        matches!(error, CallError::NotSent(NotSent::Unreachable(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn servers_of_other_datacenters_may_ask_from_abroad_and_not_else() {
    let far = Plan {
        datacenter: "dc2",
        cluster: Some(2),
        ..Plan::secured(1, key(1))
    };
    let (far, near) = (far.start().await, Plan::secured(2, key(1)).start().await);
    let stranger = Plan {
        datacenter: "dc2",
        ..Plan::secured(3, key(2))
    };
    let stranger = stranger.start().await;
    let ask = async |from: &crate::server::Server| {
        let deadline = std::time::Instant::now() + crate::server::PATIENCE;
        let (to, body) = (near.address.to_string(), bytes::Bytes::from_static(b"hello"));
        from.peers.call_abroad(&to, ECHO, body, deadline).await
    };

    let (remote, answer) = ask(&far).await.unwrap();

    assert_eq!(
        (remote.identity.datacenter.as_str(), &answer[..]),
        ("dc1", &b"hello"[..])
    );
    assert!(
        far.ask_refused(near.address)
            .await
            .contains("different datacenters")
    );
    let refused = ask(&stranger).await.unwrap_err();
    assert!(refused.to_string().contains("another cluster key"), "{refused}");
}

/// Who has the certificate of a client agent may ask, and take no part in raft.
#[tokio::test]
async fn an_agents_certificate_is_told_from_a_servers() {
    let authority = authority();
    let own = certificate(&authority, "client.dc1.lictor");
    let agent = Security::agent_certificates(
        authority.certificate.as_bytes(),
        own.certificate.as_bytes(),
        own.key.as_bytes(),
        "dc1",
        "lictor",
    );
    let a = Plan::secured(1, agent.unwrap()).start().await;
    let b = Plan::secured(2, certified(&authority, "dc1")).start().await;

    a.peers.set_called(b.id, &b.address.to_string());
    assert_eq!(a.call(b.id, ECHO, b"call").await.unwrap(), "call");
    assert_eq!(b.handler.last_role(), Some(Role::Agent));
    b.peers.set_called(a.id, &a.address.to_string());
    assert!(b.call(a.id, ECHO, b"back").await.is_err(), "it is no server");
    let (to, body) = (b.address.to_string(), bytes::Bytes::new());
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    let refused = a.peers.call_abroad(&to, ECHO, body, deadline).await.unwrap_err();
    assert!(refused.to_string().contains("one of a client agent"), "{refused}");
}
