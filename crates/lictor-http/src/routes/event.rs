//! `/v1/event`: firing events and listing what arrived.

use base64_simd::STANDARD;
use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use lictor_agent::Event;
use lictor_proto::v1::UserEvent;
use prost::Message as _;
use regex::Regex;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use crate::acl::{Access, Resource};
use crate::blocking;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter;
use crate::reply::Reply;
use crate::server::Shared;

/// Largest name and payload of an event together, in bytes (Consul: serf's `UserEventSizeLimit`).
const EVENT_MAX_BYTES: usize = 512;
/// Largest filters of an event together, in bytes. Every agent keeps the last events with theirs.
const FILTERS_MAX_BYTES: usize = 512;

/// An event as Consul shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    #[serde(rename = "ID")]
    id: String,
    name: &'a str,
    payload: Option<String>,
    node_filter: &'a str,
    service_filter: &'a str,
    tag_filter: &'a str,
    version: u8,
    #[serde(rename = "LTime")]
    ltime: u64,
}

impl<'a> Shown<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            id: event.id.to_string(),
            name: &event.name,
            payload: (!event.payload.is_empty()).then(|| STANDARD.encode_to_string(&event.payload)),
            node_filter: &event.node_filter,
            service_filter: &event.service_filter,
            tag_filter: &event.tag_filter,
            version: 1,
            ltime: event.ltime,
        }
    }
}

/// `PUT /v1/event/fire/:name`.
pub(crate) async fn fire(mut ctx: Ctx) -> Result<Reply, ApiError> {
    let name = ctx.param_text().into_owned();
    if name.is_empty() {
        return Err(ApiError::bad_request("Missing name"));
    }
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Event(&name), Access::Write)?;
    let filters = Filters::read(&ctx)?;
    let payload = ctx.body(64 * 1024).await?;
    if name.len() + payload.len() > EVENT_MAX_BYTES || filters.len() > FILTERS_MAX_BYTES {
        let text = format!(
            "error broadcasting event: user event exceeds configured limit of {EVENT_MAX_BYTES} bytes before encoding"
        );
        return Err(ApiError::internal(text));
    }
    let matches = filters.match_this_agent(&ctx.shared);
    let event = Event {
        id: uuid::Uuid::new_v4(),
        name,
        payload,
        node_filter: filters.node,
        service_filter: filters.service,
        tag_filter: filters.tag,
        ltime: 0,
    };
    let reply = Reply::json(&Shown::of(&event));
    ctx.shared
        .node
        .broadcast(&to_message(&event).encode_to_vec().into());
    if matches {
        ctx.shared.agent.events().receive(event);
    }
    Ok(reply)
}

fn to_message(event: &Event) -> UserEvent {
    UserEvent {
        id: event.id.as_bytes().to_vec().into(),
        name: event.name.clone(),
        payload: event.payload.clone(),
        node_filter: event.node_filter.clone(),
        service_filter: event.service_filter.clone(),
        tag_filter: event.tag_filter.clone(),
    }
}

/// Takes in what is fired at other servers; never ends by itself.
pub(crate) async fn hear(shared: &Shared) {
    let mut heard = shared.node.heard();
    loop {
        match heard.recv().await {
            Ok(message) => take_in(shared, message),
            // As with Consul's gossip: an event may be lost.
            Err(RecvError::Lagged(count)) => tracing::warn!(count, "user events were lost"),
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn take_in(shared: &Shared, message: Bytes) {
    if let Some((event, filters)) = from_message(message)
        && filters.match_this_agent(shared)
    {
        shared.agent.events().receive(event);
    }
}

/// An event of another server; `None` for anything else.
fn from_message(message: Bytes) -> Option<(Event, Filters)> {
    let message = UserEvent::decode(message).ok()?;
    let is_small = message.name.len() + message.payload.len() <= EVENT_MAX_BYTES;
    let id = uuid::Uuid::from_slice(&message.id).ok().filter(|_| is_small)?;
    let filters = Filters::new(message.node_filter, message.service_filter, message.tag_filter).ok()?;
    if filters.len() > FILTERS_MAX_BYTES {
        return None;
    }
    let event = Event {
        id,
        name: message.name,
        payload: message.payload,
        node_filter: filters.node.clone(),
        service_filter: filters.service.clone(),
        tag_filter: filters.tag.clone(),
        ltime: 0,
    };
    Some((event, filters))
}

/// `GET /v1/event/list`: waits while the newest event is the one whose index the client has.
pub(crate) async fn list(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.wait_options()?;
    let query = ctx.query();
    let name = query.text("name").unwrap_or_default();
    let mut changed = ctx.shared.agent.events().watch();
    let mut patience = blocking::Patience::new(&ctx, options.wait);
    loop {
        changed.borrow_and_update();
        let events = ctx.shared.agent.events().list(&name);
        let index = events.last().map_or(1, Event::index);
        let is_news = options.min_index == 0 || options.min_index != index;
        if is_news || patience.is_over() {
            let readable = events
                .iter()
                .filter(|event| ctx.authorize(Resource::Event(&event.name), Access::Read).is_ok());
            let shown: Vec<_> = readable.map(Shown::of).collect();
            let index_header = HeaderName::from_static("x-consul-index");
            return Ok(Reply::json(&shown).with_header(index_header, HeaderValue::from(index)));
        }
        tokio::select! {
            _ = changed.changed() => {}
            over = patience.run_out() => over?,
        }
    }
}

/// For whom an event is: regular expressions, empty for everybody.
#[derive(Debug)]
struct Filters {
    node: String,
    service: String,
    tag: String,
    patterns: [Option<Regex>; 3],
}

impl Filters {
    fn read(ctx: &Ctx) -> Result<Self, ApiError> {
        let text = |name: &str| ctx.query().text(name).unwrap_or_default().into_owned();
        Self::new(text("node"), text("service"), text("tag"))
    }

    fn new(node: String, service: String, tag: String) -> Result<Self, ApiError> {
        if !tag.is_empty() && service.is_empty() {
            return Err(ApiError::internal(
                "Cannot provide tag filter without service filter",
            ));
        }
        let patterns = [
            pattern(&node, "node")?,
            pattern(&service, "service")?,
            pattern(&tag, "tag")?,
        ];
        Ok(Self {
            node,
            service,
            tag,
            patterns,
        })
    }

    fn len(&self) -> usize {
        self.node.len() + self.service.len() + self.tag.len()
    }

    fn match_this_agent(&self, shared: &Shared) -> bool {
        let [node, service, tag] = &self.patterns;
        let is_match =
            |pattern: &Option<Regex>, text: &str| pattern.as_ref().is_none_or(|p| p.is_match(text));
        is_match(node, &shared.node.identity().node)
            && (service.is_none()
                || shared.agent.services().iter().any(|row| {
                    is_match(service, &row.service)
                        && (tag.is_none() || row.tags.iter().any(|t| is_match(tag, t)))
                }))
    }
}

fn pattern(text: &str, what: &str) -> Result<Option<Regex>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    filter::pattern(text)
        .map(Some)
        .map_err(|why| ApiError::internal(format!("Invalid {what} filter: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reaches_another_server_as_it_was_fired() {
        let event = Event {
            id: uuid::Uuid::from_u128(7),
            name: "deploy".to_owned(),
            payload: Bytes::from_static(b"x"),
            node_filter: "^n".to_owned(),
            service_filter: "web".to_owned(),
            tag_filter: "v1".to_owned(),
            ltime: 0,
        };
        let message = |event: &Event| Bytes::from(to_message(event).encode_to_vec());

        let (heard, _) = from_message(message(&event)).unwrap();

        assert_eq!(heard, event);
        let huge = Event {
            payload: vec![0; EVENT_MAX_BYTES].into(),
            ..event.clone()
        };
        let picky = Event {
            node_filter: "n".repeat(FILTERS_MAX_BYTES),
            ..event.clone()
        };
        let wild = Event {
            node_filter: "(".to_owned(),
            ..event
        };
        assert!(from_message(message(&huge)).is_none());
        assert!(from_message(message(&picky)).is_none());
        assert!(from_message(message(&wild)).is_none());
        assert!(from_message(Bytes::from_static(b"junk")).is_none());
    }
}
