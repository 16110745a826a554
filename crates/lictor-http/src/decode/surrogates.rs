//! Escapes of halves of surrogate pairs, which are no text.

/// The JSON with U+FFFD for each half that stands alone; `None` if there is none.
pub(super) fn mended(json: &str) -> Option<String> {
    let mut lone = Vec::new();
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &bytes[at..]) {
        at += next;
        at += match half(&bytes[at..]) {
            None => 2,
            Some(Half::First) if half(&bytes[at + ESCAPE_LEN..]) == Some(Half::Second) => 2 * ESCAPE_LEN,
            Some(_) => {
                lone.push(at);
                ESCAPE_LEN
            }
        };
        if at > bytes.len() {
            break;
        }
    }
    if lone.is_empty() {
        return None;
    }
    let mut text = json.to_owned();
    for at in lone {
        text.replace_range(at..at + ESCAPE_LEN, "\\ufffd");
    }
    Some(text)
}

/// The length of `\uXXXX`.
const ESCAPE_LEN: usize = 6;

#[derive(Debug, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

/// The half that an escape at the start stands for, if for any.
fn half(bytes: &[u8]) -> Option<Half> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    // `+123` is no four digits.
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)? {
        0xd800..=0xdbff => Some(Half::First),
        0xdc00..=0xdfff => Some(Half::Second),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they were recorded.
    #[test]
    fn halves_that_stand_alone_are_replaced() {
        for (json, text) in [
            (r#""\ud800""#, "\u{fffd}"),
            (r#""\uDC00x""#, "\u{fffd}x"),
            (r#""\ud800\ud800""#, "\u{fffd}\u{fffd}"),
            (r#""a\ud800\n""#, "a\u{fffd}\n"),
            (r#""\ud800\u0041""#, "\u{fffd}A"),
            (r#""\ud800\\u""#, "\u{fffd}\\u"),
            (r#""\ud800\udbff\udc00""#, "\u{fffd}\u{10fc00}"),
            (r#""é\udfff""#, "é\u{fffd}"),
        ] {
            let mended = mended(json).unwrap();
            assert_eq!(serde_json::from_str::<String>(&mended).unwrap(), text, "{json}");
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for json in [
            "",
            "\\",
            r#""plain""#,
            r#""\ud83d\ude00""#,
            r#""\\ud800""#,
            r#""\\\\ud800""#,
            r#""\u00e9\n""#,
            r#""\u+d80""#,
            r#""\ud8"#,
            r#""\ué12""#,
        ] {
            assert_eq!(mended(json), None, "{json}");
        }
    }
}
