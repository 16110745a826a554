//! The bodies of catalog registrations.

use lictor_proto::v1::{CheckRow, Deregister, NodeRow, Register, ServiceRow};
use serde_json::{Map, Value};

use crate::decode;
use crate::error::ApiError;
use crate::rows::{
    ServiceFault, check_row, flag, node_id_fault, object, service_fault, service_row, string_map,
    unknown_field,
};

/// Reads the body of `/v1/catalog/register`.
///
/// # Errors
/// 400 for what does not decode, 500 for what is missing, in Consul's words.
pub(super) fn register(body: &[u8], datacenter: &str) -> Result<Register, ApiError> {
    let mut asked = decode_register(body).map_err(|why| ApiError::decode(&why))?;
    if asked.node.node.is_empty() {
        return Err(ApiError::internal("Must provide node"));
    }
    if asked.node.address.is_empty() && !asked.skip_node_update {
        return Err(ApiError::internal(
            "Must provide address if SkipNodeUpdate is not set",
        ));
    }
    check_node_id(&asked.node.id)?;
    check_datacenter(&asked.node.datacenter, datacenter)?;
    datacenter.clone_into(&mut asked.node.datacenter);
    let service = asked
        .service
        .map(|service| of_node(service, &asked.node.node))
        .transpose()?;
    let checks = asked
        .checks
        .into_iter()
        .map(|check| check_of_node(check, &asked.node.node));
    Ok(Register {
        checks: checks.collect::<Result<_, _>>()?,
        service,
        node: Some(asked.node),
        skip_node_update: asked.skip_node_update,
    })
}

/// Reads the body of `/v1/catalog/deregister`.
///
/// # Errors
/// As for [`register`].
pub(super) fn deregister(body: &[u8], datacenter: &str) -> Result<Deregister, ApiError> {
    let (mut asked, of_datacenter) = decode_deregister(body).map_err(|why| ApiError::decode(&why))?;
    if asked.node.is_empty() {
        return Err(ApiError::internal("Must provide node"));
    }
    check_datacenter(&of_datacenter, datacenter)?;
    // A service goes with its checks.
    if !asked.service_id.is_empty() {
        asked.check_id.clear();
    }
    Ok(asked)
}

#[derive(Debug, Default)]
struct Asked {
    node: NodeRow,
    service: Option<ServiceRow>,
    checks: Vec<CheckRow>,
    skip_node_update: bool,
}

fn fields(body: &[u8]) -> Result<Map<String, Value>, String> {
    object(decode::value(&decode::text(body))?, "request")
}

fn decode_register(body: &[u8]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    asked.node.tagged_addresses_null = true;
    asked.node.meta_null = true;
    for (name, value) in fields(body)? {
        let node = &mut asked.node;
        match name.to_ascii_lowercase().as_str() {
            "id" => node.id = decode::string(value, &name)?,
            "node" => node.node = decode::string(value, &name)?,
            "address" => node.address = decode::string(value, &name)?,
            "datacenter" => node.datacenter = decode::string(value, &name)?,
            "taggedaddresses" => {
                (node.tagged_addresses, node.tagged_addresses_null) = string_map(value, &name)?;
            }
            "nodemeta" => (node.meta, node.meta_null) = string_map(value, &name)?,
            "service" | "check" if value.is_null() => {}
            "service" => asked.service = Some(service_row(part(value, &name)?)?),
            "check" => asked.checks.push(check_row(part(value, &name)?)?),
            "checks" => {
                for check in list(value, &name)? {
                    asked.checks.push(check_row(part(check, &name)?)?);
                }
            }
            "skipnodeupdate" => asked.skip_node_update = flag(&value, &name)?,
            "peername" | "locality" | "token" => {}
            _ => return Err(unknown(&name)),
        }
    }
    Ok(asked)
}

fn decode_deregister(body: &[u8]) -> Result<(Deregister, String), String> {
    let mut asked = Deregister::default();
    let mut datacenter = String::new();
    for (name, value) in fields(body)? {
        match name.to_ascii_lowercase().as_str() {
            "node" => asked.node = decode::string(value, &name)?,
            "serviceid" => asked.service_id = decode::string(value, &name)?,
            "checkid" => asked.check_id = decode::string(value, &name)?,
            "datacenter" => datacenter = decode::string(value, &name)?,
            "address" | "peername" | "token" => {}
            _ => return Err(unknown(&name)),
        }
    }
    Ok((asked, datacenter))
}

/// A service or check. Transactions take what they name of the paid edition; here it is unknown.
fn part(value: Value, field: &str) -> Result<Map<String, Value>, String> {
    let fields = object(value, field)?;
    let is_known = |name: &&String| {
        let paid = ["Namespace", "Partition", "Datacenter"];
        !paid.iter().any(|paid| name.eq_ignore_ascii_case(paid))
    };
    match fields.keys().find(|name| !is_known(name)) {
        Some(name) => Err(unknown(name)),
        None => Ok(fields),
    }
}

/// The error for a name that is unknown, which in this spelling is explained.
fn unknown(name: &str) -> String {
    let why = match name {
        "Namespace" => " - Namespaces are a Consul Enterprise feature",
        _ => "",
    };
    unknown_field(name) + why
}

fn list(value: Value, field: &str) -> Result<Vec<Value>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.into_iter().filter(|item| !item.is_null()).collect()),
        other => Err(decode::wrong_kind(&other, field, "[]object")),
    }
}

fn check_node_id(id: &str) -> Result<(), ApiError> {
    match node_id_fault(id) {
        None => Ok(()),
        Some(why) => Err(ApiError::internal(format!("Bad node ID: {why}"))),
    }
}

fn check_datacenter(asked: &str, own: &str) -> Result<(), ApiError> {
    if asked.is_empty() || asked == own {
        Ok(())
    } else {
        Err(ApiError::no_path_to_datacenter())
    }
}

fn of_node(mut service: ServiceRow, node: &str) -> Result<ServiceRow, ApiError> {
    if service.service.is_empty() {
        let text = "Must provide service name (Service.Service) when service ID is provided";
        return Err(ApiError::internal(text));
    }
    if service.id.is_empty() {
        service.id.clone_from(&service.service);
    }
    match service_fault(&service, node) {
        None => {}
        Some(fault @ ServiceFault::Address) => return Err(ApiError::internal(fault.to_string())),
        Some(fault) => return Err(ApiError::internal(format!("failed inserting service: {fault}"))),
    }
    node.clone_into(&mut service.node);
    Ok(service)
}

fn check_of_node(mut check: CheckRow, node: &str) -> Result<CheckRow, ApiError> {
    if check.check_id.is_empty() {
        check.check_id.clone_from(&check.name);
    }
    if check.check_id.is_empty() {
        return Err(ApiError::internal("Must provide check ID or name"));
    }
    if check.node.is_empty() {
        node.clone_into(&mut check.node);
    }
    if !check.node.eq_ignore_ascii_case(node) {
        let (of, id) = (&check.node, &check.check_id);
        let text = format!("Node '{of}' for check '{id}' doesn't match register request node '{node}'");
        return Err(ApiError::internal(text));
    }
    if check.r#type.is_empty() {
        kind_of(&check.definition_json).clone_into(&mut check.r#type);
    }
    Ok(check)
}

/// The type of a registered check follows from a definition that can run, which takes an interval. Transactions
/// leave it as it is (both seen on a running Consul).
fn kind_of(definition: &str) -> &'static str {
    let Ok(Value::Object(definition)) = serde_json::from_str(definition) else {
        return "";
    };
    let is_set = |name: &str| match definition
        .iter()
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
    {
        Some((_, Value::String(text))) => !text.is_empty(),
        Some((_, Value::Number(number))) => number.as_i64() != Some(0),
        _ => false,
    };
    if !is_set("Interval") && !is_set("IntervalDuration") {
        return "";
    }
    let kinds = [("HTTP", "http"), ("TCP", "tcp"), ("UDP", "udp"), ("GRPC", "grpc")];
    kinds
        .into_iter()
        .find(|(field, _)| is_set(field))
        .map_or("", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_check_follows_from_a_definition_that_can_run() {
        for (definition, kind) in [
            (r#"{"HTTP":"http://x","Interval":"5s"}"#, "http"),
            (r#"{"TCP":"x:1","IntervalDuration":5000000000}"#, "tcp"),
            (r#"{"TCP":"x:1","Interval":"5s","HTTP":""}"#, "tcp"),
            (r#"{"TCP":"x:1"}"#, ""),
            (r#"{"Interval":"5s"}"#, ""),
            ("", ""),
        ] {
            assert_eq!(kind_of(definition), kind, "{definition}");
        }
    }

    fn refusal(body: &str) -> String {
        register(body.as_bytes(), "dc1").unwrap_err().text().to_owned()
    }

    #[test]
    fn registrations_are_refused_with_consuls_words() {
        for (body, text) in [
            ("{}", "Must provide node"),
            (r#"{"Address":"192.0.2.1"}"#, "Must provide node"),
            (
                r#"{"Node":"n"}"#,
                "Must provide address if SkipNodeUpdate is not set",
            ),
            (
                r#"{"Node":"n","Address":"a","Service":{"ID":"x"}}"#,
                "Must provide service name (Service.Service) when service ID is provided",
            ),
            (
                r#"{"ID":"junk","Node":"n","Address":"a"}"#,
                "Bad node ID: uuid string is wrong length",
            ),
            (
                r#"{"Node":"n","Address":"a","Datacenter":"dc9"}"#,
                "No path to datacenter",
            ),
            (
                r#"{"Foo":1}"#,
                "Request decode failed: json: unknown field \"Foo\"",
            ),
            (
                r#"{"Node":"n","Address":"a","Check":{"Name":"c","Node":"m"}}"#,
                "Node 'm' for check 'c' doesn't match register request node 'n'",
            ),
            (
                r#"{"Node":"n","Address":"a","Service":{"Service":"s","Meta":{"a b":"c"}}}"#,
                "failed inserting service: Invalid Service Meta for node n and serviceID s: \
                 Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters",
            ),
            (
                r#"{"Node":"n","Address":"a","Service":{"Service":"s","Address":"::"}}"#,
                "Invalid service address",
            ),
            (
                r#"{"ID":"6ba7b810-9dad-11d1-80b4-00c04fd430cg","Node":"n","Address":"a"}"#,
                "Bad node ID: encoding/hex: invalid byte: U+0067 'g'",
            ),
        ] {
            assert_eq!(refusal(body), text, "{body}");
        }
        assert!(refusal("{").starts_with("Request decode failed: "));
    }

    #[test]
    fn services_and_checks_belong_to_the_node_and_ids_default_to_names() {
        let body = br#"{"node":"n","SkipNodeUpdate":true,"Service":{"Service":"web"},"Check":null,
            "Checks":[{"Name":"c"},null]}"#;

        let register = register(body, "dc1").unwrap();

        let service = register.service.unwrap();
        assert_eq!((service.node.as_str(), service.id.as_str()), ("n", "web"));
        assert_eq!(
            (
                register.checks[0].node.as_str(),
                register.checks[0].check_id.as_str()
            ),
            ("n", "c")
        );
        let node = register.node.unwrap();
        assert_eq!((node.datacenter.as_str(), node.meta_null), ("dc1", true));
    }

    #[test]
    fn deregistering_a_service_outweighs_its_check() {
        let body = br#"{"Node":"n","ServiceID":"s","CheckID":"c"}"#;

        let asked = deregister(body, "dc1").unwrap();

        assert_eq!((asked.service_id.as_str(), asked.check_id.as_str()), ("s", ""));
        assert!(deregister(b"{}", "dc1").is_err());
    }
}
