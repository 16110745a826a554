//! The agent on a whole node that keeps everything in memory.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

use std::path::Path;
use std::time::Duration;

use lictor_agent::{Agent, CheckDefinition, Config, Definitions, Health, ServiceDefinition};
use lictor_node::{Identity, Node, Topic};
use lictor_proto::{Command, v1};
use lictor_state::{Area, Outcome, State};
use serde_json::{Value, json};

/// For what takes milliseconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn node() -> Node {
    let identity = Identity {
        node: "n1".into(),
        node_id: "11111111-2222-4333-8444-555555555555".into(),
        datacenter: "dc1".into(),
        address: "127.0.0.1".into(),
        server_port: 8300,
        http_address: String::new(),
    };
    Node::in_memory(identity).unwrap()
}

async fn agent(node: &Node, config: Config) -> Agent {
    let agent = Agent::start(node.clone(), config).unwrap();
    agent.register_self().await.unwrap();
    agent
}

fn in_dir(dir: &Path) -> Config {
    Config {
        data_dir: Some(dir.to_owned()),
        ..Config::default()
    }
}

fn service(value: Value) -> ServiceDefinition {
    ServiceDefinition::from_json(value).unwrap()
}

/// Waits until the state is as wanted.
async fn until(node: &Node, wanted: impl Fn(&State) -> bool) {
    let topics =
        [Area::Nodes, Area::Services, Area::Checks, Area::Sessions].map(|area| Topic::Row(area, b""));
    let mut waiter = node.watches().register(&topics).unwrap();
    let reached = async {
        while !wanted(&node.view()) {
            waiter.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("the state did not become what it should");
}

fn status(state: &State, check: &str) -> Option<String> {
    state.check("n1", check).map(|check| check.status.clone())
}

/// Registers one more service and waits for it: what was to be proposed before has been proposed then.
async fn marked(node: &Node, agent: &Agent, name: &str) {
    agent
        .register_service(service(json!({"Name": name})), false)
        .await
        .unwrap();
    until(node, |state| state.service("n1", name).is_some()).await;
}

#[tokio::test]
async fn a_server_registers_itself_once() {
    let node = node();

    let agent = agent(&node, Config::default()).await;

    let view = node.view();
    let row = view.node("n1").unwrap();
    assert_eq!(
        (row.address.as_str(), row.datacenter.as_str()),
        ("127.0.0.1", "dc1")
    );
    assert_eq!(view.service("n1", "consul").unwrap().port, 8300);
    let serf = view.check("n1", "serfHealth").unwrap();
    assert_eq!(
        (serf.status.as_str(), serf.output.as_str()),
        ("passing", "Agent alive and reachable")
    );
    let before = node.status().applied;
    agent.register_self().await.unwrap();
    assert_eq!(node.status().applied, before);
}

#[tokio::test]
async fn services_and_checks_reach_the_catalog_and_leave_it() {
    let node = node();
    let agent = agent(&node, Config::default()).await;
    let web = service(json!({"Name": "web", "ID": "w1", "Tags": ["a"], "Check": {"TTL": "60s"}}));

    agent.register_service(web, false).await.unwrap();
    until(&node, |state| {
        status(state, "service:w1").as_deref() == Some("critical")
    })
    .await;
    agent.report("service:w1", Health::Passing, "").unwrap();
    until(&node, |state| {
        status(state, "service:w1").as_deref() == Some("passing")
    })
    .await;
    assert_eq!(node.view().check("n1", "service:w1").unwrap().service_tags, ["a"]);
    agent.deregister_service("w1").await.unwrap();
    until(&node, |state| {
        state.service("n1", "w1").is_none() && state.check("n1", "service:w1").is_none()
    })
    .await;
}

#[tokio::test]
async fn reports_and_registrations_that_change_nothing_propose_nothing() {
    let node = node();
    let agent = agent(&node, Config::default()).await;
    let web = || service(json!({"Name": "web", "Check": {"TTL": "60s", "Status": "passing"}}));
    agent.register_service(web(), false).await.unwrap();
    until(&node, |state| status(state, "service:web").is_some()).await;
    let before = node.status().applied;

    for _ in 0..100 {
        agent.report("service:web", Health::Passing, "").unwrap();
    }
    agent.register_service(web(), false).await.unwrap();
    marked(&node, &agent, "marker").await;

    assert_eq!(node.status().applied.0, before.0 + 1);
}

#[tokio::test]
async fn a_ttl_that_lapses_ends_the_session_of_its_check() {
    let node = node();
    let agent = agent(&node, Config::default()).await;
    let check = json!({"TTL": "2s", "Status": "passing"});
    agent
        .register_service(service(json!({"Name": "web", "Check": check})), false)
        .await
        .unwrap();
    until(&node, |state| status(state, "service:web").is_some()).await;
    let session = v1::SessionRow {
        id: vec![7; 16].into(),
        node: "n1".into(),
        node_checks: Some(v1::StringList {
            items: vec!["service:web".into()],
        }),
        ..v1::SessionRow::default()
    };
    let create = Command::SessionCreate(v1::SessionCreate {
        session: Some(session),
    });
    assert!(!matches!(node.propose(create).await.unwrap(), Outcome::Failed(_)));

    until(&node, |state| state.sessions().next().is_none()).await;

    let view = node.view();
    let check = view.check("n1", "service:web").unwrap();
    assert_eq!(
        (check.status.as_str(), check.output.as_str()),
        ("critical", "TTL expired")
    );
}

#[tokio::test]
async fn what_the_catalog_has_and_the_agent_does_not_is_removed_at_the_start() {
    let node = node();
    let row = v1::NodeRow {
        node: "n1".into(),
        address: "127.0.0.1".into(),
        ..v1::NodeRow::default()
    };
    let stray = v1::ServiceRow {
        node: "n1".into(),
        id: "stray".into(),
        service: "stray".into(),
        ..<_>::default()
    };
    let register = v1::Register {
        node: Some(row),
        service: Some(stray),
        ..v1::Register::default()
    };
    node.propose(Command::Register(register)).await.unwrap();

    let _agent = agent(&node, Config::default()).await;

    until(&node, |state| state.service("n1", "stray").is_none()).await;
}

#[tokio::test]
async fn after_a_restart_checks_are_as_they_were_and_the_catalog_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let node = node();
    let first = agent(&node, in_dir(dir.path())).await;
    let web = json!({"Name": "web", "Meta": {"k": "v"}, "Check": {"TTL": "60s"}});
    first.register_service(service(web), false).await.unwrap();
    first.report("service:web", Health::Passing, "all good").unwrap();
    let gone = json!({"Name": "gone", "Check": {"TTL": "60s"}});
    first.register_service(service(gone), false).await.unwrap();
    first.deregister_service("gone").await.unwrap();
    marked(&node, &first, "marker").await;
    until(&node, |state| {
        status(state, "service:web").as_deref() == Some("passing")
    })
    .await;
    first.stop().await;
    let before = node.status().applied;

    let second = agent(&node, in_dir(dir.path())).await;
    marked(&node, &second, "second-marker").await;

    let check = second.check("service:web").unwrap();
    assert_eq!(
        (check.status.as_str(), check.output.as_str()),
        ("passing", "all good")
    );
    assert_eq!(second.service("web").unwrap().meta["k"], "v");
    assert!(second.service("gone").is_none() && second.check("service:gone").is_none());
    assert_eq!(node.status().applied.0, before.0 + 1);
}

#[tokio::test]
async fn a_ttl_that_lapsed_while_the_agent_was_away_is_critical() {
    let dir = tempfile::tempdir().unwrap();
    let node = node();
    let first = agent(&node, in_dir(dir.path())).await;
    let check = json!({"TTL": "500ms", "Status": "passing"});
    first
        .register_service(service(json!({"Name": "web", "Check": check})), false)
        .await
        .unwrap();
    first.stop().await;
    tokio::time::sleep(Duration::from_millis(600)).await;

    let _second = agent(&node, in_dir(dir.path())).await;

    until(&node, |state| {
        status(state, "service:web").as_deref() == Some("critical")
    })
    .await;
}

#[tokio::test]
async fn maintenance_is_a_critical_check_with_a_reason() {
    let node = node();
    let agent = agent(&node, Config::default()).await;
    agent
        .register_service(service(json!({"Name": "web"})), false)
        .await
        .unwrap();

    agent.maintain(Some("web"), true, "").await.unwrap();
    agent.maintain(None, true, "upgrade").await.unwrap();

    until(&node, |state| {
        status(state, "_node_maintenance").as_deref() == Some("critical")
    })
    .await;
    assert_eq!(agent.check("_node_maintenance").unwrap().notes, "upgrade");
    let of_service = agent.check("_service_maintenance:web").unwrap();
    assert_eq!(
        (of_service.status.as_str(), of_service.service_id.as_str()),
        ("critical", "web")
    );
    assert!(
        of_service
            .notes
            .starts_with("Maintenance mode is enabled for this service, but no reason")
    );
    agent.maintain(None, false, "").await.unwrap();
    until(&node, |state| status(state, "_node_maintenance").is_none()).await;
    let unknown = agent
        .maintain(Some("none"), true, "")
        .await
        .unwrap_err()
        .to_string();
    assert!(unknown.starts_with("Unknown service ID \"none\""), "{unknown}");
}

#[tokio::test]
async fn replacing_checks_removes_those_that_are_not_named_again() {
    let node = node();
    let agent = agent(&node, Config::default()).await;
    let with = |id: &str| service(json!({"Name": "web", "Check": {"TTL": "60s", "CheckID": id}}));

    agent.register_service(with("one"), false).await.unwrap();
    agent.report("one", Health::Passing, "kept").unwrap();
    agent.register_service(with("two"), false).await.unwrap();
    assert!(agent.check("one").is_some());
    agent.register_service(with("one"), true).await.unwrap();

    assert!(agent.check("two").is_none());
    assert_eq!(agent.check("one").unwrap().output, "kept");
}

#[tokio::test]
async fn a_reload_takes_over_what_the_files_define() {
    let node = node();
    let defined = |services: &[&str]| Definitions {
        services: services
            .iter()
            .map(|name| service(json!({"Name": name, "Check": {"TTL": "60s"}})))
            .collect(),
        checks: vec![CheckDefinition::from_json(json!({"Name": "disk", "TTL": "60s"})).unwrap()],
    };
    let agent = agent(
        &node,
        Config {
            definitions: defined(&["a", "b"]),
            ..Config::default()
        },
    )
    .await;
    agent
        .register_service(service(json!({"Name": "by-api"})), false)
        .await
        .unwrap();
    agent.report("service:b", Health::Passing, "").unwrap();

    agent.reload(defined(&["b", "c"])).await.unwrap();

    until(&node, |state| {
        state.service("n1", "c").is_some() && state.service("n1", "a").is_none()
    })
    .await;
    let ids: Vec<_> = agent
        .services()
        .iter()
        .map(|service| service.id.clone())
        .collect();
    assert_eq!(ids, ["b", "by-api", "c"]);
    let ids: Vec<_> = agent
        .checks()
        .iter()
        .map(|check| check.check_id.clone())
        .collect();
    assert_eq!(ids, ["disk", "service:b", "service:c"]);
    assert_eq!(agent.check("service:b").unwrap().status, "passing");
}

#[tokio::test]
async fn checks_from_files_keep_their_health_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = node();
    let config = || {
        let definitions = Definitions {
            services: vec![service(json!({"Name": "web", "Check": {"TTL": "60s"}}))],
            checks: Vec::new(),
        };
        Config {
            definitions,
            ..in_dir(dir.path())
        }
    };
    let first = agent(&node, config()).await;
    first.report("service:web", Health::Passing, "").unwrap();
    first.stop().await;

    let second = agent(&node, config()).await;

    assert_eq!(second.check("service:web").unwrap().status, "passing");
    second.stop().await;
    let third = agent(&node, in_dir(dir.path())).await;
    assert!(third.service("web").is_none() && third.check("service:web").is_none());
}

#[test]
fn definitions_in_files_are_refused_with_their_place() {
    let services = vec![
        json!({"name": "a", "enable_tag_override": true}),
        json!({"name": "b", "prot": 1}),
    ];

    let error = Definitions::from_json(services, Vec::new()).unwrap_err();

    assert_eq!(error, "services[1]: json: unknown field \"prot\"");
}

#[tokio::test]
async fn an_alias_follows_a_local_service_and_a_node_of_the_catalog() {
    let node = node();
    let agent = agent(&node, Config::default()).await;
    let web = json!({"Name": "web", "Check": {"TTL": "60s", "Name": "web check", "Status": "passing"}});
    agent.register_service(service(web), false).await.unwrap();
    let check = |value: Value| CheckDefinition::from_json(value).unwrap();
    let alias = json!({"Name": "of-web", "ServiceID": "web2", "AliasService": "web"});
    agent
        .register_service(service(json!({"Name": "web2"})), false)
        .await
        .unwrap();
    agent.register_check(check(alias)).await.unwrap();
    let of_node = json!({"Name": "of-node", "ServiceID": "web2", "AliasNode": "n1", "AliasService": "gone"});
    agent.register_check(check(of_node)).await.unwrap();

    until(&node, |state| {
        status(state, "of-web").as_deref() == Some("passing")
    })
    .await;
    let output = |id: &str| node.view().check("n1", id).map(|check| check.output.clone());
    assert_eq!(output("of-web").as_deref(), Some("All checks passing."));
    until(&node, |state| {
        state
            .check("n1", "of-node")
            .is_some_and(|check| check.status == "critical")
    })
    .await;

    agent.report("service:web", Health::Critical, "down").unwrap();

    until(&node, |state| {
        status(state, "of-web").as_deref() == Some("critical")
    })
    .await;
    assert_eq!(
        output("of-web").as_deref(),
        Some("Aliased check \"web check\" failing: down")
    );
}

#[tokio::test]
async fn a_registration_with_a_program_that_may_not_run_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = node();
    let with_script = json!({"Name": "web", "Check": {"Args": ["true"], "Interval": "10s"}});
    let allowed = Config {
        scripts: lictor_agent::Scripts {
            from_clients: true,
            from_files: true,
        },
        ..in_dir(dir.path())
    };
    let first = agent(&node, allowed).await;
    first
        .register_service(service(with_script.clone()), false)
        .await
        .unwrap();
    assert!(first.check("service:web").is_some());
    first.stop().await;

    // What was taken once does not run once it is no longer allowed.
    let second = agent(&node, in_dir(dir.path())).await;
    assert!(second.service("web").is_some() && second.check("service:web").is_none());

    let mut other = with_script;
    other["Name"] = "other".into();
    let refused = second
        .register_service(service(other.clone()), false)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .ends_with("configure 'enable_script_checks' to true")
    );
    assert!(second.service("other").is_none());
    let definitions = Definitions {
        services: vec![service(other)],
        checks: Vec::new(),
    };
    let refused = second.reload(definitions).await.unwrap_err();
    assert!(refused.to_string().contains("'enable_local_script_checks'"));
    assert!(second.service("other").is_none());
}
