//! Reads JSON bodies as Go's decoder does: names in any case, `null` for what is absent, whatever follows the
//! first value ignored. Nesting is bounded by the parser (128 levels), so deep bodies cost no more than flat ones.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::Value;

use self::repeated::Repeated;

mod repeated;
mod surrogates;

/// The body as text; Go reads U+FFFD where it is not UTF-8, and for half a surrogate pair.
pub(crate) fn text(body: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(body);
    match surrogates::mended(&text) {
        Some(mended) => Cow::Owned(mended),
        None => text,
    }
}

/// The first value of a body.
///
/// # Errors
/// The decoder's words.
pub(crate) fn first<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    match values.next() {
        None => Err("EOF".to_owned()),
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(words(&error)),
    }
}

/// The same as a tree, in which what is given several times is what Go makes of it.
///
/// # Errors
/// The decoder's words.
pub(crate) fn value(text: &str) -> Result<Value, String> {
    first::<Repeated>(text).map(|Repeated(value)| value)
}

/// An error without the position that serde adds: clients match on Go's words.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("EOF while parsing") {
        return "unexpected EOF".to_owned();
    }
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Why a value is not what a field takes, in the manner of Go.
pub(crate) fn wrong_kind(value: &Value, field: &str, wanted: &str) -> String {
    let found = lictor_agent::decode::kind(value);
    format!("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")
}

/// A text; `null` is the empty one.
///
/// # Errors
/// The decoder's words.
pub(crate) fn string(value: Value, field: &str) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        other => Err(wrong_kind(&other, field, "string")),
    }
}

/// A list of texts; `None` for `null`.
///
/// # Errors
/// The decoder's words.
pub(crate) fn strings(value: Value, field: &str) -> Result<Option<Vec<String>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => items
            .into_iter()
            .map(|item| string(item, field))
            .collect::<Result<_, _>>()
            .map(Some),
        other => Err(wrong_kind(&other, field, "[]string")),
    }
}

/// A text that borrows from the body where it can; `null` is the empty one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_first_value_is_ignored() {
        assert_eq!(
            first::<Value>("{\"a\":1} trailing"),
            Ok(serde_json::json!({"a": 1}))
        );
        assert_eq!(first::<Value>("  "), Err("EOF".to_owned()));
        assert!(first::<Value>("{").is_err());
    }

    #[test]
    fn deep_bodies_are_refused() {
        let deep = "[".repeat(100_000);

        assert!(first::<Value>(&deep).is_err());
    }

    #[test]
    fn texts_borrow_unless_they_are_escaped() {
        assert!(matches!(
            first::<Text<'_>>("\"a/b\"").unwrap().0,
            Cow::Borrowed("a/b")
        ));
        assert_eq!(first::<Text<'_>>("\"a\\nb\"").unwrap().0, "a\nb");
        assert_eq!(first::<Text<'_>>("null").unwrap().0, "");
        assert!(first::<Text<'_>>("1").is_err());
    }
}
