//! `/v1/catalog`: the nodes and services of the cluster, and registering them from outside.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hyper::header::{self, HeaderName, HeaderValue};
use lictor_node::Topic;
use lictor_proto::v1::{NodeRow, ServiceRow};
use lictor_proto::{Command, v1};
use lictor_state::{Area, Outcome, State};

use crate::acl::{Access, Resource};
use crate::blocking::{self, ViewOf};
use crate::ctx::{Ctx, ReadOptions};
use crate::error::ApiError;
use crate::filter::{Field, Filter, Row, Validate, fields};
use crate::json;
use crate::list;
use crate::reply::Reply;
use crate::wire;

mod request;

/// Largest body of a registration.
const BODY_MAX_BYTES: usize = 512 * 1024;

/// `GET /v1/catalog/datacenters`: this one.
pub(crate) async fn datacenters(ctx: Ctx) -> Result<Reply, ApiError> {
    Ok(as_cached(
        &ctx,
        Reply::json(&[&ctx.shared.node.identity().datacenter]),
    ))
}

/// What Consul's agents also answer from a cache, with `?cached`. Here every answer comes from memory and is of this
/// moment: always a hit, of age zero.
fn as_cached(ctx: &Ctx, reply: Reply) -> Reply {
    if !ctx.query().has("cached") {
        return reply;
    }
    let hit = HeaderName::from_static("x-cache");
    reply
        .with_header(hit, HeaderValue::from_static("HIT"))
        .with_header(header::AGE, HeaderValue::from_static("0"))
}

/// `GET /v1/catalog/nodes`.
pub(crate) async fn nodes(ctx: Ctx) -> Result<Reply, ApiError> {
    let params = List::new(&ctx, fields::NODE)?;
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::Nodes).0,
        render: |state: &State| {
            let kept = state
                .nodes()
                .filter(|node| params.meta_matches(node) && params.keeps(&***node));
            let mut nodes: Vec<_> = kept.filter(|node| may_read_node(&ctx, node)).collect();
            params.put_near_first(&ctx, &mut nodes, |node| &node.node);
            list::of(nodes.into_iter().map(|node| ListedNode(Arc::clone(node))))
        },
    };
    params.read(&ctx, Topic::Row(Area::Nodes, b""), &view).await
}

/// `GET /v1/catalog/services`: names with the tags of all their instances.
pub(crate) async fn services(ctx: Ctx) -> Result<Reply, ApiError> {
    let params = List::new(&ctx, fields::CATALOG_SERVICE)?;
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::Services).0,
        render: |state: &State| {
            let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for service in state.services() {
                let Some(node) = state.node(&service.node) else {
                    continue;
                };
                if params.meta_matches(node)
                    && params.keeps(&fields::CatalogService { node, service })
                    && may_read_service(&ctx, service)
                {
                    names
                        .entry(&service.service)
                        .or_default()
                        .extend(service.tags.iter().map(String::as_str));
                }
            }
            Reply::json(&names)
        },
    };
    params
        .read_cached(&ctx, Topic::Row(Area::Services, b""), &view)
        .await
}

/// `GET /v1/catalog/service/:service`.
pub(crate) async fn service(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing service name")?;
    let params = List::new(&ctx, fields::CATALOG_SERVICE)?;
    let view = ViewOf {
        index: |state: &State| state.service_index(&name).0,
        render: |state: &State| {
            let mut instances = instances(&ctx, &params, state, &name);
            instances.retain(|(node, service)| params.keeps(&fields::CatalogService { node, service }));
            list::of(instances.into_iter().map(|(node, service)| Instance {
                node: Arc::clone(node),
                service: Arc::clone(service),
            }))
        },
    };
    params
        .read_cached(
            &ctx,
            Topic::Row(Area::Service, name.to_lowercase().as_bytes()),
            &view,
        )
        .await
}

/// `GET /v1/catalog/node/:node`: `null` for one that is not there.
pub(crate) async fn node(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing node name")?;
    let params = List::new(&ctx, fields::SERVICE)?;
    let view = ViewOf {
        index: |state: &State| state.node_index(&name).0,
        render: |state: &State| {
            let Some(node) = find_node(&ctx, state, &name) else {
                return Reply::json(&());
            };
            let mut services: Vec<_> = services_on(&ctx, &params, state, node).collect();
            services.sort_by(|a, b| a.id.cmp(&b.id));
            let mut head = b"{\"Node\":".to_vec();
            json::push(&mut head, &wire::Node::of(node));
            head.extend_from_slice(b",\"Services\":{");
            let services = services
                .into_iter()
                .map(|service| NamedService(Arc::clone(service)));
            list::within(head, services, &b"}}"[..])
        },
    };
    params
        .read(
            &ctx,
            Topic::Row(Area::Node, name.to_lowercase().as_bytes()),
            &view,
        )
        .await
}

/// `GET /v1/catalog/node-services/:node`: the same with the services as a list.
pub(crate) async fn node_services(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = wanted(&ctx, "Missing node name")?;
    let params = List::new(&ctx, fields::SERVICE)?;
    let view = ViewOf {
        index: |state: &State| state.node_index(&name).0,
        render: |state: &State| {
            let Some(node) = find_node(&ctx, state, &name) else {
                return Reply::json_bytes(&b"{\"Node\":null,\"Services\":null}"[..]);
            };
            let mut services = services_on(&ctx, &params, state, node).peekable();
            let mut head = b"{\"Node\":".to_vec();
            json::push(&mut head, &wire::Node::of(node));
            if services.peek().is_none() {
                head.extend_from_slice(b",\"Services\":null}");
                return Reply::json_bytes(head);
            }
            head.extend_from_slice(b",\"Services\":[");
            let services = services.map(|service| ListedService(Arc::clone(service)));
            list::within(head, services, &b"]}"[..])
        },
    };
    params
        .read(
            &ctx,
            Topic::Row(Area::Node, name.to_lowercase().as_bytes()),
            &view,
        )
        .await
}

/// `GET /v1/catalog/connect/:service`: this server has no mesh, so that no service has a proxy.
pub(crate) async fn no_mesh(ctx: Ctx) -> Result<Reply, ApiError> {
    wanted(&ctx, "Missing service name")?;
    let params = List::new(&ctx, fields::CATALOG_SERVICE)?;
    none_of_a_mesh(&ctx, &params).await
}

/// An empty list, with the index of the services.
pub(super) async fn none_of_a_mesh(ctx: &Ctx, params: &List) -> Result<Reply, ApiError> {
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::Services).0,
        render: |_: &State| Reply::json_bytes(&b"[]"[..]),
    };
    params
        .read_cached(ctx, Topic::Row(Area::Services, b""), &view)
        .await
}

/// `PUT /v1/catalog/register`.
pub(crate) async fn register(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let body = ctx.body(BODY_MAX_BYTES).await?;
    let own = &ctx.shared.node.identity().datacenter;
    let register = request::register(&body, own)?;
    ctx.check_datacenter()?;
    if let Some(node) = &register.node {
        ctx.authorize(Resource::Node(&node.node), Access::Write)?;
    }
    if let Some(service) = &register.service {
        ctx.authorize(Resource::Service(&service.service), Access::Write)?;
    }
    apply(&ctx, Command::Register(register)).await
}

/// `PUT /v1/catalog/deregister`: true for what is not there, too.
pub(crate) async fn deregister(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let body = ctx.body(BODY_MAX_BYTES).await?;
    let own = &ctx.shared.node.identity().datacenter;
    let deregister = request::deregister(&body, own)?;
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Node(&deregister.node), Access::Write)?;
    apply(&ctx, Command::Deregister(deregister)).await
}

async fn apply(ctx: &Ctx, command: Command) -> Result<Reply, ApiError> {
    match ctx.shared.node.propose(command).await? {
        Outcome::Failed(error) => Err(error.into()),
        _ => Ok(Reply::bool(true)),
    }
}

/// What the lists of catalog and health have in common: read options, filter, node metadata, tags and nearness.
pub(super) struct List {
    options: ReadOptions,
    filter: Filter,
    meta: Vec<(String, String)>,
    tags: Vec<String>,
    near: Option<String>,
}

impl List {
    /// Reads the parameters.
    ///
    /// # Errors
    /// 400 and 500 in Consul's words; those that Consul finds behind its read gate carry the headers of a failed read.
    pub(super) fn new(ctx: &Ctx, fields: &'static [Field]) -> Result<Self, ApiError> {
        Self::parse(ctx, fields, ApiError::with_failed_read_headers)
    }

    /// The same for `/v1/health/service`, which has another read path in Consul: no error carries headers.
    ///
    /// # Errors
    /// 400 and 500 in Consul's words.
    pub(super) fn bare(ctx: &Ctx, fields: &'static [Field]) -> Result<Self, ApiError> {
        Self::parse(ctx, fields, std::convert::identity)
    }

    fn parse(ctx: &Ctx, fields: &'static [Field], dress: fn(ApiError) -> ApiError) -> Result<Self, ApiError> {
        ctx.refuse_paid_features()?;
        let options = ctx.read_options()?;
        ctx.check_datacenter().map_err(dress)?;
        let query = ctx.query();
        let text = |value: Cow<'_, [u8]>| String::from_utf8_lossy(&value).into_owned();
        let filter = Filter::new(
            &query.text("filter").unwrap_or_default(),
            fields,
            Validate::Always,
        )
        .map_err(|error| dress(ApiError::internal(error.to_string())))?;
        let meta = query
            .all("node-meta")
            .map(text)
            .map(|pair| match pair.split_once(':') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (pair, String::new()),
            });
        Ok(Self {
            options,
            filter,
            meta: meta.collect(),
            tags: query.all("tag").map(text).collect(),
            near: query.non_empty("near").map(Cow::into_owned),
        })
    }

    /// The same without the wish for nodes with certain metadata.
    pub(super) fn without_meta(mut self) -> Self {
        self.meta.clear();
        self
    }

    /// Whether the filter keeps a row. It was compared with the row's fields before, so that it cannot fail here.
    pub(super) fn keeps(&self, row: &dyn Row) -> bool {
        self.filter.keep(row).unwrap_or(false)
    }

    pub(super) fn meta_matches(&self, node: &NodeRow) -> bool {
        self.meta
            .iter()
            .all(|(key, value)| node.meta.get(key) == Some(value))
    }

    /// Whether a service has all tags that were asked for, in any letter case.
    fn tags_match(&self, service: &ServiceRow) -> bool {
        self.tags
            .iter()
            .all(|wanted| service.tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted)))
    }

    /// Without network coordinates only the node that was named is known to be near.
    pub(super) fn put_near_first<T>(&self, ctx: &Ctx, rows: &mut [T], node: impl Fn(&T) -> &str) {
        let Some(near) = &self.near else { return };
        let near = if near == "_agent" {
            ctx.agent_node()
        } else {
            near.as_str()
        };
        rows.sort_by_key(|row| !node(row).eq_ignore_ascii_case(near));
    }

    /// Answers, after waiting if the client asked for that.
    ///
    /// # Errors
    /// Those of [`blocking::read`].
    pub(super) async fn read(
        &self,
        ctx: &Ctx,
        topic: Topic<'_>,
        view: &impl blocking::View,
    ) -> Result<Reply, ApiError> {
        let reply = blocking::read(ctx, self.options, &[topic], view).await?;
        Ok(reply.with_effective_consistency(self.options.effective_consistency()))
    }

    /// The same for lists that [`as_cached`] is about.
    ///
    /// # Errors
    /// Those of [`blocking::read`].
    pub(super) async fn read_cached(
        &self,
        ctx: &Ctx,
        topic: Topic<'_>,
        view: &impl blocking::View,
    ) -> Result<Reply, ApiError> {
        Ok(as_cached(ctx, self.read(ctx, topic, view).await?))
    }
}

#[derive(Debug)]
struct ListedNode(Arc<NodeRow>);

impl list::Entry for ListedNode {
    fn push(&self, out: &mut Vec<u8>) {
        json::push(out, &wire::Node::of(&self.0));
    }
}

#[derive(Debug)]
struct ListedService(Arc<ServiceRow>);

impl list::Entry for ListedService {
    fn push(&self, out: &mut Vec<u8>) {
        json::push(out, &wire::Service::listed(&self.0));
    }
}

/// A service behind its id, as a field of an object.
#[derive(Debug)]
struct NamedService(Arc<ServiceRow>);

impl list::Entry for NamedService {
    fn push(&self, out: &mut Vec<u8>) {
        json::push_str(out, self.0.id.as_bytes());
        out.push(b':');
        json::push(out, &wire::Service::listed(&self.0));
    }
}

/// A service with its node.
#[derive(Debug)]
struct Instance {
    node: Arc<NodeRow>,
    service: Arc<ServiceRow>,
}

impl list::Entry for Instance {
    fn push(&self, out: &mut Vec<u8>) {
        json::push(out, &wire::catalog::CatalogService::of(&self.node, &self.service));
    }
}

/// The instances of a service that parameters and permissions leave, with their nodes; the filter is still to come.
pub(super) fn instances<'a>(
    ctx: &Ctx,
    params: &List,
    state: &'a State,
    name: &str,
) -> Vec<(&'a Arc<NodeRow>, &'a Arc<ServiceRow>)> {
    let mut instances: Vec<_> = state
        .services_named(name)
        .filter(|service| params.tags_match(service) && may_read_service(ctx, service))
        .filter_map(|service| Some((state.node(&service.node)?, service)))
        .filter(|(node, _)| params.meta_matches(node))
        .collect();
    params.put_near_first(ctx, &mut instances, |(node, _)| &node.node);
    instances
}

fn find_node<'a>(ctx: &Ctx, state: &'a State, name: &str) -> Option<&'a Arc<NodeRow>> {
    state
        .node(name)
        .or_else(|| state.node_by_id(name))
        .filter(|node| may_read_node(ctx, node))
}

fn services_on<'a>(
    ctx: &'a Ctx,
    params: &'a List,
    state: &'a State,
    node: &'a NodeRow,
) -> impl Iterator<Item = &'a Arc<ServiceRow>> {
    state
        .services_of_node(&node.node)
        .filter(|service| params.keeps(&***service) && may_read_service(ctx, service))
}

fn may_read_node(ctx: &Ctx, node: &NodeRow) -> bool {
    ctx.authorize(Resource::Node(&node.node), Access::Read).is_ok()
}

fn may_read_service(ctx: &Ctx, service: &v1::ServiceRow) -> bool {
    ctx.authorize(Resource::Service(&service.service), Access::Read)
        .is_ok()
}

/// The name behind the route.
///
/// # Errors
/// 400 without one, and for options that cannot be.
pub(super) fn wanted(ctx: &Ctx, missing: &'static str) -> Result<String, ApiError> {
    match ctx.param_text() {
        name if name.is_empty() => {
            // What is wrong with the options is told first.
            ctx.refuse_paid_features()?;
            ctx.read_options()?;
            Err(ApiError::bad_request(missing))
        }
        name => Ok(name.into_owned()),
    }
}
