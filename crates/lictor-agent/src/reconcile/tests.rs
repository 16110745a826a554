use std::time::{Duration, Instant};

use lictor_proto::{LogIndex, Term};
use lictor_state::{Effects, Outcome};

use super::*;
use crate::definition::{CheckDefinition, CheckKind, Health, OUTPUT_MAX_BYTES, ServiceDefinition};
use crate::local::{Scripts, Source};

/// A catalog that applies what is planned.
#[derive(Default)]
struct Catalog {
    state: State,
    index: u64,
}

impl Catalog {
    fn apply(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.index += 1;
            let outcome = self
                .state
                .apply(LogIndex(self.index), Term(1), &command, &mut Effects::default());
            assert!(!matches!(outcome, Outcome::Failed(_)), "{command:?}: {outcome:?}");
        }
    }

    /// Everything as the agent's full pass does it; answers how many commands that took.
    fn reconcile(&mut self, local: &Local) -> usize {
        let registration = own_registration(&own(), &self.state);
        let mut count = registration.len();
        self.apply(registration);
        let commands = Wanted::all(local, &own(), &self.state).commands(&own(), &self.state);
        count += commands.len();
        self.apply(commands);
        count
    }

    fn services(&self) -> Vec<&str> {
        self.state
            .services_of_node("n1")
            .map(|service| service.id.as_str())
            .collect()
    }

    fn checks(&self) -> Vec<(&str, &str)> {
        let checks = self.state.checks_of_node("n1");
        checks
            .map(|check| (check.check_id.as_str(), check.status.as_str()))
            .collect()
    }
}

fn own() -> Own {
    let node = NodeRow {
        node: "n1".into(),
        address: "192.0.2.1".into(),
        ..NodeRow::default()
    };
    let service = ServiceRow {
        node: "n1".into(),
        id: "consul".into(),
        service: "consul".into(),
        ..<_>::default()
    };
    let check = CheckRow {
        node: "n1".into(),
        check_id: "serfHealth".into(),
        status: "passing".into(),
        ..<_>::default()
    };
    Own {
        node,
        services: vec![Arc::new(service)],
        checks: vec![Arc::new(check)],
    }
}

fn service(id: &str) -> ServiceDefinition {
    ServiceDefinition {
        id: id.into(),
        name: "web".into(),
        ..ServiceDefinition::default()
    }
}

fn put_check(local: &mut Local, id: &str, of: &str, status: Health) {
    let definition = CheckDefinition {
        id: id.into(),
        name: id.into(),
        service_id: of.into(),
        status: Some(status),
        kind: CheckKind::Ttl(60_000_000_000),
        ..CheckDefinition::default()
    };
    local
        .put_check(definition, Source::Api, None, Duration::ZERO, Instant::now())
        .unwrap();
}

/// Two services, one with a check, and a check of the node.
fn local() -> Local {
    let mut local = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default());
    local.put_service(&service("a"), Source::Api).unwrap();
    local.put_service(&service("b"), Source::Api).unwrap();
    put_check(&mut local, "of-a", "a", Health::Passing);
    put_check(&mut local, "of-node", "", Health::Warning);
    local
}

#[test]
fn an_empty_catalog_gets_everything_and_then_nothing_more() {
    let mut catalog = Catalog::default();
    let local = local();

    assert_eq!(catalog.reconcile(&local), 4);

    assert_eq!(catalog.services(), ["a", "b", "consul"]);
    assert_eq!(
        catalog.checks(),
        [
            ("of-a", "passing"),
            ("of-node", "warning"),
            ("serfHealth", "passing")
        ]
    );
    assert_eq!(catalog.reconcile(&local), 0);
}

#[test]
fn a_service_comes_with_its_checks_at_one_index() {
    let mut catalog = Catalog::default();

    catalog.reconcile(&local());

    let (service, check) = (
        catalog.state.service("n1", "a").unwrap(),
        catalog.state.check("n1", "of-a").unwrap(),
    );
    assert_eq!(service.modify_index, check.modify_index);
}

#[test]
fn what_nobody_registered_goes() {
    let mut catalog = Catalog::default();
    let mut stranger = local();
    stranger.put_service(&service("stray"), Source::Api).unwrap();
    put_check(&mut stranger, "of-stray", "stray", Health::Passing);
    put_check(&mut stranger, "stray-of-a", "a", Health::Passing);
    catalog.reconcile(&stranger);

    // The checks of a removed service need no command of their own.
    assert_eq!(catalog.reconcile(&local()), 2);

    assert_eq!(catalog.services(), ["a", "b", "consul"]);
    assert_eq!(
        catalog.checks(),
        [
            ("of-a", "passing"),
            ("of-node", "warning"),
            ("serfHealth", "passing")
        ]
    );
}

#[test]
fn other_nodes_are_left_alone() {
    let mut catalog = Catalog::default();
    let node = NodeRow {
        node: "n2".into(),
        address: "192.0.2.2".into(),
        ..NodeRow::default()
    };
    let foreign = ServiceRow {
        node: "n2".into(),
        id: "x".into(),
        service: "web".into(),
        ..<_>::default()
    };
    catalog.apply(vec![register(&node, Some(foreign), Vec::new())]);

    catalog.reconcile(&local());

    assert!(catalog.state.service("n2", "x").is_some());
}

#[test]
fn a_change_of_one_check_is_one_command() {
    let mut catalog = Catalog::default();
    let mut local = local();
    catalog.reconcile(&local);
    local.take_pending();

    local
        .report("of-a", Health::Critical, "down", Instant::now())
        .unwrap();
    let commands = Wanted::of(&local.take_pending(), &local).commands(&own(), &catalog.state);

    let [Command::Register(register)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert!(register.service.is_none() && register.skip_node_update);
    assert_eq!(
        (
            register.checks[0].check_id.as_str(),
            register.checks[0].status.as_str()
        ),
        ("of-a", "critical")
    );
}

#[test]
fn what_was_removed_locally_is_removed_by_its_id_alone() {
    let mut catalog = Catalog::default();
    let mut local = local();
    catalog.reconcile(&local);
    local.take_pending();

    local.remove_service("a").unwrap();
    local.remove_check("of-node").unwrap();
    let commands = Wanted::of(&local.take_pending(), &local).commands(&own(), &catalog.state);
    assert_eq!(commands.len(), 2);
    catalog.apply(commands);

    assert_eq!(catalog.services(), ["b", "consul"]);
    assert_eq!(catalog.checks(), [("serfHealth", "passing")]);
}

#[test]
fn an_output_that_is_deferred_is_not_proposed() {
    let mut catalog = Catalog::default();
    let mut local = local();
    catalog.reconcile(&local);

    local
        .report("of-a", Health::Passing, "still fine", Instant::now())
        .unwrap();

    assert_eq!(catalog.reconcile(&local), 0);
}

#[test]
fn with_tag_override_the_tags_of_the_catalog_stand() {
    let mut catalog = Catalog::default();
    let mut local = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default());
    let mut overridable = service("a");
    overridable.enable_tag_override = true;
    local.put_service(&overridable, Source::Api).unwrap();
    put_check(&mut local, "of-a", "a", Health::Passing);
    catalog.reconcile(&local);
    let mut tagged = (**catalog.state.service("n1", "a").unwrap()).clone();
    tagged.tags = vec!["from-outside".into()];
    catalog.apply(vec![register(&own().node, Some(tagged), Vec::new())]);

    catalog.reconcile(&local);

    assert_eq!(catalog.state.service("n1", "a").unwrap().tags, ["from-outside"]);
    assert_eq!(catalog.reconcile(&local), 0);
}

#[test]
fn tags_that_are_changed_from_outside_are_put_right() {
    let mut catalog = Catalog::default();
    let local = local();
    catalog.reconcile(&local);
    let mut tagged = (**catalog.state.service("n1", "a").unwrap()).clone();
    tagged.tags = vec!["from-outside".into()];
    catalog.apply(vec![register(&own().node, Some(tagged), Vec::new())]);

    assert_eq!(catalog.reconcile(&local), 1);

    assert!(catalog.state.service("n1", "a").unwrap().tags.is_empty());
}
