//! Objects in which a name is given more than once. Go's decoder reads the second value over the first: an object adds
//! to what is there, `null` leaves what is no list, map or object, and anything else takes its place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value whose repeated names were read so.
pub(super) struct Repeated(pub(super) Value);

fn read_over(before: &mut Value, value: Value) {
    match (before, value) {
        (Value::Object(fields), Value::Object(more)) => more
            .into_iter()
            .for_each(|(name, value)| put(fields, name, value)),
        (Value::Bool(_) | Value::Number(_) | Value::String(_), Value::Null) => {}
        (before, value) => *before = value,
    }
}

fn put(fields: &mut Map<String, Value>, name: String, value: Value) {
    match fields.get_mut(&name) {
        Some(before) => read_over(before, value),
        None => {
            fields.insert(name, value);
        }
    }
}

impl<'de> Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Repeated(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, Repeated(value))) = map.next_entry::<String, Repeated>()? {
            put(&mut fields, name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::value;

    /// As agents were seen to take registrations.
    #[test]
    fn a_name_that_comes_again_is_read_over_the_first() {
        for (json, expected) in [
            (r#"{"a":1,"a":2}"#, json!({"a": 2})),
            (r#"{"a":1,"a":null}"#, json!({"a": 1})),
            (r#"{"a":null,"a":"x"}"#, json!({"a": "x"})),
            (r#"{"a":["x"],"a":null}"#, json!({"a": null})),
            (r#"{"a":{"b":1},"a":null}"#, json!({"a": null})),
            (
                r#"{"a":{"b":1,"c":2},"a":{"b":3,"d":4}}"#,
                json!({"a": {"b": 3, "c": 2, "d": 4}}),
            ),
            (
                r#"{"a":{"b":{"c":1}},"a":{"b":{"d":2}}}"#,
                json!({"a": {"b": {"c": 1, "d": 2}}}),
            ),
            (r#"{"a":["x","y"],"a":["z"]}"#, json!({"a": ["z"]})),
        ] {
            assert_eq!(value(json), Ok(expected), "{json}");
        }
    }

    #[test]
    fn all_else_is_read_as_it_stands() {
        let json = r#"[null,true,-1,18446744073709551615,1.5,"a\n",[],{"b":{}}]"#;

        assert_eq!(value(json), Ok(serde_json::from_str(json).unwrap()));
    }
}
