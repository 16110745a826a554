//! What happens to a path before a route is looked up: cleaning, decoding, and the refusal of control characters.

use std::borrow::Cow;

use lictor_proto::go;

/// The cleaned form of a path if it differs: repeated slashes and dot segments go, a trailing slash stays.
/// Works on the path as it was sent: encoded slashes and dots are not touched.
pub(crate) fn cleaned(path: &str) -> Option<String> {
    if is_clean(path.as_bytes()) {
        return None;
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut clean = String::with_capacity(path.len() + 1);
    for segment in &segments {
        clean.push('/');
        clean.push_str(segment);
    }
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

fn is_clean(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut after_slash = false;
    for (at, byte) in path.iter().enumerate() {
        match byte {
            b'/' if after_slash => return false,
            b'/' => after_slash = true,
            b'.' if after_slash => match &path[at + 1..] {
                [] | [b'/', ..] | [b'.'] | [b'.', b'/', ..] => return false,
                _ => after_slash = false,
            },
            _ => after_slash = false,
        }
    }
    true
}

/// Why a path cannot be served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadPath {
    /// An escape that is none.
    Escape,
    /// A control character or another one that does not print.
    Unprintable,
}

/// The bytes that a path stands for.
///
/// # Errors
/// [`BadPath`]; what is not UTF-8 is let through.
pub(crate) fn decoded(path: &str) -> Result<Cow<'_, [u8]>, BadPath> {
    if path.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'%') {
        return Ok(Cow::Borrowed(path.as_bytes()));
    }
    for (at, _) in path.match_indices('%') {
        let digits = path.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
            return Err(BadPath::Escape);
        }
    }
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    let prints = bytes
        .utf8_chunks()
        .all(|chunk| chunk.valid().chars().all(go::is_print));
    if prints {
        Ok(Cow::Owned(bytes))
    } else {
        Err(BadPath::Unprintable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_slashes_and_dot_segments_are_cleaned() {
        for (path, clean) in [
            ("//v1/kv/a", "/v1/kv/a"),
            ("/v1/kv/a//b", "/v1/kv/a/b"),
            ("/v1/kv/a/./b", "/v1/kv/a/b"),
            ("/v1/kv/x/../a/b", "/v1/kv/a/b"),
            ("/v1/kv/a/..", "/v1/kv"),
            ("/v1/kv//", "/v1/kv/"),
            ("/../../x", "/x"),
            ("//", "/"),
            ("/.", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(cleaned(path).as_deref(), Some(clean), "{path}");
        }
    }

    #[test]
    fn clean_paths_stay() {
        for path in [
            "/",
            "/v1/kv/",
            "/v1/kv/a/...",
            "/v1/kv/a/..b",
            "/v1/kv/a.b/.c",
            "/v1/kv/a%2F%2Fb/%2E",
        ] {
            assert_eq!(cleaned(path), None, "{path}");
        }
    }

    #[test]
    fn unprintable_characters_are_refused_and_invalid_utf8_is_not() {
        for path in ["/a%00b", "/a%0A", "/a%7F", "/%C2%85", "/%E2%80%A8"] {
            assert_eq!(decoded(path), Err(BadPath::Unprintable), "{path}");
        }
        assert_eq!(decoded("/a%FFb").unwrap().as_ref(), b"/a\xffb");
        assert_eq!(decoded("/%20x%2Fy").unwrap().as_ref(), b"/ x/y");
        assert_eq!(decoded("/%zz"), Err(BadPath::Escape));
        assert_eq!(decoded("/%2"), Err(BadPath::Escape));
    }
}
