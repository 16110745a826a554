//! Patterns for names of keys, as shells have them.

use regex::bytes::{Regex, RegexBuilder};

/// Longer patterns are refused.
const PATTERN_MAX_BYTES: usize = 256;
/// What a pattern may take once it is compiled.
const COMPILED_MAX_BYTES: usize = 1024 * 1024;

/// A pattern over whole names.
///
/// | sign | stands for |
/// |---|---|
/// | `*` | any run of bytes without `/` |
/// | `**` | any run of bytes |
/// | `?` | a character but `/` |
/// | `[a-z]`, `[!a-z]` | one of these characters; any other but `/` |
/// | `\` | the next character itself |
///
/// A name of n bytes is looked at in O(n), whatever the pattern.
#[derive(Debug)]
pub(crate) struct Glob(Regex);

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(pattern: &[u8]) -> Result<Self, String> {
        if pattern.len() > PATTERN_MAX_BYTES {
            return Err(format!("longer than {PATTERN_MAX_BYTES} bytes"));
        }
        let pattern = std::str::from_utf8(pattern).map_err(|_| "not UTF-8".to_owned())?;
        let expression = expression(pattern)?;
        let regex = RegexBuilder::new(&expression)
            .size_limit(COMPILED_MAX_BYTES)
            .build();
        // Of what `expression` writes only the order of a range and the size can be wrong.
        regex.map(Self).map_err(|_| "no pattern".to_owned())
    }

    pub(crate) fn is_match(&self, name: &[u8]) -> bool {
        self.0.is_match(name)
    }
}

fn expression(pattern: &str) -> Result<String, String> {
    let mut out = String::from(r"\A");
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                while rest.next_if_eq(&'*').is_some() {}
                out.push_str("(?s-u:.*)");
            }
            '*' => out.push_str("(?-u:[^/]*)"),
            '?' => out.push_str("[^/]"),
            '[' => class(&mut rest, &mut out)?,
            '\\' => literal(rest.next().ok_or("a \\ at the end")?, &mut out),
            c => literal(c, &mut out),
        }
    }
    out.push_str(r"\z");
    Ok(out)
}

/// What stands behind `[`.
fn class(rest: &mut impl Iterator<Item = char>, out: &mut String) -> Result<(), String> {
    out.push('[');
    let mut is_first = true;
    let mut is_empty = true;
    for c in rest {
        match c {
            '!' | '^' if is_first => out.push_str("^/"),
            ']' if !is_empty => {
                out.push(']');
                return Ok(());
            }
            '-' if !is_empty => {
                out.push('-');
                is_empty = false;
            }
            c => {
                literal(c, out);
                is_empty = false;
            }
        }
        is_first = false;
    }
    Err("a [ that is not closed".to_owned())
}

fn literal(c: char, out: &mut String) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, name: &str) -> bool {
        Glob::new(pattern.as_bytes()).unwrap().is_match(name.as_bytes())
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [
            ("a/*", "a/b"),
            ("a/*", "a/"),
            ("**/leader", "service/web/leader"),
            ("a**z", "a/b/c/z"),
            ("?", "ä"),
            ("x[0-9]", "x7"),
            ("x[!0-9]", "xa"),
            ("x[]-]", "x]"),
            (r"a\*", "a*"),
            ("a.b+(c)", "a.b+(c)"),
            ("", ""),
        ] {
            assert!(is_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a/*", "a/b/c"),
            ("a", "ab"),
            ("*", "a/b"),
            ("?", "/"),
            ("x[!0-9]", "x/"),
            ("a.b", "axb"),
        ] {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
        assert!(Glob::new(b"a*").unwrap().is_match(b"a\xff\n"), "names are bytes");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in [&b"[a"[..], b"[", b"[!", b"a\\", b"[z-a]", b"\xff", &[b'a'; 257]] {
            assert!(Glob::new(pattern).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Glob::new("**a".repeat(80).as_bytes()).unwrap();

        assert!(!pattern.is_match("a".repeat(20_000).replace("aaaa", "aaab").as_bytes()));
    }
}
