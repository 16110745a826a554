//! What has to be proposed so that the catalog says of this node what the agent says. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lictor_proto::Command;
use lictor_proto::v1::{CheckRow, Deregister, NodeRow, Register, ServiceRow};
use lictor_state::State;

use crate::local::{Local, Pending};

/// What a server says of itself, beside what clients register with its agent.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) node: NodeRow,
    pub(crate) services: Vec<Arc<ServiceRow>>,
    pub(crate) checks: Vec<Arc<CheckRow>>,
}

/// The rows that the catalog should have, for some or all ids of this node.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    services: BTreeMap<String, Option<Arc<ServiceRow>>>,
    checks: BTreeMap<String, Option<(Arc<CheckRow>, bool)>>,
}

impl Wanted {
    /// The rows of these ids.
    pub(crate) fn of(pending: &Pending, local: &Local) -> Self {
        let mut wanted = Self::default();
        for id in &pending.services {
            let service = local.services().get(id).map(|service| Arc::clone(&service.row));
            wanted.services.insert(id.clone(), service);
        }
        for id in &pending.checks {
            let check = local.checks().get(id);
            wanted.checks.insert(
                id.clone(),
                check.map(|check| (Arc::clone(&check.row), check.output_is_deferred())),
            );
        }
        // A check is refused without its service, so that the service comes along and is compared too.
        for (check, _) in wanted.checks.values().flatten() {
            if let Some(service) = local.services().get(&check.service_id) {
                wanted
                    .services
                    .entry(check.service_id.clone())
                    .or_insert_with(|| Some(Arc::clone(&service.row)));
            }
        }
        wanted
    }

    /// All rows of this node, those that the catalog has and should not have included.
    pub(crate) fn all(local: &Local, own: &Own, state: &State) -> Self {
        let mut wanted = Self::default();
        let node = own.node.node.as_str();
        wanted.services.extend(
            state
                .services_of_node(node)
                .map(|service| (service.id.clone(), None)),
        );
        wanted.checks.extend(
            state
                .checks_of_node(node)
                .map(|check| (check.check_id.clone(), None)),
        );
        for service in own
            .services
            .iter()
            .chain(local.services().values().map(|service| &service.row))
        {
            wanted
                .services
                .insert(service.id.clone(), Some(Arc::clone(service)));
        }
        for check in &own.checks {
            wanted
                .checks
                .insert(check.check_id.clone(), Some((Arc::clone(check), false)));
        }
        for (id, check) in local.checks() {
            wanted.checks.insert(
                id.clone(),
                Some((Arc::clone(&check.row), check.output_is_deferred())),
            );
        }
        wanted
    }

    /// The commands that bring the catalog there, independent of each other.
    pub(crate) fn commands(&self, own: &Own, state: &State) -> Vec<Command> {
        let node = own.node.node.as_str();
        let mut commands = Vec::new();
        let mut by_service: BTreeMap<&str, Vec<CheckRow>> = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for (id, service) in &self.services {
            if service.is_none() {
                gone.insert(id.as_str());
                if state.service(node, id).is_some() {
                    commands.push(deregister(node, id, ""));
                }
            }
        }
        for (id, check) in &self.checks {
            let known = state.check(node, id);
            match (check, known) {
                (None, None) => {}
                (None, Some(known)) if gone.contains(known.service_id.as_str()) => {}
                (None, Some(_)) => commands.push(deregister(node, "", id)),
                (Some((check, deferred)), known) => {
                    let service = self.services.get(&check.service_id).and_then(Option::as_deref);
                    let overridden = service.is_some_and(|service| service.enable_tag_override);
                    let differs = |known: &Arc<CheckRow>| check_differs(check, known, *deferred, overridden);
                    if known.is_none_or(differs) {
                        by_service
                            .entry(&check.service_id)
                            .or_default()
                            .push((**check).clone());
                    }
                }
            }
        }
        for (id, service) in &self.services {
            let Some(service) = service else { continue };
            let checks = by_service.remove(id.as_str()).unwrap_or_default();
            let service = changed_service(service, state);
            if service.is_some() || !checks.is_empty() {
                commands.push(register(&own.node, service, checks));
            }
        }
        commands.extend(
            by_service
                .into_values()
                .map(|checks| register(&own.node, None, checks)),
        );
        commands
    }
}

/// Registers the server itself: its node row, services and checks. `None` if the catalog has them already.
pub(crate) fn own_registration(own: &Own, state: &State) -> Vec<Command> {
    let node_differs = state.node(&own.node.node).is_none_or(|known| {
        let indexes = (known.create_index, known.modify_index);
        NodeRow {
            create_index: indexes.0,
            modify_index: indexes.1,
            // A server that was a client agent once: the mark stays.
            client: own.node.client.clone().or_else(|| known.client.clone()),
            ..own.node.clone()
        } != **known
    });
    let checks: Vec<CheckRow> = own
        .checks
        .iter()
        .filter(|check| {
            state
                .check(&own.node.node, &check.check_id)
                .is_none_or(|known| check_differs(check, known, false, false))
        })
        .map(|check| (**check).clone())
        .collect();
    let mut services = own
        .services
        .iter()
        .filter_map(|service| changed_service(service, state));
    let first = services.next();
    let mut commands = Vec::new();
    if node_differs || first.is_some() || !checks.is_empty() {
        let node = Some(own.node.clone());
        commands.push(Command::Register(Register {
            node,
            service: first,
            checks,
            skip_node_update: !node_differs,
        }));
    }
    commands.extend(services.map(|service| register(&own.node, Some(service), Vec::new())));
    commands
}

fn register(node: &NodeRow, service: Option<ServiceRow>, checks: Vec<CheckRow>) -> Command {
    Command::Register(Register {
        node: Some(node.clone()),
        service,
        checks,
        skip_node_update: true,
    })
}

fn deregister(node: &str, service_id: &str, check_id: &str) -> Command {
    let (service_id, check_id) = (service_id.to_owned(), check_id.to_owned());
    Command::Deregister(Deregister {
        node: node.to_owned(),
        service_id,
        check_id,
    })
}

/// The row to propose, unless the catalog has it. With tag override the catalog's tags stand.
fn changed_service(service: &ServiceRow, state: &State) -> Option<ServiceRow> {
    let mut wanted = service.clone();
    if let Some(known) = state.service(&service.node, &service.id) {
        (wanted.create_index, wanted.modify_index) = (known.create_index, known.modify_index);
        if wanted.enable_tag_override {
            wanted.tags.clone_from(&known.tags);
            wanted.tags_null = known.tags_null;
        }
        if wanted == **known {
            return None;
        }
        (wanted.create_index, wanted.modify_index) = (0, 0);
    }
    Some(wanted)
}

fn check_differs(
    wanted: &CheckRow,
    known: &CheckRow,
    output_is_deferred: bool,
    tags_are_overridden: bool,
) -> bool {
    let mut wanted = wanted.clone();
    (wanted.create_index, wanted.modify_index) = (known.create_index, known.modify_index);
    if tags_are_overridden {
        wanted.service_tags.clone_from(&known.service_tags);
    }
    if output_is_deferred {
        wanted.output.clone_from(&known.output);
    }
    wanted != *known
}

#[cfg(test)]
mod tests;
