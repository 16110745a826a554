//! Text in double quotes as Go prints it with `%q`, since Consul's messages quote keys and sessions so.

use std::fmt::Write;

/// Quotes bytes; what is no UTF-8 appears as `\xNN`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_char(&mut text, c));
        chunk
            .invalid()
            .iter()
            .for_each(|byte| push_hex(&mut text, 'x', 2, u32::from(*byte)));
    }
    text.push('"');
    text
}

fn push_char(text: &mut String, c: char) {
    match c {
        '"' | '\\' => text.extend(['\\', c]),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        ' '..='~' => text.push(c),
        '\0'..='\x1f' | '\x7f' => push_hex(text, 'x', 2, u32::from(c)),
        c if !c.is_control() && !c.is_whitespace() => text.push(c),
        '\0'..='\u{ffff}' => push_hex(text, 'u', 4, u32::from(c)),
        c => push_hex(text, 'U', 8, u32::from(c)),
    }
}

fn push_hex(text: &mut String, kind: char, width: usize, number: u32) {
    let written = write!(text, "\\{kind}{number:0width$x}");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quote(b"plain"), "\"plain\"");
        assert_eq!(quote(b"\0x"), "\"\\x00x\"");
        assert_eq!(quote(b"a\"b\\c\n"), "\"a\\\"b\\\\c\\n\"");
        assert_eq!(quote("é\u{85}\u{2028}".as_bytes()), "\"é\\u0085\\u2028\"");
        assert_eq!(quote(b"\xffz"), "\"\\xffz\"");
    }
}
