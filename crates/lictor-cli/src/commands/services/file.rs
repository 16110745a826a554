//! Services in configuration files, brought into the form of the HTTP API.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::Failure;
use crate::config::{Place, Sources};

/// All services of the files and folders, in their order.
pub(super) fn services(paths: &[PathBuf]) -> Result<Vec<Map<String, Value>>, Failure> {
    let sources = Sources {
        places: paths.iter().cloned().map(Place::of).collect(),
        ..Sources::default()
    };
    let found = sources
        .services()
        .map_err(|error| Failure(format!("Error: {error}")))?;
    let objects = found.into_iter().filter_map(|service| match service {
        Value::Object(map) => Some(with_list_of_checks(api_form(map, Part::Service))),
        _ => None,
    });
    Ok(objects.collect())
}

/// HCL cannot tell one block from a list of one, nor several `check` blocks from a list that is one value.
fn with_list_of_checks(mut service: Map<String, Value>) -> Map<String, Value> {
    match (service.remove("Check"), service.remove("Checks")) {
        (None, None) => {}
        (Some(one @ Value::Object(_)), None) => drop(service.insert("Check".to_owned(), one)),
        (some, more) => {
            let all = some.into_iter().chain(more).flat_map(|value| match value {
                Value::Array(list) => list,
                other => vec![other],
            });
            let all = all.filter(|check| !check.is_null()).collect();
            service.insert("Checks".to_owned(), Value::Array(all));
        }
    }
    service
}

/// What an object describes, which decides what its names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Service,
    Check,
    /// Addresses by names that somebody chose.
    Addresses,
    Address,
    /// Names and values that somebody chose.
    Free,
}

/// `enable_tag_override` becomes `EnableTagOverride`; names that people chose stay.
fn api_form(map: Map<String, Value>, part: Part) -> Map<String, Value> {
    map.into_iter()
        .map(|(name, value)| {
            let name = match part {
                Part::Addresses | Part::Free => name,
                _ => api_name(&name, part),
            };
            let inner = match (part, name.as_str()) {
                (Part::Service, "Check" | "Checks") => Part::Check,
                (Part::Service, "TaggedAddresses") => Part::Addresses,
                (Part::Addresses, _) => Part::Address,
                (Part::Service, "Weights") => Part::Service,
                _ => Part::Free,
            };
            (name, api_value(value, inner))
        })
        .collect()
}

fn api_value(value: Value, part: Part) -> Value {
    match value {
        Value::Object(map) => Value::Object(api_form(map, part)),
        Value::Array(list) => list.into_iter().map(|item| api_value(item, part)).collect(),
        other => other,
    }
}

fn api_name(name: &str, part: Part) -> String {
    // A name that has a capital is in the API's form already.
    if name.contains(char::is_uppercase) {
        return name.to_owned();
    }
    match (name, part) {
        ("id", Part::Check) | ("check_id", _) => return "CheckID".to_owned(),
        ("ttl" | "http" | "tcp" | "udp" | "id" | "grpc", _) => return name.to_uppercase(),
        _ => {}
    }
    name.split('_')
        .map(|word| match word {
            "tls" | "grpc" | "tcp" | "id" | "ttl" => word.to_uppercase(),
            _ => {
                let mut chars = word.chars();
                let first = chars.next().map(|first| first.to_ascii_uppercase());
                first.into_iter().chain(chars).collect()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checks_are_a_list_however_they_were_written() {
        let listed = |given: Value| match given {
            Value::Object(map) => Value::Object(with_list_of_checks(map)),
            other => other,
        };

        assert_eq!(
            listed(json!({"Check": {"TTL": "1s"}})),
            json!({"Check": {"TTL": "1s"}})
        );
        let one = json!({"Checks": [{"TTL": "1s"}]});
        assert_eq!(listed(json!({"Checks": {"TTL": "1s"}})), one);
        assert_eq!(listed(json!({"Check": [{"TTL": "1s"}]})), one);
        assert_eq!(listed(json!({"Check": {"TTL": "1s"}, "Checks": null})), one);
    }

    #[test]
    fn names_take_the_apis_form_and_names_of_people_stay() {
        let given = json!({
            "name": "web", "id": "w1", "enable_tag_override": true, "meta": {"some_key": "v"},
            "tagged_addresses": {"my_lan": {"address": "a", "port": 1}},
            "checks": [{"id": "c", "ttl": "30s", "tls_skip_verify": true, "header": {"x_y": ["z"]},
                "deregister_critical_service_after": "1m"}],
            "weights": {"passing": 2},
        });
        let Value::Object(given) = given else {
            panic!("an object")
        };

        let expected = json!({
            "Name": "web", "ID": "w1", "EnableTagOverride": true, "Meta": {"some_key": "v"},
            "TaggedAddresses": {"my_lan": {"Address": "a", "Port": 1}},
            "Checks": [{"CheckID": "c", "TTL": "30s", "TLSSkipVerify": true, "Header": {"x_y": ["z"]},
                "DeregisterCriticalServiceAfter": "1m"}],
            "Weights": {"Passing": 2},
        });
        assert_eq!(Value::Object(api_form(given, Part::Service)), expected);
    }
}
