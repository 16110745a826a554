//! Nodes, services and checks: what changes whom, and at which index.

mod common;

use common::*;
use lictor_proto::v1::CatalogVerb::{self, Cas, DeleteCas, Get, Set};
use lictor_proto::v1::{self, txn_op::Op};
use lictor_state::{Area, Dirty};

#[test]
fn registering_the_same_again_changes_nothing() {
    let mut log = Log::default();
    let command = register(
        "n",
        Some(service("n", "s", "web")),
        vec![check("n", "c", "s", "passing")],
    );
    log.done(&command);
    let first = log.state.table_indexes();

    log.done(&command);

    assert!(log.silent());
    assert_eq!(log.state.table_indexes(), first);
}

#[test]
fn a_registration_that_fails_leaves_nothing_behind() {
    let mut log = Log::default();
    let command = register(
        "n",
        Some(service("n", "s", "web")),
        vec![check("n", "c", "none", "passing")],
    );

    assert_eq!(log.fail(&command), "Unknown service ID 'none' for check ID 'c'");

    assert!(log.silent());
    assert_eq!((log.state.nodes().count(), log.state.services().count()), (0, 0));
}

#[test]
fn catalog_changes_tell_whom_they_concern() {
    let mut log = Log::default();
    let row = |area, key: &str| Dirty::Row(area, bytes(key));
    log.done(&register("N", Some(service("N", "s1", "Web")), vec![]));
    let all = [
        row(Area::Node, "n"),
        row(Area::Nodes, ""),
        row(Area::Service, "web"),
        row(Area::Services, ""),
    ];
    assert_eq!(log.out.dirty, all);
    log.done(&register("n", Some(service("n", "s2", "db")), vec![]));

    log.done(&register("N", None, vec![check("n", "c", "s1", "passing")]));
    assert_eq!(
        log.out.dirty,
        [
            row(Area::Node, "n"),
            row(Area::Nodes, ""),
            row(Area::Service, "db"),
            row(Area::Service, "web"),
            row(Area::Checks, "")
        ],
        "the node's spelling changed too"
    );
    log.done(&register("N", None, vec![check("n", "c", "s1", "warning")]));
    assert_eq!(
        log.out.dirty,
        [
            row(Area::Node, "n"),
            row(Area::Service, "web"),
            row(Area::Checks, "")
        ]
    );
    log.done(&register("N", None, vec![check("n", "host", "", "passing")]));
    let both = [row(Area::Service, "db"), row(Area::Service, "web")];
    assert_eq!(
        log.out.dirty,
        [&[row(Area::Node, "n")], &both[..], &[row(Area::Checks, "")]].concat()
    );
    log.done(&deregister("n", "s1", ""));
    let gone = [
        row(Area::Node, "n"),
        row(Area::Service, "web"),
        row(Area::Services, ""),
        row(Area::Checks, ""),
    ];
    assert_eq!(log.out.dirty, gone);
    assert_eq!(log.state.checks().count(), 1);
}

#[test]
fn a_service_under_a_new_name_concerns_both_names() {
    let mut log = Log::default();
    log.done(&register("n", Some(service("n", "s", "old")), vec![]));

    let index = log.done(&register("n", Some(service("n", "s", "new")), vec![]));

    for name in ["old", "new"] {
        assert!(
            log.out.dirty.contains(&Dirty::Row(Area::Service, bytes(name))),
            "{name}"
        );
        assert_eq!(log.state.service_index(name).0, index, "{name}");
    }
    assert_eq!(log.state.services_named("old").count(), 0);
    assert_eq!(log.state.service("N", "S").unwrap().create_index, 1);
}

#[test]
fn registering_without_a_node_update_leaves_a_known_node_alone() {
    let mut log = Log::default();
    log.node("n");
    let row = v1::NodeRow {
        node: "n".to_owned(),
        address: "192.0.2.9".to_owned(),
        ..v1::NodeRow::default()
    };
    let (node, service) = (Some(row), Some(service("n", "s", "web")));
    log.done(&lictor_proto::Command::Register(v1::Register {
        node,
        service,
        checks: vec![],
        skip_node_update: true,
    }));

    assert_eq!(log.state.node("n").unwrap().address, "192.0.2.1");
    assert_eq!(log.state.services_of_node("N").count(), 1);
}

fn node(verb: CatalogVerb, modify_index: u64) -> Op {
    let row = v1::NodeRow {
        node: "n".to_owned(),
        modify_index,
        ..v1::NodeRow::default()
    };
    Op::Node(v1::NodeTxnOp {
        verb: verb.into(),
        node: Some(row),
    })
}

fn web(verb: CatalogVerb, modify_index: u64) -> Op {
    let row = v1::ServiceRow {
        modify_index,
        ..service("n", "s", "web")
    };
    Op::Service(v1::ServiceTxnOp {
        verb: verb.into(),
        service: Some(row),
    })
}

fn alive(verb: CatalogVerb, modify_index: u64) -> Op {
    let row = v1::CheckRow {
        modify_index,
        ..check("n", "c", "s", "passing")
    };
    Op::Check(v1::CheckTxnOp {
        verb: verb.into(),
        check: Some(row),
    })
}

#[test]
fn catalog_operations_of_a_transaction() {
    let mut log = Log::default();
    let mut run = |ops: Vec<Op>| {
        let outcome = log.txn(ops.into_iter().map(|op| v1::TxnOp { op: Some(op) }).collect());
        let errors = outcome
            .errors
            .into_iter()
            .map(|error| error.what)
            .collect::<Vec<_>>();
        (outcome.results.len(), errors.join("; "))
    };

    let missing = r#"node "n" doesn't exist; service "s" on node "n" doesn't exist; check "c" on node "n" doesn't exist"#;
    assert_eq!(
        run(vec![node(Get, 0), web(Get, 0), alive(Get, 0)]),
        (0, missing.to_owned())
    );
    assert_eq!(
        run(vec![web(Set, 0)]),
        (0, "Missing node registration".to_owned())
    );
    assert_eq!(
        run(vec![node(Set, 0), web(Cas, 0), alive(Set, 0)]),
        (3, String::new())
    );
    let stale = r#"failed to set node "n", index is stale; failed to set service "s" on node "n", index is stale; failed to delete check "c" on node "n", index is stale"#;
    assert_eq!(
        run(vec![node(Cas, 9), web(Cas, 0), alive(DeleteCas, 9)]),
        (0, stale.to_owned())
    );
    assert_eq!(
        run(vec![node(Get, 0), web(Get, 0), alive(Get, 0)]),
        (3, String::new())
    );
    assert_eq!(
        run(vec![alive(DeleteCas, 3), web(DeleteCas, 3), node(DeleteCas, 3)]),
        (0, String::new())
    );
    assert_eq!(
        log.state.nodes().count() + log.state.services().count() + log.state.checks().count(),
        0
    );
}

#[test]
fn the_index_of_a_service_and_of_a_node_never_goes_back() {
    let mut log = Log::default();
    let mut last = (0, 0);
    let mut seen = |log: &Log| {
        let now = (log.state.service_index("web").0, log.state.node_index("n").0);
        assert!(now.0 >= last.0 && now.1 >= last.1, "{now:?} after {last:?}");
        last = now;
    };
    for command in [
        register(
            "n",
            Some(service("n", "1", "web")),
            vec![check("n", "c", "1", "passing")],
        ),
        register(
            "m",
            Some(service("m", "1", "web")),
            vec![check("m", "c", "1", "passing")],
        ),
        register("m", None, vec![check("m", "c", "1", "critical")]),
        register("m", Some(service("m", "2", "db")), vec![]),
        deregister("m", "1", ""),
        register("n", None, vec![check("n", "c", "1", "warning")]),
        deregister("n", "", "c"),
        deregister("n", "1", ""),
        register("x", Some(service("x", "1", "other")), vec![]),
        deregister("n", "", ""),
    ] {
        log.done(&command);
        seen(&log);
    }
    assert_eq!(log.state.services_named("WEB").count(), 0);
}

#[test]
fn a_known_id_under_a_new_name_renames_the_node() {
    let mut log = Log::default();
    let node = |name: &str, id: &str| {
        let row = v1::NodeRow {
            node: name.to_owned(),
            id: id.to_owned(),
            ..v1::NodeRow::default()
        };
        let node = Some(row);
        lictor_proto::Command::Register(v1::Register {
            node,
            service: None,
            checks: vec![],
            skip_node_update: false,
        })
    };
    log.done(&node("old", "id-1"));
    log.done(&register(
        "old",
        Some(service("old", "s", "web")),
        vec![check("old", "serfHealth", "", "passing")],
    ));
    assert!(
        log.fail(&node("old", "id-2"))
            .contains("is reserved by node id-1")
    );

    log.done(&node("new", "ID-1"));

    assert!(log.state.node("old").is_none());
    assert_eq!(log.state.services().count(), 0);
    assert_eq!(log.state.node_by_id("id-1").unwrap().node, "new");
}
