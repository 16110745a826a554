//! What a prepared query says: read from requests, kept as JSON, shown again.

use std::collections::BTreeMap;

use lictor_agent::decode::{DecodeError, Object};
use lictor_proto::go;
use lictor_proto::v1::PreparedQueryRow;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What Consul shows of a token to whom it is none of their business; not to be sent back.
const HIDDEN_TOKEN: &str = "<hidden>";

/// A query as a client sends it, with nothing checked yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) session: String,
    pub(super) definition: Definition,
}

/// All of a query but its id, name and session. Fields in Consul's order; what is `None` was `null` or absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Definition {
    token: String,
    pub(super) template: Template,
    pub(super) service: Service,
    #[serde(rename = "DNS")]
    pub(super) dns: Dns,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Template {
    /// Empty for a query that is no template.
    pub(super) r#type: String,
    pub(super) regexp: String,
    pub(super) remove_empty_tags: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(clippy::struct_field_names, reason = "the names that Consul's JSON has")]
pub(super) struct Service {
    pub(super) service: String,
    sameness_group: String,
    pub(super) failover: Failover,
    pub(super) only_passing: bool,
    #[serde(rename = "IgnoreCheckIDs")]
    pub(super) ignore_check_ids: Option<Vec<String>>,
    pub(super) near: String,
    pub(super) tags: Option<Vec<String>>,
    pub(super) node_meta: Option<BTreeMap<String, String>>,
    pub(super) service_meta: Option<BTreeMap<String, String>>,
    pub(super) connect: bool,
    peer: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Failover {
    nearest_n: i64,
    pub(super) datacenters: Option<Vec<String>>,
    targets: Option<Vec<Target>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Target {
    peer: String,
    datacenter: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Dns {
    #[serde(rename = "TTL")]
    ttl: String,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// What comes after `Request decode failed: `.
    pub(super) fn read(value: Value) -> Result<Self, DecodeError> {
        let mut query = Object::new(value, "PreparedQuery")?;
        let request = Self {
            id: query.text("ID")?,
            name: query.text("Name")?,
            session: query.text("Session")?,
            definition: Definition {
                token: query.text("Token")?,
                template: read_template(query.take("Template"))?,
                service: read_service(query.take("Service"))?,
                dns: read_dns(query.take("DNS"))?,
            },
        };
        query.skip(&["CreateIndex", "ModifyIndex"]);
        query.finish()?;
        Ok(request)
    }

    /// Checks what can be checked without the state.
    ///
    /// # Errors
    /// What comes after `Invalid prepared query: `, in Consul's order.
    pub(super) fn check(&self) -> Result<(), String> {
        let definition = &self.definition;
        if self.name.is_empty() && !definition.is_template() && self.session.is_empty() {
            return Err("Must be bound to a session".to_owned());
        }
        if definition.token == HIDDEN_TOKEN {
            return Err(format!(
                "Bad Token '{HIDDEN_TOKEN}', it looks like a query definition with a redacted token was submitted"
            ));
        }
        definition.service.check()?;
        definition.dns.check()
    }
}

impl Definition {
    /// That of a stored query. One that does not read, which nobody wrote, is the empty one.
    pub(super) fn of(row: &PreparedQueryRow) -> Self {
        serde_json::from_str(&row.definition_json).unwrap_or_default()
    }

    pub(super) fn to_json(&self) -> String {
        String::from_utf8(crate::json::to_vec(self)).unwrap_or_default()
    }

    pub(super) fn is_template(&self) -> bool {
        !self.template.r#type.is_empty()
    }
}

impl Service {
    fn check(&self) -> Result<(), String> {
        if self.service.is_empty() {
            return Err("Must provide a Service name to query".to_owned());
        }
        let failover = &self.failover;
        if failover.nearest_n < 0 {
            return Err(format!("Bad NearestN '{}', must be >= 0", failover.nearest_n));
        }
        let is_empty = |count: Option<usize>| count.unwrap_or_default() == 0;
        let names_datacenters =
            failover.nearest_n != 0 || !is_empty(failover.datacenters.as_ref().map(Vec::len));
        if names_datacenters && !is_empty(failover.targets.as_ref().map(Vec::len)) {
            return Err("Targets cannot be populated with NearestN or Datacenters".to_owned());
        }
        Ok(())
    }
}

impl Dns {
    fn check(&self) -> Result<(), String> {
        if self.ttl.is_empty() {
            return Ok(());
        }
        let nanos =
            go::parse_duration(&self.ttl).map_err(|why| format!("Bad DNS TTL '{}': {why}", self.ttl))?;
        if nanos < 0 {
            return Err(format!("DNS TTL '{nanos}', must be >=0"));
        }
        Ok(())
    }
}

fn read_template(value: Option<Value>) -> Result<Template, DecodeError> {
    let mut template = Object::new(value.unwrap_or_default(), "Template")?;
    let read = Template {
        r#type: template.text("Type")?,
        regexp: template.text("Regexp")?,
        remove_empty_tags: template.flag("RemoveEmptyTags")?,
    };
    template.finish()?;
    Ok(read)
}

fn read_service(value: Option<Value>) -> Result<Service, DecodeError> {
    let mut service = Object::new(value.unwrap_or_default(), "Service")?;
    let read = Service {
        service: service.text("Service")?,
        sameness_group: service.text("SamenessGroup")?,
        failover: read_failover(service.take("Failover"))?,
        only_passing: service.flag("OnlyPassing")?,
        ignore_check_ids: service.texts("IgnoreCheckIDs")?,
        near: service.text("Near")?,
        tags: service.texts("Tags")?,
        node_meta: service.text_map("NodeMeta")?,
        service_meta: service.text_map("ServiceMeta")?,
        connect: service.flag("Connect")?,
        peer: service.text("Peer")?,
    };
    service.finish()?;
    Ok(read)
}

fn read_failover(value: Option<Value>) -> Result<Failover, DecodeError> {
    let mut failover = Object::new(value.unwrap_or_default(), "Failover")?;
    let targets = failover.take("Targets");
    let targets = targets.map(|targets| -> Result<Vec<Target>, DecodeError> {
        let mut list = Object::new(serde_json::json!({ "Targets": targets }), "Failover")?;
        list.objects("Targets")?.into_iter().map(read_target).collect()
    });
    let read = Failover {
        nearest_n: failover.number("NearestN")?,
        datacenters: failover.texts("Datacenters")?,
        targets: targets.transpose()?,
    };
    failover.finish()?;
    Ok(read)
}

fn read_target(mut target: Object) -> Result<Target, DecodeError> {
    let read = Target {
        peer: target.text("Peer")?,
        datacenter: target.text("Datacenter")?,
    };
    target.finish()?;
    Ok(read)
}

fn read_dns(value: Option<Value>) -> Result<Dns, DecodeError> {
    let mut dns = Object::new(value.unwrap_or_default(), "DNS")?;
    let read = Dns {
        ttl: dns.text("TTL")?,
    };
    dns.finish()?;
    Ok(read)
}

/// A query as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Shown<'a> {
    #[serde(rename = "ID")]
    id: String,
    name: &'a str,
    session: &'a str,
    #[serde(flatten)]
    definition: &'a Definition,
    create_index: u64,
    modify_index: u64,
}

impl<'a> Shown<'a> {
    pub(super) fn of(row: &'a PreparedQueryRow, definition: &'a Definition) -> Self {
        Self {
            id: Uuid::from_slice(&row.id).unwrap_or_default().to_string(),
            name: &row.name,
            session: &row.session,
            definition,
            create_index: row.create_index,
            modify_index: row.modify_index,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_is_kept_as_it_was_sent() {
        let sent = json!({
            "Name": "q",
            "Service": {"Service": "web", "Tags": [], "NodeMeta": {"a": "b"}, "Failover": {"Targets": [{"Peer": "p"}]}},
            "Template": {"Type": "name_prefix_match"},
            "DNS": {"TTL": "10s"},
        });
        let request = Request::read(sent).unwrap();
        let row = PreparedQueryRow {
            definition_json: request.definition.to_json(),
            ..PreparedQueryRow::default()
        };

        let back = Definition::of(&row);

        assert_eq!(back, request.definition);
        assert_eq!(back.service.tags, Some(Vec::new()));
        assert_eq!(back.service.ignore_check_ids, None);
        assert_eq!(request.check(), Ok(()));
    }

    #[test]
    fn names_that_no_query_has_are_refused() {
        for (sent, name) in [
            (json!({"Junk": 1}), "Junk"),
            (json!({"Service": {"Foo": 1}}), "Foo"),
            (json!({"Service": {"Failover": {"Targets": [{"Bar": 1}]}}}), "Bar"),
        ] {
            let error = Request::read(sent).unwrap_err();
            assert_eq!(error.to_string(), format!("json: unknown field \"{name}\""));
        }
        assert!(Request::read(json!({"Service": {"Failover": {"Targets": 1}}})).is_err());
    }
}
