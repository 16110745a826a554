//! What `inspect` prints, laid out as Consul's.

use std::fmt::Write as _;

use lictor_archive::{Inspection, Stat};
use serde_json::{Value, json};

/// Blanks between columns.
const GAP: usize = 6;

/// The lines of the table.
pub(super) fn pretty(found: &Inspection, with_keys: bool) -> Vec<String> {
    let meta = &found.meta;
    let head = [
        ["ID".to_owned(), meta.id.clone()],
        ["Size".to_owned(), meta.size.to_string()],
        ["Index".to_owned(), meta.index.to_string()],
        ["Term".to_owned(), meta.term.to_string()],
        ["Version".to_owned(), meta.version.to_string()],
    ];
    let mut lines = aligned(&head);
    lines.push(String::new());
    lines.extend(counted("Type", &found.kinds));
    if with_keys {
        lines.push(String::new());
        lines.extend(counted("Key Name", &found.keys));
    }
    lines
}

/// The same as JSON.
///
/// # Errors
/// None in practice: names are texts.
pub(super) fn json(found: &Inspection, with_keys: bool) -> std::io::Result<String> {
    let meta = &found.meta;
    let keys = if with_keys {
        stats(&found.keys)
    } else {
        Value::Null
    };
    let all = json!({
        "Meta": {
            "ID": meta.id,
            "Size": meta.size,
            "Index": meta.index,
            "Term": meta.term,
            "Version": meta.version,
        },
        "Stats": stats(&found.kinds),
        "StatsKV": keys,
        "TotalSize": total(&found.kinds),
        "TotalSizeKV": total(&found.keys),
    });
    let mut text = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut out = serde_json::Serializer::with_formatter(&mut text, layout);
    serde::Serialize::serialize(&all, &mut out)?;
    String::from_utf8(text).map_err(std::io::Error::other)
}

fn stats(stats: &[Stat]) -> Value {
    let stat = |stat: &Stat| json!({ "Name": stat.name, "Sum": stat.sum_bytes, "Count": stat.count });
    stats.iter().map(stat).collect()
}

fn total(stats: &[Stat]) -> u64 {
    stats.iter().map(|stat| stat.sum_bytes).sum()
}

fn counted(what: &str, stats: &[Stat]) -> Vec<String> {
    let line = || ["----".to_owned(), "----".to_owned(), "----".to_owned()];
    let row = |stat: &Stat| [stat.name.clone(), stat.count.to_string(), size(stat.sum_bytes)];
    let mut rows = vec![[what.to_owned(), "Count".to_owned(), "Size".to_owned()], line()];
    rows.extend(stats.iter().map(row));
    rows.push(line());
    rows.push(["Total".to_owned(), String::new(), size(total(stats))]);
    aligned(&rows)
}

/// Each column as wide as its widest cell; the last one as its cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0) + GAP);
    let line = |row: &[String; N]| {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 < N { widths[column] } else { 0 };
            // A string takes everything.
            let _ = write!(line, "{cell:width$}");
        }
        line
    };
    rows.iter().map(line).collect()
}

/// In the largest unit that it fills, with at most one digit behind the point.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(*unit) / 2) / u128::from(*unit);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, tenth) => format!("{whole}.{tenth}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use lictor_archive::Meta;

    use super::*;

    fn stat(name: &str, count: u64, sum_bytes: u64) -> Stat {
        Stat {
            name: name.to_owned(),
            sum_bytes,
            count,
        }
    }

    fn found() -> Inspection {
        let meta = Meta {
            size: 5912,
            ..Meta::new(29, 2, 1_795_275_395_425, Vec::new())
        };
        Inspection {
            meta,
            kinds: vec![stat("Register", 8, 5634), stat("KVS", 3, 278)],
            keys: vec![stat("locks/l", 1, 201), stat("app", 2, 77)],
        }
    }

    #[test]
    fn the_table_is_laid_out_as_consuls() {
        let expected = " ID           2-29-1795275395425
 Size         5912
 Index        29
 Term         2
 Version      2

 Type          Count      Size
 ----          ----       ----
 Register      8          5.5KB
 KVS           3          278B
 ----          ----       ----
 Total                    5.8KB

 Key Name      Count      Size
 ----          ----       ----
 locks/l       1          201B
 app           2          77B
 ----          ----       ----
 Total                    278B";

        assert_eq!(pretty(&found(), true).join("\n"), expected);
    }

    #[test]
    fn json_has_consuls_fields() {
        let text = json(&found(), false).expect("JSON");

        assert!(
            text.starts_with("{\n   \"Meta\": {\n      \"ID\": \"2-29-1795275395425\",\n"),
            "{text}"
        );
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value["Stats"][1],
            json!({ "Name": "KVS", "Sum": 278, "Count": 3 })
        );
        assert_eq!(
            (&value["StatsKV"], &value["TotalSizeKV"]),
            (&Value::Null, &json!(278))
        );
    }

    #[test]
    fn sizes_are_those_of_consul() {
        for (bytes, expected) in [
            (0, "0B"),
            (1022, "1022B"),
            (1024, "1KB"),
            (1536, "1.5KB"),
            (10_297, "10.1KB"),
            (1 << 20, "1MB"),
            (u64::MAX, "16777216TB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
