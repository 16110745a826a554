//! `GET /v1/operator/usage`: how many nodes and services the catalog has.

use std::collections::{BTreeMap, BTreeSet};

use lictor_node::{ReadMeta, Topic};
use lictor_state::{Area, State};
use serde::Serialize;

use crate::acl::{Access, Resource};
use crate::blocking::{self, View};
use crate::ctx::{Ctx, ReadOptions};
use crate::error::ApiError;
use crate::reply::Reply;
use crate::routes::read_facts::ReadFacts;

/// The kinds of services that belong to a mesh, and the instances that are in it by themselves.
const MESH: [&str; 6] = [
    "api-gateway",
    NATIVE,
    "connect-proxy",
    "ingress-gateway",
    "mesh-gateway",
    "terminating-gateway",
];
const NATIVE: &str = "connect-native";
/// The service that servers are registered as.
const SERVERS: &str = "consul";

/// Fields in Consul's order.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    services: usize,
    service_instances: usize,
    connect_service_instances: BTreeMap<&'static str, usize>,
    billable_service_instances: usize,
    nodes: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    usage: BTreeMap<&'a str, Usage>,
    #[serde(flatten)]
    read: ReadFacts,
}

/// The answer counts on the state alone; it is the same with `?global`, since there is one datacenter.
pub(crate) async fn usage(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    ctx.authorize(Resource::Operator, Access::Read)?;
    let view = Counted {
        datacenter: &ctx.shared.node.identity().datacenter,
        options,
    };
    let topics = [Topic::Row(Area::Nodes, b""), Topic::Row(Area::Services, b"")];
    let reply = blocking::read(&ctx, options, &topics, &view).await?;
    Ok(reply.with_effective_consistency(options.effective_consistency()))
}

struct Counted<'a> {
    datacenter: &'a str,
    options: ReadOptions,
}

impl View for Counted<'_> {
    fn index(&self, state: &State) -> u64 {
        let areas = [Area::Nodes, Area::Services].map(|area| state.area_index(area).0);
        areas.into_iter().max().unwrap_or_default()
    }

    fn render(&self, state: &State) -> Reply {
        let read = ReadMeta {
            known_leader: true,
            last_contact_ms: 0,
        };
        self.answer(state, read)
    }

    fn render_for(&self, state: &State, read: ReadMeta) -> Option<Reply> {
        Some(self.answer(state, read))
    }
}

impl Counted<'_> {
    fn answer(&self, state: &State, read: ReadMeta) -> Reply {
        Reply::json(&Answer {
            usage: [(self.datacenter, count(state))].into(),
            read: ReadFacts::new(self.index(state).max(1), self.options, read),
        })
    }
}

fn count(state: &State) -> Usage {
    let mut usage = Usage {
        nodes: state.nodes().count(),
        connect_service_instances: MESH.map(|kind| (kind, 0)).into(),
        ..Usage::default()
    };
    let mut names = BTreeSet::new();
    for service in state.services() {
        names.insert(service.service.as_str());
        usage.service_instances += 1;
        let mesh = &mut usage.connect_service_instances;
        if let Some(count) = mesh.get_mut(service.kind.as_str()) {
            *count += 1;
        }
        if is_native(&service.connect_json)
            && let Some(count) = mesh.get_mut(NATIVE)
        {
            *count += 1;
        }
        if service.kind.is_empty() && service.service != SERVERS {
            usage.billable_service_instances += 1;
        }
    }
    usage.services = names.len();
    usage
}

fn is_native(connect_json: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Connect {
        #[serde(rename = "Native", default)]
        native: bool,
    }
    // What clients gave is kept as it is, and may say anything.
    serde_json::from_str::<Connect>(connect_json).is_ok_and(|connect| connect.native)
}

#[cfg(test)]
mod tests {
    use lictor_proto::{Command, LogIndex, Term, v1};
    use lictor_state::Effects;

    use super::*;

    /// The figures are those of Consul for the same registrations.
    #[test]
    fn services_are_counted_by_name_and_by_kind() {
        let mut state = State::default();
        let service = |id: &str, name: &str, kind: &str, connect: &str| v1::ServiceRow {
            node: "n".into(),
            id: id.into(),
            service: name.into(),
            kind: kind.into(),
            connect_json: connect.into(),
            ..v1::ServiceRow::default()
        };
        let services = [
            service("consul", "consul", "", ""),
            service("redis1", "redis", "", ""),
            service("redis2", "redis", "", ""),
            service("proxy1", "proxy", "connect-proxy", ""),
            service("web-native", "web", "", r#"{"Native":true}"#),
        ];
        for (service, at) in services.into_iter().zip(1..) {
            let command = Command::Register(v1::Register {
                node: Some(v1::NodeRow {
                    node: "n".into(),
                    address: "192.0.2.1".into(),
                    ..v1::NodeRow::default()
                }),
                service: Some(service),
                ..v1::Register::default()
            });
            state.apply(LogIndex(at), Term(1), &command, &mut Effects::default());
        }

        let usage = count(&state);

        assert_eq!((usage.nodes, usage.services, usage.service_instances), (1, 4, 5));
        assert_eq!(usage.billable_service_instances, 4 - 1);
        let mesh: Vec<_> = usage.connect_service_instances.values().copied().collect();
        assert_eq!(mesh, [0, 1, 1, 0, 0, 0]);
    }
}
