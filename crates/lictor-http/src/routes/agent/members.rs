//! `/v1/agent/members` and what makes members come and go.

use lictor_proto::RaftId;
use lictor_proto::v1::{CheckRow, NodeRow, ServerRow};

use crate::acl::{Access, Resource};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter::{Field, Filter, Kind, Row, Validate, Value};
use crate::reply::Reply;
use crate::wire::agent::Member;

/// The check that says whether a node lives.
const SERF_HEALTH: &str = "serfHealth";

const FIELDS: &[Field] = &[
    Field::new("Name", Kind::Text),
    Field::new("Addr", Kind::Text),
    Field::new("Port", Kind::Number),
    Field::new("Tags", Kind::Map),
    Field::new("Status", Kind::Number),
    Field::new("ProtocolMin", Kind::Number),
    Field::new("ProtocolMax", Kind::Number),
    Field::new("ProtocolCur", Kind::Number),
    Field::new("DelegateMin", Kind::Number),
    Field::new("DelegateMax", Kind::Number),
    Field::new("DelegateCur", Kind::Number),
];

impl Row for Member {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "Name" => Value::Text(&self.name),
            "Addr" => Value::Text(&self.addr),
            "Port" => Value::Number(self.port.into()),
            "Tags" => Value::Map(&self.tags),
            "Status" => Value::Number(self.status.into()),
            "ProtocolMin" => Value::Number(self.protocol_min.into()),
            "ProtocolMax" => Value::Number(self.protocol_max.into()),
            "ProtocolCur" => Value::Number(self.protocol_cur.into()),
            "DelegateMin" => Value::Number(self.delegate_min.into()),
            "DelegateMax" => Value::Number(self.delegate_max.into()),
            "DelegateCur" => Value::Number(self.delegate_cur.into()),
            _ => return None,
        })
    }
}

/// `GET /v1/agent/members`: all servers and client agents. Who is alive is what the leader last wrote of it, so that this
/// needs no leader.
pub(crate) async fn members(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let query = ctx.query();
    let segment = query.non_empty("segment");
    // `_all` is what clients send who know nothing of segments.
    if segment.is_some_and(|segment| *segment != *"_all") {
        return Err(ApiError::internal(
            "Network segments are not supported in this version of Consul",
        ));
    }
    let filter = Filter::new(
        &query.text("filter").unwrap_or_default(),
        FIELDS,
        Validate::Always,
    )
    .map_err(|error| ApiError::internal(error.to_string()))?;
    let is_readable = |member: &Member| ctx.authorize(Resource::Node(&member.name), Access::Read).is_ok();
    let mut members = if query.has("wan") {
        wan_members(&ctx)
    } else {
        all_members(&ctx)
    };
    members.retain(is_readable);
    members.retain(|member| filter.keep(member).unwrap_or(false));
    Ok(Reply::json(&members))
}

/// This agent, the servers and the client agents, those included that left in order.
fn all_members(ctx: &Ctx) -> Vec<Member> {
    let node = &ctx.shared.node;
    let roster = node.roster();
    let others = roster
        .servers()
        .filter(|server| server.raft_id != node.raft_id().0);
    let others = others.map(|server| other_member(ctx, server));
    let agents = node.client_agents();
    let agents = agents.iter().map(|agent| {
        let status = if is_failed(ctx, &agent.node) {
            FAILED
        } else {
            ALIVE
        };
        client_member(ctx, agent, status)
    });
    let left = node.left_agents();
    let left = left.iter().map(|agent| client_member(ctx, agent, LEFT));
    std::iter::once(this_member(ctx))
        .chain(others)
        .chain(agents)
        .chain(left)
        .collect()
}

/// How many members there are, those that failed and left included.
pub(super) fn lan_stats(ctx: &Ctx) -> serde_json::Value {
    let members = all_members(ctx);
    let count = |status| {
        members
            .iter()
            .filter(|member| member.status == status)
            .count()
            .to_string()
    };
    serde_json::json!({"members": members.len().to_string(), "failed": count(FAILED), "left": count(LEFT)})
}

/// The servers of all datacenters that are known here, each with its datacenter behind its name.
fn wan_members(ctx: &Ctx) -> Vec<Member> {
    let datacenter = &ctx.shared.node.identity().datacenter;
    let own = all_members(ctx).into_iter().filter(|member| !member.is_client());
    let own = own.map(|mut member| {
        member.name = format!("{}.{datacenter}", member.name);
        member
    });
    let foreigners = ctx.shared.node.foreigners();
    let foreigners = foreigners.iter().map(|foreigner| {
        let mut member = server_member(ctx, &foreigner.server);
        member.name = format!("{}.{}", foreigner.server.name, foreigner.datacenter);
        member.set_tag("dc", &foreigner.datacenter);
        member.status = if foreigner.is_alive { ALIVE } else { FAILED };
        member
    });
    own.chain(foreigners).collect()
}

/// A client agent as a member.
fn client_member(ctx: &Ctx, node: &NodeRow, status: u8) -> Member {
    let mut member = this_member(ctx);
    let client = node.client.as_ref();
    member.name.clone_from(&node.node);
    member.addr.clone_from(&node.address);
    member.port = client
        .and_then(|client| u16::try_from(client.port).ok())
        .unwrap_or_default();
    member.set_tag("id", &node.id);
    if let Some(client) = client {
        member.set_tag("build", format!("{}:", client.version));
    }
    make_client(&mut member);
    member.status = status;
    member
}

impl Member {
    fn is_client(&self) -> bool {
        self.tags.get("role").is_some_and(|role| role == CLIENT)
    }
}

/// The role of a client agent.
const CLIENT: &str = "node";

/// Leaves of a server's tags those of a client.
fn make_client(member: &mut Member) {
    for tag in ["bootstrap", "port", "raft_vsn"] {
        member.tags.remove(tag);
    }
    member.set_tag("role", CLIENT);
}

fn is_failed(ctx: &Ctx, node: &str) -> bool {
    let is_critical = |check: &CheckRow| check.status == "critical";
    let view = ctx.shared.node.view();
    view.check(node, SERF_HEALTH)
        .is_some_and(|check| is_critical(check))
}

/// Where Consul's servers meet those of other datacenters.
const SERF_WAN_PORT: u16 = 8302;
/// Serf's codes of what a member is.
const ALIVE: u8 = 1;
const LEFT: u8 = 3;
const FAILED: u8 = 4;

/// Another server of this datacenter as a member.
fn other_member(ctx: &Ctx, server: &ServerRow) -> Member {
    let mut member = server_member(ctx, server);
    if is_failed(ctx, &server.name) {
        member.status = FAILED;
    }
    member
}

/// A server that lives, as a member.
fn server_member(ctx: &Ctx, server: &ServerRow) -> Member {
    let mut member = this_member(ctx);
    // Whether it has founded a cluster alone is not known here.
    member.tags.remove("bootstrap");
    member.name.clone_from(&server.name);
    member.addr.clone_from(&server.address);
    // Where it may be joined as well: its other port is not known here.
    member.port = u16::try_from(server.port).unwrap_or_default();
    member.set_tag("id", &server.node_id);
    member.set_tag("port", server.port.to_string());
    member
}

/// This agent as a member.
pub(super) fn this_member(ctx: &Ctx) -> Member {
    let identity = ctx.shared.node.identity();
    let agent = &ctx.shared.agent;
    let text = |text: &str| text.to_owned();
    let version = text(agent.version());
    let mut tags = Vec::new();
    if ctx
        .shared
        .node
        .roster()
        .members()
        .is_sole_voter(ctx.shared.node.raft_id())
    {
        tags.push(("bootstrap", text("1")));
    }
    let mut member = Member {
        name: identity.node.clone(),
        addr: identity.address.clone(),
        port: agent.serf_lan_port(),
        tags: tags
            .into_iter()
            .chain([
                ("acls", text("0")),
                ("build", format!("{version}:")),
                ("dc", identity.datacenter.clone()),
                ("id", identity.node_id.clone()),
                ("port", identity.server_port.to_string()),
                ("raft_vsn", text("3")),
                ("role", text("consul")),
                ("segment", String::new()),
                ("vsn", text("2")),
                ("vsn_max", text("3")),
                ("vsn_min", text("2")),
            ])
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        status: ALIVE,
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    };
    if ctx.shared.node.is_client() {
        make_client(&mut member);
    }
    member
}

/// `PUT /v1/agent/join/:address`: joins this server, which has a cluster, to nobody else; who is a member of it is
/// joined already.
pub(crate) async fn join(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    may_administer(&ctx)?;
    let address = ctx.param_text();
    if ctx.query().has("wan") {
        return join_wan(&ctx, &address).await;
    }
    let own = &ctx.shared.node.identity().address;
    let is_own = *address == **own
        || address
            .rsplit_once(':')
            .is_some_and(|(host, port)| host == own && port.parse() == Ok(ctx.shared.agent.serf_lan_port()));
    if ctx.shared.node.is_client() {
        let joined = ctx.shared.node.join_at(&address).await;
        return joined
            .map(|()| Reply::empty_json())
            .map_err(|why| not_joined(&address, &why));
    }
    let roster = ctx.shared.node.roster();
    let mut servers = roster.servers();
    let mut is_member = || {
        servers.any(|server| {
            *address == *server.address
                || roster.address(RaftId(server.raft_id)).as_deref() == Some(&*address)
        })
    };
    if is_own || is_member() {
        return Ok(Reply::empty_json());
    }
    let why = if ctx.shared.node.leader().is_some() {
        "this server belongs to a cluster already; start the other one with -retry-join"
    } else {
        "this server joins the servers that it was started with (-retry-join)"
    };
    Err(not_joined(&address, why))
}

/// Makes this server and those of another datacenter known to each other.
async fn join_wan(ctx: &Ctx, address: &str) -> Result<Reply, ApiError> {
    let node = &ctx.shared.node;
    if node.is_client() {
        return Err(ApiError::internal("Must be a server to join a WAN cluster"));
    }
    let contact = match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) => {
            address.to_owned()
        }
        _ if address.contains(':') && !address.ends_with(']') => format!("[{address}]:{SERF_WAN_PORT}"),
        _ => format!("{address}:{SERF_WAN_PORT}"),
    };
    let joined = node.join_abroad(&contact).await;
    joined
        .map(|()| Reply::empty_json())
        .map_err(|why| not_joined(address, &why))
}

fn not_joined(address: &str, why: &str) -> ApiError {
    ApiError::internal(format!(
        "1 error occurred:\n\t* Failed to join {address}: {why}\n\n"
    ))
}

/// `PUT /v1/agent/force-leave/:node`: removes a server or a client agent that has failed. One that lives
/// stays, as it would come back at once in Consul. Nothing is left to prune.
pub(crate) async fn force_leave(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    may_administer(&ctx)?;
    let name = ctx.param_text();
    let is_known = |node: &NodeRow| node.node.eq_ignore_ascii_case(&name);
    if is_known(ctx.shared.agent.own_node()) {
        return Ok(Reply::empty_json());
    }
    if let Some(agent) = ctx
        .shared
        .node
        .client_agents()
        .iter()
        .find(|agent| is_known(agent))
    {
        if is_failed(&ctx, &agent.node) {
            ctx.shared.node.remove_agent((**agent).clone()).await?;
        }
        return Ok(Reply::empty_json());
    }
    let unknown = || ApiError::internal(format!("agent: No node found with name '{name}'"));
    // Servers have their datacenter behind their name where several datacenters are told apart.
    let datacenter = &ctx.shared.node.identity().datacenter;
    let bare = name.strip_suffix(&format!(".{datacenter}")).unwrap_or(&name);
    let roster = ctx.shared.node.roster();
    let mut servers = roster.servers();
    let server = servers.find(|server| server.name.eq_ignore_ascii_case(bare));
    let server = server.ok_or_else(unknown)?;
    let id = RaftId(server.raft_id);
    let census = ctx.shared.node.census().await?;
    let lives = census
        .servers
        .iter()
        .any(|health| health.raft_id == id.0 && health.alive);
    if !lives {
        ctx.shared.node.remove_member(id).await?;
    }
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/leave`: stops the agent in order; a client agent has left when this answers.
pub(crate) async fn leave(ctx: Ctx) -> Result<Reply, ApiError> {
    may_administer(&ctx)?;
    let departed = ctx.shared.node.depart().await;
    ctx.shared.agent.leave();
    departed.map_err(ApiError::internal)?;
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/reload`: reads the configuration files again.
pub(crate) async fn reload(ctx: Ctx) -> Result<Reply, ApiError> {
    may_administer(&ctx)?;
    let reloaded = ctx.shared.agent.request_reload().await;
    reloaded.map_err(ApiError::internal)?;
    Ok(Reply::empty_json())
}

fn may_administer(ctx: &Ctx) -> Result<(), ApiError> {
    ctx.authorize(Resource::Agent(&ctx.shared.node.identity().node), Access::Write)
}
