//! The query string, read over its raw bytes: nothing is parsed or copied before a handler asks for it.

use std::borrow::Cow;

/// The raw query of a request, without the question mark.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Query<'a>(&'a [u8]);

impl<'a> Query<'a> {
    pub(crate) fn new(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// Whether Go's `url.ParseQuery` would take it: no bare `;` and only well-formed escapes.
    pub(crate) fn is_valid(self) -> bool {
        let mut at = 0;
        while let Some(byte) = self.0.get(at) {
            match byte {
                b';' => return false,
                b'%' => {
                    let digits = self.0.get(at + 1..at + 3);
                    if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                        return false;
                    }
                    at += 3;
                }
                _ => at += 1,
            }
        }
        true
    }

    /// The first value of a parameter; empty for one without a value.
    pub(crate) fn get(self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.all(name).next()
    }

    /// The first value as text; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn text(self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(lossy)
    }

    /// The first value, `None` also when it is empty: Consul treats most parameters so.
    pub(crate) fn non_empty(self, name: &str) -> Option<Cow<'a, str>> {
        self.text(name).filter(|value| !value.is_empty())
    }

    /// Whether a switch is given, whatever its value: `?raw=false` is on.
    pub(crate) fn has(self, name: &str) -> bool {
        !self.0.is_empty() && self.get(name).is_some()
    }

    /// All values of a parameter that may be repeated.
    pub(crate) fn all(self, name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
        self.raw_pairs()
            .filter(move |(key, _)| is_name(key, name.as_bytes()))
            .map(|(_, value)| unescape(value))
    }

    /// All pairs in the order they were given.
    pub(crate) fn pairs(self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> {
        self.raw_pairs()
            .map(|(key, value)| (unescape(key), unescape(value)))
    }

    fn raw_pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0
            .split(|b| *b == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.iter().position(|b| *b == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &pair[pair.len()..]),
            })
    }
}

fn is_name(key: &[u8], name: &[u8]) -> bool {
    key == name || (key.iter().any(|b| matches!(b, b'%' | b'+')) && *unescape(key) == *name)
}

/// Undoes percent-encoding; `+` is a space. Broken escapes stay as they are.
fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(raw);
    }
    let spaced: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    Cow::Owned(percent_encoding::percent_decode(&spaced).collect())
}

fn lossy(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_and_names_are_case_sensitive() {
        let query = Query::new(b"index=5&index=6&Raw&a=b=c&&e%78t=%2Fx+y");

        assert_eq!(query.get("index").as_deref(), Some(&b"5"[..]));
        assert!(!query.has("raw"));
        assert_eq!(query.text("a").as_deref(), Some("b=c"));
        assert_eq!(query.text("ext").as_deref(), Some("/x y"));
        assert_eq!(query.all("index").count(), 2);
    }

    #[test]
    fn switches_count_by_presence() {
        for raw in ["raw", "raw=", "raw=false", "x=1&raw=0"] {
            assert!(Query::new(raw.as_bytes()).has("raw"), "{raw}");
        }
        assert!(!Query::new(b"").has("raw"));
        assert!(!Query::new(b"rawx").has("raw"));
    }

    #[test]
    fn semicolons_and_broken_escapes_are_refused() {
        for raw in ["%zz", "raw;keys", "x=%", "x=%2", "%"] {
            assert!(!Query::new(raw.as_bytes()).is_valid(), "{raw}");
        }
        for raw in ["", "&&raw", "x=%3B", "filter=a+b"] {
            assert!(Query::new(raw.as_bytes()).is_valid(), "{raw}");
        }
    }
}
