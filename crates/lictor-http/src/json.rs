//! JSON as Go's encoder writes it: `<`, `>`, `&`, U+2028 and U+2029 escaped, invalid UTF-8 as U+FFFD.
//!
//! All JSON is written compact; [`indented`] lays it out afterwards when a client or the mode asks for it.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Serialises a value. A value that cannot be serialised (a map with keys that are no strings) is a
/// programming error and gives `null`.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    push(&mut out, value);
    out
}

/// [`to_vec`] behind what is written already.
pub(crate) fn push<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let before = out.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, GoFormatter);
    if let Err(error) = value.serialize(&mut serializer) {
        tracing::error!(%error, "a value could not be written as JSON");
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let bytes = fragment.as_bytes();
        let mut done = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let (escape, len): (&[u8], usize) = match byte {
                b'<' => (b"\\u003c", 1),
                b'>' => (b"\\u003e", 1),
                b'&' => (b"\\u0026", 1),
                0xe2 => match &bytes[at..] {
                    [_, 0x80, 0xa8, ..] => (b"\\u2028", 3),
                    [_, 0x80, 0xa9, ..] => (b"\\u2029", 3),
                    _ => continue,
                },
                _ => continue,
            };
            out.write_all(&bytes[done..at])?;
            out.write_all(escape)?;
            done = at + len;
        }
        out.write_all(&bytes[done..])
    }
}

/// Writes bytes as a JSON string with its quotes.
pub(crate) fn push_str(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if text.iter().all(|b| is_plain(*b)) {
        out.extend_from_slice(text);
    } else {
        push_escaped(out, text);
    }
    out.push(b'"');
}

/// The most bytes that [`push_str`] writes for a text.
pub(crate) fn str_len_bound(text: &[u8]) -> usize {
    if text.iter().all(|b| is_plain(*b)) {
        text.len() + 2
    } else {
        text.len() * 6 + 2
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

#[cold]
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\u{8}' => out.extend_from_slice(b"\\b"),
                '\u{c}' => out.extend_from_slice(b"\\f"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\u{2028}' => out.extend_from_slice(b"\\u2028"),
                '\u{2029}' => out.extend_from_slice(b"\\u2029"),
                c if c < ' ' || matches!(c, '<' | '>' | '&') => {
                    let code = u32::from(c).to_le_bytes()[0];
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[HEX[usize::from(code >> 4)], HEX[usize::from(code & 15)]]);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        // Go writes one replacement character for each byte that is not UTF-8, and writes it as an escape.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Writes a number.
pub(crate) fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Lays compact JSON out with an indent of four spaces, as Go's `json.MarshalIndent` does.
pub(crate) fn indented(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    Indenter::default().push(compact, &mut out);
    out
}

/// [`indented`] for JSON that comes in pieces. A piece ends behind a whole value or behind the bracket of a list that is
/// not empty.
#[derive(Debug, Default)]
pub(crate) struct Indenter {
    depth: usize,
}

impl Indenter {
    pub(crate) fn push(&mut self, compact: &[u8], out: &mut Vec<u8>) {
        indent(compact, &mut self.depth, out);
    }
}

fn indent(compact: &[u8], depth: &mut usize, out: &mut Vec<u8>) {
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = compact.get(at) {
        at += 1;
        if in_string {
            out.push(byte);
            match byte {
                b'"' => in_string = false,
                b'\\' => {
                    out.extend(compact.get(at));
                    at += 1;
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if let Some(close @ (b'}' | b']')) = compact.get(at) {
                    out.push(*close);
                    at += 1;
                } else {
                    *depth += 1;
                    newline(out, *depth);
                }
            }
            b'}' | b']' => {
                *depth = depth.saturating_sub(1);
                newline(out, *depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(out, *depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
}

fn newline(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + depth * 4, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_str(&mut out, text);
        assert!(out.len() <= str_len_bound(text));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        assert_eq!(pushed(b"plain/key"), "\"plain/key\"");
        assert_eq!(
            pushed("<&>\u{20ac}".as_bytes()),
            "\"\\u003c\\u0026\\u003e\u{20ac}\""
        );
        assert_eq!(pushed(b"a\"\\\n\x01\x7f"), "\"a\\\"\\\\\\n\\u0001\x7f\"");
        assert_eq!(pushed("\u{2028}".as_bytes()), "\"\\u2028\"");
        assert_eq!(pushed(b"bad\xff\xfekey"), "\"bad\\ufffd\\ufffdkey\"");
    }

    #[test]
    fn serialised_values_are_escaped_alike() {
        let value = serde_json::json!({"a": "<b>&\u{2029}\u{20ac}\n"});

        assert_eq!(
            to_vec(&value),
            "{\"a\":\"\\u003cb\\u003e\\u0026\\u2029\u{20ac}\\n\"}".as_bytes()
        );
    }

    #[test]
    fn pieces_are_laid_out_as_the_whole_is() {
        let pieces = ["[{\"a\":1}", ",{\"b\":\"[,\"}", ",\"c\"", "]"];
        let mut out = Vec::new();
        let mut indenter = Indenter::default();

        for piece in pieces {
            indenter.push(piece.as_bytes(), &mut out);
        }

        assert_eq!(out, indented(pieces.concat().as_bytes()));
    }

    #[test]
    fn indentation_is_four_spaces_and_empty_lists_stay_closed() {
        let compact = br#"[{"a":[],"b":{},"c":"x,{\"","d":[1,2]}]"#;
        let expected = "[\n    {\n        \"a\": [],\n        \"b\": {},\n        \"c\": \"x,{\\\"\",\n        \"d\": [\n            1,\n            2\n        ]\n    }\n]";

        assert_eq!(String::from_utf8(indented(compact)).unwrap(), expected);
    }
}
