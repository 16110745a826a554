//! What Go's standard library says about numbers, durations and quoted text. Clients see these words.

/// Nanoseconds in one unit of a Go duration.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// An unsigned number in base 10 as `strconv.ParseUint` reads it: digits only.
///
/// # Errors
/// The text of Go's error.
pub fn parse_uint(text: &[u8]) -> Result<u64, String> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(format!(
            "strconv.ParseUint: parsing {}: invalid syntax",
            quote(text)
        ));
    }
    let mut value = 0u64;
    for digit in text {
        let next = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(u64::from(digit - b'0')));
        let Some(next) = next else {
            return Err(format!(
                "strconv.ParseUint: parsing {}: value out of range",
                quote(text)
            ));
        };
        value = next;
    }
    Ok(value)
}

/// A duration such as `1h30m`, `1.5s` or `-10ms` in nanoseconds.
///
/// # Errors
/// The text of Go's error.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let (nanos, tail) = one_part(text, rest, &invalid)?;
        total = total
            .checked_add(nanos)
            .filter(|t| *t <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = tail;
    }
    if negative {
        return Ok(0i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

/// A duration as Go prints it: `1h0m0s`, `1.5s`, `250ms`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |unit: u64| {
        let digits = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        match digits.trim_end_matches('0') {
            "" => String::new(),
            digits => format!(".{digits}"),
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}{}\u{b5}s", nanos / 1_000, fraction(1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}{}ms", nanos / 1_000_000, fraction(1_000_000)),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let rest = format!("{rest}{}s", fraction(1_000_000_000));
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}"),
                (0, _) => format!("{sign}{minutes}m{rest}"),
                _ => format!("{sign}{hours}h{minutes}m{rest}"),
            }
        }
    }
}

/// One number with its unit; answers its nanoseconds and what follows.
fn one_part<'a>(text: &str, part: &'a str, invalid: &dyn Fn() -> String) -> Result<(u64, &'a str), String> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let whole_len = digits(part);
    let whole = &part[..whole_len];
    let mut rest = &part[whole_len..];
    let mut fraction = "";
    let mut has_point = false;
    if let Some(after) = rest.strip_prefix('.') {
        has_point = true;
        fraction = &after[..digits(after)];
        rest = &after[fraction.len()..];
    }
    if whole.is_empty() && (fraction.is_empty() || !has_point) {
        return Err(invalid());
    }
    let unit_len = rest
        .bytes()
        .take_while(|b| *b != b'.' && !b.is_ascii_digit())
        .count();
    let unit = &rest[..unit_len];
    if unit.is_empty() {
        return Err(format!(
            "time: missing unit in duration {}",
            quote(text.as_bytes())
        ));
    }
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let (unit, text) = (quote(unit.as_bytes()), quote(text.as_bytes()));
        return Err(format!("time: unknown unit {unit} in duration {text}"));
    };
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().map_err(|_| invalid())?
    };
    let nanos = whole
        .checked_mul(*scale)
        .filter(|n| *n <= 1 << 63)
        .ok_or_else(invalid)?;
    let nanos = nanos
        .checked_add(fraction_nanos(fraction, *scale))
        .ok_or_else(invalid)?;
    Ok((nanos, &rest[unit_len..]))
}

/// The nanoseconds of a decimal fraction of a unit, cut off below one; digits beyond 18 cannot matter.
fn fraction_nanos(fraction: &str, scale: u64) -> u64 {
    let mut value = 0u128;
    let mut power = 1u128;
    for digit in fraction.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        power *= 10;
    }
    u64::try_from(value * u128::from(scale) / power).unwrap_or(u64::MAX)
}

/// Text between double quotes, escaped as Go's `%q` does.
pub fn quote(text: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Writing to a String cannot fail.
            let _ = match c {
                '"' | '\\' => write!(out, "\\{c}"),
                '\u{7}' => out.write_str("\\a"),
                '\u{8}' => out.write_str("\\b"),
                '\u{b}' => out.write_str("\\v"),
                '\u{c}' => out.write_str("\\f"),
                '\n' => out.write_str("\\n"),
                '\r' => out.write_str("\\r"),
                '\t' => out.write_str("\\t"),
                c if is_print(c) => out.write_char(c),
                c if u32::from(c) < 0x80 => write!(out, "\\x{:02x}", u32::from(c)),
                c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)),
                c => write!(out, "\\U{:08x}", u32::from(c)),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
pub fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // The standard library keeps its table of printable characters behind `escape_debug`, which leaves exactly
    // these as they are. A combining mark is only escaped at the start of a text, hence the letter before it.
    let mut text = String::with_capacity(8);
    text.push('x');
    text.push(c);
    text.escape_debug().nth(1) == Some(c)
}

/// Base64 as Go decodes it, which overlooks line breaks. `decode` does not, and is asked again without them when it fails.
///
/// # Errors
/// The first of `decode`, when there are no line breaks; else the second.
pub fn decode_base64<E>(text: &str, decode: impl Fn(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
    decode(text.as_bytes()).or_else(|error| {
        if !text.contains(['\r', '\n']) {
            return Err(error);
        }
        let unbroken: Vec<u8> = text
            .bytes()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect();
        decode(&unbroken)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5ms", 500_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("-1.5h", -5_400_000_000_000),
            ("+1m", 60_000_000_000),
            ("2\u{b5}s", 2_000),
            ("1.0000000000000000000001s", 1_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn durations_fail_with_the_words_of_go() {
        for (text, error) in [
            ("", r#"time: invalid duration """#),
            ("x", r#"time: invalid duration "x""#),
            ("-", r#"time: invalid duration "-""#),
            (".s", r#"time: invalid duration ".s""#),
            ("10", r#"time: missing unit in duration "10""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("1s2", r#"time: missing unit in duration "1s2""#),
            ("9999999999h", r#"time: invalid duration "9999999999h""#),
        ] {
            assert_eq!(parse_duration(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for text in [
            "0s",
            "1ns",
            "1.5\u{b5}s",
            "10ms",
            "2.000001ms",
            "1s",
            "1.5s",
            "1m0s",
            "1h0m0.25s",
            "24h0m0s",
            "-1m1s",
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn numbers_fail_with_the_words_of_go() {
        assert_eq!(parse_uint(b"18446744073709551615"), Ok(u64::MAX));
        for text in ["", "-1", "+1", "0x10", "1.0", " 1", "1_0"] {
            let error = parse_uint(text.as_bytes()).unwrap_err();
            assert_eq!(
                error,
                format!("strconv.ParseUint: parsing \"{text}\": invalid syntax")
            );
        }
        let error = parse_uint(b"18446744073709551616").unwrap_err();
        assert_eq!(
            error,
            "strconv.ParseUint: parsing \"18446744073709551616\": value out of range"
        );
    }

    #[test]
    fn quoting_escapes_as_percent_q() {
        assert_eq!(quote(b"a\"b\\\n\x00\x7f"), r#""a\"b\\\n\x00\x7f""#);
        assert_eq!(
            quote("\u{e9}\u{2028}\u{10ffff}".as_bytes()),
            "\"\u{e9}\\u2028\\U0010ffff\""
        );
        assert_eq!(quote(b"\xff"), r#""\xff""#);
    }

    #[test]
    fn printable_characters_are_those_of_go() {
        for c in ['a', ' ', '~', '\u{e9}', '\u{20ac}', '\u{301}', '\u{ad5c}'] {
            assert!(is_print(c), "{c:?}");
        }
        for c in [
            '\0', '\x7f', '\u{85}', '\u{a0}', '\u{200b}', '\u{2028}', '\u{e000}', '\u{378}',
        ] {
            assert!(!is_print(c), "{c:?}");
        }
    }

    #[test]
    fn line_breaks_are_taken_out_only_when_there_are_any() {
        let decode = |text: &[u8]| match text {
            b"ab" => Ok(b"x".to_vec()),
            other => Err(other.len()),
        };

        assert_eq!(decode_base64("ab", decode), Ok(b"x".to_vec()));
        assert_eq!(decode_base64("a\r\nb\n", decode), Ok(b"x".to_vec()));
        assert_eq!(decode_base64("a b", decode), Err(3));
        assert_eq!(decode_base64("a\nb\nc", decode), Err(3));
    }
}
