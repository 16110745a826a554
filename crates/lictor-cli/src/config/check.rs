//! Holds one source of configuration against the table of keys, and merges sources.

use serde_json::{Map, Value};

use super::duration::parse_duration;
use super::error::ConfigError;
use super::schema::{Key, Kind, ROOT, Use, closest};

/// Checks one source and brings it into the form that [`merge`] takes: names in lower case, `service` and `check`
/// under their plural names, repeated HCL blocks joined. Keys of parts that are not here go to `absent`.
pub(crate) fn check(
    origin: &str,
    value: Value,
    absent: &mut Vec<String>,
) -> Result<Map<String, Value>, ConfigError> {
    Checker { origin, absent }.object(value, ROOT, "")
}

/// Lays `over` on `base`: lists are joined, maps are merged, all else is replaced.
pub(crate) fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (name, new) in over {
        match (base.get_mut(&name), new) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (_, new) => {
                base.insert(name, new);
            }
        }
    }
}

struct Checker<'a> {
    origin: &'a str,
    absent: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn object(
        &mut self,
        value: Value,
        keys: &'static [Key],
        path: &str,
    ) -> Result<Map<String, Value>, ConfigError> {
        let mut checked = Map::new();
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    self.entry(&name, value, keys, path, &mut checked)?;
                }
            }
            // HCL gives a list where a block is repeated; the blocks are one object written in pieces.
            Value::Array(parts) if parts.iter().all(Value::is_object) => {
                for part in parts {
                    merge(&mut checked, self.object(part, keys, path)?);
                }
            }
            _ => return Err(self.wrong(path, "an object")),
        }
        Ok(checked)
    }

    fn entry(
        &mut self,
        name: &str,
        value: Value,
        keys: &'static [Key],
        path: &str,
        checked: &mut Map<String, Value>,
    ) -> Result<(), ConfigError> {
        let name = name.to_ascii_lowercase();
        let dotted = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let meant = closest(keys, &name);
            return Err(ConfigError::UnknownKey {
                origin: self.origin.to_owned(),
                key: dotted,
                meant,
            });
        };
        if value.is_null() {
            return Ok(());
        }
        match key.usage {
            Use::Silent => return Ok(()),
            Use::Absent => {
                if asks_for_something(&value) && !self.absent.contains(&dotted) {
                    self.absent.push(dotted);
                }
                return Ok(());
            }
            Use::Acted => {}
        }
        let (stored_as, value) = self.value(value, key, &dotted)?;
        let mut one = Map::new();
        one.insert(stored_as.to_owned(), value);
        merge(checked, one);
        Ok(())
    }

    fn value(&mut self, value: Value, key: &Key, path: &str) -> Result<(&'static str, Value), ConfigError> {
        let ok = |value| Ok((key.name, value));
        match key.kind {
            Kind::Bool if value.is_boolean() => ok(value),
            Kind::Bool => Err(self.wrong(path, "true or false")),
            Kind::Int if value.is_i64() => ok(value),
            // HCL and some templating tools write whole numbers with a fraction of zero.
            Kind::Int => match value.as_f64() {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "whole and within 32 bits, as just tested"
                )]
                Some(number) if number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX) => {
                    ok(Value::from(number as i64))
                }
                _ => Err(self.wrong(path, "a whole number")),
            },
            Kind::Text if value.is_string() => ok(value),
            Kind::Text => Err(self.wrong(path, "a text in quotes")),
            Kind::Duration => match value.as_str().map(parse_duration) {
                Some(Ok(_)) => ok(value),
                Some(Err(why)) => Err(ConfigError::Invalid(format!("{}: {path}: {why}", self.origin))),
                None => Err(self.wrong(path, "a duration in quotes, such as \"10s\"")),
            },
            Kind::Texts => match value {
                Value::String(_) => ok(Value::Array(vec![value])),
                Value::Array(ref items) if items.iter().all(Value::is_string) => ok(value),
                _ => Err(self.wrong(path, "a list of texts")),
            },
            Kind::TextMap => ok(Value::Object(self.text_map(value, path)?)),
            Kind::Definitions(plural) => match value {
                Value::Object(_) => Ok((plural, Value::Array(vec![value]))),
                Value::Array(ref items) if items.iter().all(Value::is_object) => Ok((plural, value)),
                _ => Err(self.wrong(path, "an object or a list of objects")),
            },
            Kind::Object(keys) => ok(Value::Object(self.object(value, keys, path)?)),
            Kind::Any => ok(value),
        }
    }

    fn text_map(&self, value: Value, path: &str) -> Result<Map<String, Value>, ConfigError> {
        match value {
            Value::Object(map) if map.values().all(Value::is_string) => Ok(map),
            Value::Array(parts) => {
                let mut all = Map::new();
                for part in parts {
                    merge(&mut all, self.text_map(part, path)?);
                }
                Ok(all)
            }
            _ => Err(self.wrong(path, "a map of texts")),
        }
    }

    fn wrong(&self, path: &str, expected: &'static str) -> ConfigError {
        let key = if path.is_empty() {
            "the configuration"
        } else {
            path
        };
        ConfigError::WrongKind {
            origin: self.origin.to_owned(),
            key: key.to_owned(),
            expected,
        }
    }
}

/// Whether a value of a part that is not here asks for anything: `null`, `false`, an empty text, list or object and
/// a port of -1 do not.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_i64().is_none_or(|number| number > 0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(asks_for_something),
        Value::Object(map) => map.values().any(asks_for_something),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(value: Value) -> Result<Value, String> {
        check("f.json", value, &mut Vec::new())
            .map(Value::Object)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_keys_are_refused_by_dotted_name_and_file() {
        assert_eq!(
            checked(json!({"ports": {"htpp": 1}})),
            Err("f.json: unknown configuration key \"ports.htpp\" (did you mean \"http\"?)".to_owned())
        );
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!(checked(json!({"Node_Name": "a"})), Ok(json!({"node_name": "a"})));
    }

    #[test]
    fn wrong_kinds_are_refused_with_the_kind_that_is_wanted() {
        for (value, expected) in [
            (json!({"server": "yes"}), "f.json: server must be true or false"),
            (
                json!({"ports": {"http": "8500"}}),
                "f.json: ports.http must be a whole number",
            ),
            (
                json!({"ports": {"http": 1.5}}),
                "f.json: ports.http must be a whole number",
            ),
            (json!({"ports": 5}), "f.json: ports must be an object"),
            (
                json!({"node_meta": {"a": 1}}),
                "f.json: node_meta must be a map of texts",
            ),
            (
                json!({"retry_join": [1]}),
                "f.json: retry_join must be a list of texts",
            ),
            (
                json!({"service": 1}),
                "f.json: service must be an object or a list of objects",
            ),
            (json!("x"), "f.json: the configuration must be an object"),
        ] {
            assert_eq!(checked(value), Err(expected.to_owned()));
        }
    }

    #[test]
    fn keys_of_absent_parts_are_named_once_and_only_when_they_ask_for_something() {
        let mut absent = Vec::new();
        let value = json!({
            "segments": null, "connect": {"enabled": true}, "peering": {"enabled": false},
            "ports": {"dns": 8600, "grpc": -1}, "version": "1.22.0", "ui_dir": "",
        });
        check("a", value.clone(), &mut absent).expect("all are known");
        check("b", value, &mut absent).expect("all are known");

        assert_eq!(absent, ["connect", "ports.dns"]);
    }

    #[test]
    fn repeated_blocks_are_one_object() {
        let value = json!({"ports": [{"http": 1}, {"https": 2}], "service": [{"name": "a"}, {"name": "b"}]});

        assert_eq!(
            checked(value),
            Ok(json!({"ports": {"http": 1, "https": 2}, "services": [{"name": "a"}, {"name": "b"}]}))
        );
    }

    #[test]
    fn later_sources_win_and_lists_are_joined() {
        let mut base = json!({"node_name": "a", "ports": {"http": 1, "https": 2}, "retry_join": ["x"]});
        let over = json!({"node_name": "b", "ports": {"http": 3}, "retry_join": ["y"]});

        merge(
            base.as_object_mut().expect("an object"),
            over.as_object().expect("an object").clone(),
        );

        assert_eq!(
            base,
            json!({"node_name": "b", "ports": {"http": 3, "https": 2}, "retry_join": ["x", "y"]})
        );
    }
}
