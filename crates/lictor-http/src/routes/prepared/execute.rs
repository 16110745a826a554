//! Finding the query for a name, and what it answers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use lictor_proto::go;
use lictor_proto::v1::{CheckRow, NodeRow, PreparedQueryRow, ServiceRow};
use lictor_state::State;
use serde::Serialize;

use super::definition::{Definition, Dns, Service, Shown};
use super::{not_found, parse_id, template};
use crate::acl::{Access, Resource};
use crate::blocking;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::{Meta, Reply};
use crate::routes::read_facts::ReadFacts;
use crate::wire;

/// How far down the list the node is looked for that results are wanted near to (Consul: the depth of its search).
const NEAR_DEPTH: usize = 10;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Executed<'a> {
    service: &'a str,
    nodes: Vec<wire::catalog::ServiceHealth<'a>>,
    #[serde(rename = "DNS")]
    dns: &'a Dns,
    datacenter: &'a str,
    peer_name: &'static str,
    failovers: u32,
    #[serde(flatten)]
    read: ReadFacts,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Explained<'a> {
    query: Shown<'a>,
    #[serde(flatten)]
    read: ReadFacts,
}

/// `GET /v1/query/:id-or-name/execute`.
pub(super) async fn execute(ctx: Ctx, name: &str) -> Result<Reply, ApiError> {
    let (query, near) = (ctx.query(), ctx.query().non_empty("near"));
    let limit = match query.non_empty("limit") {
        None => 0,
        Some(text) => text.parse::<i64>().map_err(|_| bad_limit(&text))?,
    };
    let (facts, meta, row, definition) = resolve(&ctx, name).await?;
    let mut service = definition.service;
    service.connect |= query.text("connect").is_some_and(|text| &*text == "true");
    let view = ctx.shared.node.view();
    let mut found = instances(&view, &service, &|service| {
        ctx.authorize(Resource::Service(service), Access::Read).is_ok()
    });
    let near = near.unwrap_or(Cow::Borrowed(&service.near));
    put_near_first(
        &mut found,
        if near == "_agent" { ctx.agent_node() } else { &near },
    );
    if let Ok(limit @ 1..) = usize::try_from(limit) {
        found.truncate(limit);
    }
    tracing::trace!(query = row.name, count = found.len(), "executed a prepared query");
    let executed = Executed {
        service: &service.service,
        nodes: found.iter().map(Instance::shown).collect(),
        dns: &definition.dns,
        datacenter: &ctx.shared.node.identity().datacenter,
        peer_name: "",
        failovers: 0,
        read: facts,
    };
    Ok(Reply::json(&executed).with_meta(meta))
}

/// `GET /v1/query/:id-or-name/explain`.
pub(super) async fn explain(ctx: Ctx, name: &str) -> Result<Reply, ApiError> {
    let (facts, meta, row, definition) = resolve(&ctx, name).await?;
    let explained = Explained {
        query: Shown::of(&row, &definition),
        read: facts,
    };
    Ok(Reply::json(&explained).with_meta(meta))
}

fn bad_limit(text: &str) -> ApiError {
    let quoted = go::quote(text.as_bytes());
    ApiError::internal(format!(
        "Bad limit: strconv.Atoi: parsing {quoted}: invalid syntax"
    ))
}

/// The query for an id or name, rendered if it is a template.
async fn resolve(
    ctx: &Ctx,
    name: &str,
) -> Result<(ReadFacts, Meta, Arc<PreparedQueryRow>, Definition), ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    let meta = blocking::gate(&ctx.shared.node, options.consistency).await?;
    let view = ctx.shared.node.view();
    let by_id = parse_id(name)
        .ok()
        .and_then(|id| view.prepared_query(id.as_bytes()));
    if by_id.is_some_and(|row| row.is_template) {
        let text = "prepared query templates can only be resolved up by name, not by ID";
        return Err(ApiError::internal(text).with_failed_read_headers());
    }
    let row = by_id
        .or_else(|| view.prepared_query_for(name))
        .ok_or_else(not_found)?;
    let mut definition = Definition::of(row);
    if row.is_template {
        definition = template::render(row, &definition, name)
            .map_err(|why| ApiError::internal(why).with_failed_read_headers())?;
    }
    let facts = ReadFacts::new(1, options, meta);
    let mut meta = Meta::new(1, meta);
    meta.effective_consistency = Some(options.effective_consistency());
    Ok((facts, meta, Arc::clone(row), definition))
}

/// An instance with the checks of its node and its own.
struct Instance<'a> {
    node: &'a NodeRow,
    service: &'a ServiceRow,
    checks: Vec<&'a CheckRow>,
}

impl Instance<'_> {
    fn shown(&self) -> wire::catalog::ServiceHealth<'_> {
        wire::catalog::ServiceHealth {
            node: wire::Node::of(self.node),
            service: wire::Service::listed(self.service),
            checks: self
                .checks
                .iter()
                .map(|check| wire::Check::listed(check))
                .collect(),
        }
    }
}

/// The instances that are healthy enough and have what the query asks for, in random order.
fn instances<'a>(state: &'a State, query: &Service, is_readable: &dyn Fn(&str) -> bool) -> Vec<Instance<'a>> {
    if query.connect {
        // There is no mesh.
        return Vec::new();
    }
    let found = state.services_named(&query.service).filter_map(|service| {
        let node = state.node(&service.node)?;
        let is_wanted = has_all(query.node_meta.as_ref(), &node.meta)
            && has_all(query.service_meta.as_ref(), &service.meta)
            && tags_match(query, service)
            && is_readable(&service.service);
        let of_node = state.checks_of_service(&node.node, "");
        let of_service = state.checks_of_service(&node.node, &service.id);
        let checks: Vec<&CheckRow> = of_node.chain(of_service).map(|check| &**check).collect();
        (is_wanted && is_healthy(query, &checks)).then_some(Instance {
            node,
            service,
            checks,
        })
    });
    let mut found: Vec<_> = found.collect();
    // Clients that take the first spread over all.
    let random = RandomState::new();
    found.sort_by_cached_key(|instance| random.hash_one((&instance.node.node, &instance.service.id)));
    found
}

fn has_all(wanted: Option<&BTreeMap<String, String>>, meta: &BTreeMap<String, String>) -> bool {
    let mut wanted = wanted.into_iter().flatten();
    wanted.all(|(key, value)| meta.get(key) == Some(value))
}

fn is_healthy(query: &Service, checks: &[&CheckRow]) -> bool {
    checks.iter().all(|check| {
        let is_ignored = query
            .ignore_check_ids
            .iter()
            .flatten()
            .any(|id| *id == check.check_id);
        is_ignored || check.status == "passing" || (!query.only_passing && check.status != "critical")
    })
}

/// Whether a service has all tags that are asked for and none that begins with `!` there, in any letter case.
fn tags_match(query: &Service, service: &ServiceRow) -> bool {
    query.tags.iter().flatten().all(|tag| {
        let (wanted, tag) = match tag.strip_prefix('!') {
            Some(tag) => (false, tag),
            None => (true, tag.as_str()),
        };
        let has = service
            .tags
            .iter()
            .any(|own| own.to_lowercase() == tag.to_lowercase());
        has == wanted
    })
}

/// Without network coordinates only the node that was named is known to be near.
fn put_near_first(found: &mut [Instance<'_>], near: &str) {
    let at = found
        .iter()
        .take(NEAR_DEPTH)
        .position(|instance| instance.node.node == near);
    if let Some(at) = at {
        found.swap(0, at);
    }
}
