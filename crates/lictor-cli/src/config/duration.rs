//! Durations as Go writes them, since that is what Consul's files and flags contain: `10s`, `1h30m`, `1.5h`.

use std::time::Duration;

/// Reads a duration; negative ones are refused, since none of ours may be.
///
/// # Errors
/// A text that names the value and what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = |why: &str| {
        Err(format!(
            "{why} in duration {text:?} (write it as in 10s, 1m30s or 1.5h)"
        ))
    };
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return refuse("nothing");
    }
    if rest.starts_with('-') {
        return refuse("a negative number");
    }
    let mut total_ns = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else {
            return refuse("a bad number");
        };
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let Some(unit_ns) = unit_ns(&rest[..letters]) else {
            return refuse(if letters == 0 {
                "no unit"
            } else {
                "an unknown unit"
            });
        };
        rest = &rest[letters..];
        total_ns += number * unit_ns;
    }
    Duration::try_from_secs_f64(total_ns / 1e9).or_else(|_| refuse("too large a number"))
}

fn unit_ns(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        for text in [
            "",
            "10",
            "s",
            "10x",
            "-1s",
            "1..5s",
            "1e400h",
            "99999999999999999999h",
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains("duration"), "{error}");
        }
    }
}
