//! The body of a write: `{"key": "K", "value": "V"}`.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A key and the value that it is to have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
}

impl Entry {
    /// Reads the first JSON value of a body, as Go's decoder does: names in any case, other fields ignored, what is absent
    /// or `null` is empty, and of a field that is repeated the last one counts. `None` for anything else.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_slice(body);
        Self::deserialize(&mut json).ok()
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a key and a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Entry, A::Error> {
        let mut entry = Entry::default();
        while let Some(name) = fields.next_key::<String>()? {
            let place = if name.eq_ignore_ascii_case("key") {
                &mut entry.key
            } else if name.eq_ignore_ascii_case("value") {
                &mut entry.value
            } else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(text) = fields.next_value::<Option<String>>()? {
                *place = text;
            }
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<(String, String)> {
        Entry::read(body.as_bytes()).map(|entry| (entry.key, entry.value))
    }

    fn entry(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn names_match_in_any_case_and_others_are_ignored() {
        assert_eq!(
            read(r#"{"key":"raft","value":"paxos"}"#),
            Some(entry("raft", "paxos"))
        );
        assert_eq!(
            read(r#" {"KEY":"k","x":[{"key":1}],"Value":"v"}"#),
            Some(entry("k", "v"))
        );
        assert_eq!(
            read(r#"{"key":"\u00e9\n","value":""}"#),
            Some(entry("\u{e9}\n", ""))
        );
    }

    #[test]
    fn only_the_first_value_of_a_body_is_read() {
        assert_eq!(
            read(r#"{"key":"a","value":"b"} {"key":1}"#),
            Some(entry("a", "b"))
        );
        assert_eq!(read(r#"{"key":"a","value":"b"}}"#), Some(entry("a", "b")));
    }

    #[test]
    fn what_is_absent_or_null_is_empty() {
        assert_eq!(read("{}"), Some(entry("", "")));
        assert_eq!(read(r#"{"key":"a"}"#), Some(entry("a", "")));
        assert_eq!(read(r#"{"key":"a","value":null}"#), Some(entry("a", "")));
    }

    #[test]
    fn of_a_repeated_field_the_last_one_counts() {
        assert_eq!(
            read(r#"{"key":"a","Key":"b","value":"1","value":"2"}"#),
            Some(entry("b", "2"))
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            "",
            " ",
            "{",
            "[]",
            "null",
            "1",
            r#""x""#,
            "key=k&value=v",
            r#"{"key":1,"value":"x"}"#,
            r#"{"key":"k","value":{}}"#,
            r#"{"key":"k","value":["x"]}"#,
            r#"{"key":"k""#,
        ] {
            assert_eq!(read(body), None, "{body}");
        }
        assert!(Entry::read(b"{\"key\":\"\xff\"}").is_none(), "no UTF-8");
    }

    /// What is ignored is skipped without recursion.
    #[test]
    fn a_deep_field_that_nobody_asked_for_does_no_harm() {
        let deep = format!(
            "{{\"x\":{}{},\"key\":\"k\"}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(read(&deep), Some(entry("k", "")));
    }
}
