//! What members of a service mesh must say of themselves. Lictor keeps them for clients, and holds them to what a Consul
//! does.

use serde_json::Value;

use crate::decode::{DecodeError, Object};
use crate::definition::ServiceDefinition;

/// All that is wrong with a service as a member of a mesh, in Consul's words and order.
///
/// # Errors
/// [`DecodeError::WrongKind`].
pub(crate) fn faults(service: &ServiceDefinition) -> Result<Vec<String>, DecodeError> {
    let destination = object(service.proxy.as_deref(), "Proxy")?.text("DestinationServiceName")?;
    let native = object(service.connect.as_deref(), "Connect")?.flag("Native")?;
    let reachable = service.port != 0 || !service.socket_path.is_empty();
    let kind = service.kind.as_str();
    let is_proxy = kind == "connect-proxy";
    let is_gateway = matches!(kind, "mesh-gateway" | "terminating-gateway");
    let all = [
        (
            is_proxy && !reachable,
            "Port or SocketPath must be set for a connect-proxy".to_owned(),
        ),
        (
            is_proxy && destination.is_empty(),
            "Proxy.DestinationServiceName must be non-empty for Connect proxy services".to_owned(),
        ),
        (
            is_proxy && destination == "*",
            "Proxy.DestinationServiceName must not be a wildcard for Connect proxy services".to_owned(),
        ),
        (
            is_proxy && native,
            "A Proxy cannot also be Connect Native, only typical services".to_owned(),
        ),
        (
            is_gateway && service.port == 0,
            format!("Port must be non-zero for a {kind}"),
        ),
        (
            is_gateway && !destination.is_empty(),
            format!("The Proxy.DestinationServiceName configuration is invalid for a {kind}"),
        ),
        (
            native && !reachable,
            "Port or SocketPath must be set for a Connect native service.".to_owned(),
        ),
    ];
    Ok(all
        .into_iter()
        .filter(|(wrong, _)| *wrong)
        .map(|(_, text)| text)
        .collect())
}

fn object(json: Option<&str>, field: &str) -> Result<Object, DecodeError> {
    // It was written from a value, and so can be read.
    let value = json.and_then(|json| serde_json::from_str(json).ok());
    Object::new(value.unwrap_or(Value::Null), field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(fields: &Value) -> Option<String> {
        let mut service = json!({"Name": "s"});
        for (name, value) in fields.as_object().unwrap() {
            service[name] = value.clone();
        }
        ServiceDefinition::from_json(service)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn members_of_a_mesh_are_refused_with_consuls_words() {
        for (fields, faults) in [
            (
                json!({"Kind": "connect-proxy"}),
                &[
                    "Port or SocketPath must be set for a connect-proxy",
                    "Proxy.DestinationServiceName must be non-empty for Connect proxy services",
                ][..],
            ),
            (
                json!({"kind": "connect-proxy", "port": 1, "connect": {"native": true},
                    "proxy": {"destination_service_name": "*"}}),
                &[
                    "Proxy.DestinationServiceName must not be a wildcard for Connect proxy services",
                    "A Proxy cannot also be Connect Native, only typical services",
                ][..],
            ),
            (
                json!({"Kind": "mesh-gateway", "Proxy": {"DestinationServiceName": "w"}}),
                &[
                    "Port must be non-zero for a mesh-gateway",
                    "The Proxy.DestinationServiceName configuration is invalid for a mesh-gateway",
                ][..],
            ),
            (
                json!({"Connect": {"Native": true}}),
                &["Port or SocketPath must be set for a Connect native service."][..],
            ),
        ] {
            let text = refusal(&fields).unwrap();

            let errors = if faults.len() == 1 { "error" } else { "errors" };
            let head = format!("Validation failed: {} {errors} occurred:\n", faults.len());
            assert_eq!(text, format!("{head}\t* {}\n\n", faults.join("\n\t* ")));
        }
    }

    #[test]
    fn members_of_a_mesh_that_say_enough_are_taken() {
        for fields in [
            json!({"Kind": "connect-proxy", "Port": 1, "Proxy": {"DestinationServiceName": "w"}}),
            json!({"Kind": "connect-proxy", "SocketPath": "/s", "Proxy": {"DestinationServiceName": "w"}}),
            json!({"Kind": "ingress-gateway"}),
            json!({"Kind": "terminating-gateway", "Port": 1}),
            json!({"SocketPath": "/s", "Connect": {"Native": true}}),
            json!({"Connect": {"SidecarService": {}}}),
        ] {
            assert_eq!(refusal(&fields), None, "{fields}");
        }
    }
}
