//! Reads JSON objects as Consul's clients and configuration files write them: names in any case, with or without
//! underscores, `null` for what is absent, durations as text or as a number of nanoseconds. What was not asked for is
//! an error.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Why a document is no definition. The texts follow Go's decoder, since clients show them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A name that the definition does not have.
    #[error("json: unknown field {}", lictor_proto::go::quote(.0.as_bytes()))]
    UnknownField(String),
    /// A value of another kind than the name asks for.
    #[error("json: cannot unmarshal {found} into field {field} of type {wanted}")]
    WrongKind {
        /// What stood there.
        found: &'static str,
        /// The field.
        field: String,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A text that is no duration, in Go's words.
    #[error("{0}")]
    Duration(String),
}

/// An object whose fields are taken one by one.
#[derive(Debug)]
pub struct Object {
    /// Normalised name, name as written, value.
    fields: Vec<(String, String, Value)>,
}

impl Object {
    /// Takes an object; `null` is an empty one.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`] for anything else; `field` names it in the text.
    pub fn new(value: Value, field: &str) -> Result<Self, DecodeError> {
        let map = match value {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            other => return Err(wrong_kind(&other, field, "object")),
        };
        Ok(Self {
            fields: map
                .into_iter()
                .map(|(name, value)| (normal(&name), name, value))
                .collect(),
        })
    }

    /// The value of a field; of several spellings the last one given. `None` for `null`.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let wanted = normal(name);
        let mut found = None;
        self.fields.retain_mut(|(normal, _, value)| {
            let hit = *normal == wanted;
            if hit {
                found = Some(value.take());
            }
            !hit
        });
        found.filter(|value| !value.is_null())
    }

    /// A text, empty when absent.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`].
    pub fn text(&mut self, name: &str) -> Result<String, DecodeError> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(wrong_kind(&other, name, "string")),
        }
    }

    /// The first non-empty text of several names for one thing.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`].
    pub fn text_of(&mut self, names: &[&str]) -> Result<String, DecodeError> {
        let mut first = String::new();
        for name in names {
            let text = self.text(name)?;
            if first.is_empty() {
                first = text;
            }
        }
        Ok(first)
    }

    /// A boolean, `false` when absent.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`].
    pub fn flag(&mut self, name: &str) -> Result<bool, DecodeError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong_kind(&other, name, "bool")),
        }
    }

    /// A whole number, 0 when absent.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`], also for fractions and what is out of range.
    pub fn number<N: TryFrom<i64> + Default>(&mut self, name: &str) -> Result<N, DecodeError> {
        let Some(value) = self.take(name) else {
            return Ok(N::default());
        };
        let number = value.as_i64().and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| wrong_kind(&value, name, "int"))
    }

    /// A duration in nanoseconds, 0 when absent: Go's text form, or a number of nanoseconds.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`] and [`DecodeError::Duration`].
    pub fn duration(&mut self, name: &str) -> Result<i64, DecodeError> {
        match self.take(name) {
            None => Ok(0),
            Some(Value::String(text)) if text.is_empty() => Ok(0),
            Some(Value::String(text)) => {
                lictor_proto::go::parse_duration(&text).map_err(DecodeError::Duration)
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "fractions of a nanosecond are cut off"
            )]
            Some(Value::Number(number)) => Ok(number
                .as_i64()
                .unwrap_or_else(|| number.as_f64().unwrap_or_default() as i64)),
            Some(other) => Err(wrong_kind(&other, name, "duration")),
        }
    }

    /// A list of texts; `None` when absent.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`].
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, DecodeError> {
        self.take(name).map(|value| texts(value, name)).transpose()
    }

    /// A map of texts; `None` when absent.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`].
    pub fn text_map(&mut self, name: &str) -> Result<Option<BTreeMap<String, String>>, DecodeError> {
        self.map(name, |value, field| match value {
            Value::String(text) => Ok(text),
            Value::Null => Ok(String::new()),
            other => Err(wrong_kind(&other, field, "string")),
        })
    }

    /// A map of anything; `None` when absent. Its keys stay as they are written.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`], and those of `each`.
    pub fn map<T>(
        &mut self,
        name: &str,
        each: impl Fn(Value, &str) -> Result<T, DecodeError>,
    ) -> Result<Option<BTreeMap<String, T>>, DecodeError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => map
                .into_iter()
                .map(|(key, value)| Ok((key, each(value, name)?)))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(other) => Err(wrong_kind(&other, name, "map")),
        }
    }

    /// A list of objects, empty when absent; entries that are `null` are left out.
    ///
    /// # Errors
    /// [`DecodeError::WrongKind`].
    pub fn objects(&mut self, name: &str) -> Result<Vec<Self>, DecodeError> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .filter(|item| !item.is_null())
                .map(|item| Self::new(item, name))
                .collect(),
            Some(other) => Err(wrong_kind(&other, name, "list")),
        }
    }

    /// Reads fields that mean nothing here.
    pub fn skip(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.fields.iter().all(|(_, _, value)| value.is_null())
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::UnknownField`] for the first field that nobody took.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.fields.into_iter().next() {
            None => Ok(()),
            Some((_, written, _)) => Err(DecodeError::UnknownField(written)),
        }
    }
}

/// A list of texts.
///
/// # Errors
/// [`DecodeError::WrongKind`].
pub fn texts(value: Value, field: &str) -> Result<Vec<String>, DecodeError> {
    let Value::Array(items) = value else {
        return Err(wrong_kind(&value, field, "list"));
    };
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) => Ok(text),
            Value::Null => Ok(String::new()),
            other => Err(wrong_kind(&other, field, "string")),
        })
        .collect()
}

fn normal(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '_')
        .flat_map(char::to_lowercase)
        .collect()
}

/// What Go's decoder calls a value's kind.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_kind(found: &Value, field: &str, wanted: &'static str) -> DecodeError {
    DecodeError::WrongKind {
        found: kind(found),
        field: field.to_owned(),
        wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::new(value, "Thing").unwrap()
    }

    #[test]
    fn names_are_found_in_any_case_and_with_underscores() {
        let mut thing = object(json!({"lockdelay": "1s", "Enable_Tag_Override": true, "ID": null}));

        assert_eq!(thing.duration("LockDelay"), Ok(1_000_000_000));
        assert_eq!(thing.flag("EnableTagOverride"), Ok(true));
        assert_eq!(thing.text("ID"), Ok(String::new()));
        assert_eq!(thing.finish(), Ok(()));
    }

    #[test]
    fn what_nobody_asked_for_is_an_error_with_its_name_as_written() {
        let mut thing = object(json!({"a": 1, "Foo_Bar": 1}));
        thing.skip(&["A"]);

        assert_eq!(
            thing.finish().unwrap_err().to_string(),
            "json: unknown field \"Foo_Bar\""
        );
    }

    #[test]
    fn durations_are_text_or_nanoseconds() {
        let mut thing = object(json!({"a": 5, "b": 1.9, "c": "", "d": "x"}));

        assert_eq!(thing.duration("a"), Ok(5));
        assert_eq!(thing.duration("b"), Ok(1));
        assert_eq!(thing.duration("c"), Ok(0));
        assert_eq!(
            thing.duration("d").unwrap_err().to_string(),
            "time: invalid duration \"x\""
        );
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let mut thing = object(json!({"a": "x", "b": 1.5, "c": {}, "d": [1], "e": {"k": 1}, "f": -1}));

        assert!(thing.number::<i64>("a").is_err());
        assert!(thing.number::<i64>("b").is_err());
        assert!(thing.text("c").is_err());
        assert!(thing.texts("d").is_err());
        assert!(thing.text_map("e").is_err());
        assert!(thing.number::<u16>("f").is_err());
        assert!(Object::new(json!([]), "Thing").is_err());
        assert!(Object::new(Value::Null, "Thing").is_ok());
    }
}
