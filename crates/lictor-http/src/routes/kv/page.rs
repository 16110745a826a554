//! Lists of keys for clients that ask for a part of them: by page, by pattern, backwards, without values, or counted.

use std::ops::ControlFlow;

use hyper::header::{HeaderName, HeaderValue};
use lictor_state::{KvRow, State};

use super::{push_row_with, row_len_bound};
use crate::extras::Extras;
use crate::json;
use crate::list;
use crate::reply::Reply;

/// Where the next page begins: the value for `?after=`. Absent on the last page.
const X_NEXT: HeaderName = HeaderName::from_static("x-lictor-next");
/// Names that one page compares with a pattern; it may end early, and then says where to go on.
const MATCHED_MAX: usize = 100_000;

/// What a page shows.
#[derive(Debug)]
enum Entry {
    Row(KvRow),
    /// Without its value.
    Bare(KvRow),
    Name(Box<[u8]>),
}

impl list::Entry for Entry {
    fn push(&self, out: &mut Vec<u8>) {
        match self {
            Self::Row(row) => {
                out.reserve(row_len_bound(row));
                push_row_with(out, row, true);
            }
            Self::Bare(row) => push_row_with(out, row, false),
            Self::Name(name) => json::push_str(out, name),
        }
    }
}

/// What a walk comes by.
enum Found<'a> {
    Row(&'a KvRow),
    Name(&'a [u8]),
}

impl Found<'_> {
    fn name(&self) -> &[u8] {
        match self {
            Self::Row(row) => row.key(),
            Self::Name(name) => name,
        }
    }

    fn entry(&self, no_value: bool) -> Entry {
        match *self {
            Self::Row(row) if no_value => Entry::Bare(row.clone()),
            Self::Row(row) => Entry::Row(row.clone()),
            Self::Name(name) => Entry::Name(name.into()),
        }
    }
}

/// A page of the rows below a prefix, or with a separator of their names cut behind it. Nothing is an empty list.
pub(super) fn reply(state: &State, prefix: &[u8], separator: Option<&[u8]>, extras: &Extras<'_>) -> Reply {
    let walk = Walk {
        state,
        prefix,
        separator,
        after: extras.after.as_deref(),
    };
    let (mut entries, mut next) = (Vec::new(), None);
    let (mut count, mut matched) = (0, 0);
    let mut last = Vec::new();
    let mut take = |found: Found<'_>| {
        if extras.limit == Some(count) || matched == MATCHED_MAX {
            next = Some(std::mem::take(&mut last));
            return ControlFlow::Break(());
        }
        last.clear();
        last.extend_from_slice(found.name());
        if let Some(glob) = &extras.matching {
            matched += 1;
            if !glob.is_match(found.name()) {
                return ControlFlow::Continue(());
            }
        }
        count += 1;
        if !extras.is_count {
            entries.push(found.entry(extras.no_value));
        }
        ControlFlow::Continue(())
    };
    if extras.is_reverse {
        walk.back(&mut take);
    } else {
        walk.forth(&mut take);
    }
    let reply = if extras.is_count {
        Reply::json_bytes(format!("{{\"Count\":{count}}}"))
    } else {
        list::of(entries.into_iter())
    };
    match next.and_then(|key| HeaderValue::try_from(super::query_escape(&key)).ok()) {
        Some(next) => reply.with_header(X_NEXT, next),
        None => reply,
    }
}

/// Whoever takes what a walk comes by; it may break it off.
type Take<'t> = dyn FnMut(Found<'_>) -> ControlFlow<()> + 't;

struct Walk<'a> {
    state: &'a State,
    prefix: &'a [u8],
    /// An empty one cuts nothing.
    separator: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
}

impl Walk<'_> {
    fn forth(&self, take: &mut Take<'_>) {
        let from = match self.after.map(|after| self.cut(after)) {
            // Behind all that a cut name stands for.
            Some((name, true)) => match lictor_state::prefix_end(name) {
                Some(end) => end,
                None => return,
            },
            Some((key, false)) => [key, b"\0"].concat(),
            None => Vec::new(),
        };
        let from = from.max(self.prefix.to_vec());
        match self.separator {
            None => {
                let mut rows = self.state.kv_list_from(self.prefix, &from);
                // Whether it was broken off is known to whoever takes.
                let _ = rows.try_for_each(|row| take(Found::Row(row)));
            }
            Some(separator) => {
                let mut each = |name: &[u8]| take(Found::Name(name));
                self.state.kv_keys(self.prefix, separator, &from, &mut each);
            }
        }
    }

    fn back(&self, take: &mut Take<'_>) {
        let mut before = self.after.map(|after| self.cut(after).0.to_vec());
        loop {
            let mut leap = None;
            for row in self.state.kv_list_back(self.prefix, before.as_deref()) {
                let (name, is_cut) = self.cut(row.key());
                let found = match self.separator {
                    None => Found::Row(row),
                    Some(_) => Found::Name(name),
                };
                if take(found).is_break() {
                    return;
                }
                if is_cut {
                    leap = Some(name.to_vec());
                    break;
                }
            }
            match leap {
                Some(name) => before = Some(name),
                None => return,
            }
        }
    }

    /// The name under which a key is listed, and whether that is cut.
    fn cut<'k>(&self, key: &'k [u8]) -> (&'k [u8], bool) {
        let separator = self.separator.filter(|separator| !separator.is_empty());
        let at = separator
            .zip(key.strip_prefix(self.prefix))
            .and_then(|(separator, rest)| {
                let at = rest.windows(separator.len()).position(|part| part == separator)?;
                Some(self.prefix.len() + at + separator.len())
            });
        at.map_or((key, false), |end| (&key[..end], true))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lictor_proto::{Command, LogIndex, Term, v1};
    use lictor_state::Effects;

    use super::*;
    use crate::query::Query;

    const KEYS: [&str; 8] = ["a", "d/", "d/1", "d/2/x", "d/2/y", "d/3", "e/1", "e/2"];

    fn state() -> State {
        let mut state = State::default();
        for (key, at) in KEYS.iter().zip(2..) {
            let command = Command::KvSet(v1::KvSet {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: Bytes::from_static(b"v"),
                flags: 0,
                cas: None,
            });
            state.apply(LogIndex(at), Term(1), &command, &mut Effects::default());
        }
        state
    }

    /// The names of a page, and where the next one begins.
    fn page(prefix: &str, separator: Option<&str>, query: &str) -> (Vec<String>, Option<String>) {
        let state = state();
        let extras = Extras::read(Query::new(query.as_bytes())).unwrap().unwrap();
        let separator = separator.map(str::as_bytes);
        let reply = reply(&state, prefix.as_bytes(), separator, &extras);
        let next = reply
            .extra_header(&X_NEXT)
            .map(|next| next.to_str().unwrap().to_owned());
        let shown: serde_json::Value = serde_json::from_str(&reply.body_text()).unwrap();
        let name = |entry: &serde_json::Value| match entry {
            serde_json::Value::String(name) => name.clone(),
            row => row["Key"].as_str().unwrap().to_owned(),
        };
        let names = shown.as_array().unwrap().iter().map(name).collect();
        (names, next)
    }

    #[test]
    fn pages_of_any_size_in_both_directions_are_the_whole_list() {
        for separator in [None, Some(""), Some("/")] {
            for prefix in ["", "d/", "d/2", "none"] {
                let (whole, _) = page(prefix, separator, "limit=1000");
                let (mut back, _) = page(prefix, separator, "reverse");
                back.reverse();
                assert_eq!(back, whole, "{separator:?} {prefix}");
                for direction in ["", "&reverse"] {
                    for limit in 1..=whole.len() {
                        let mut joined = Vec::new();
                        let mut after = String::new();
                        loop {
                            let (names, next) =
                                page(prefix, separator, &format!("limit={limit}{direction}{after}"));
                            joined.extend(names);
                            let Some(next) = next else { break };
                            after = format!("&after={next}");
                        }
                        if !direction.is_empty() {
                            joined.reverse();
                        }
                        assert_eq!(joined, whole, "{separator:?} {prefix} {direction} {limit}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_page_may_begin_behind_a_key_that_is_not_there() {
        assert_eq!(page("d/", None, "after=d/2&limit=1").0, ["d/2/x"]);
        assert_eq!(page("d/", None, "after=a&limit=1").0, ["d/"]);
        assert_eq!(page("d/", None, "after=z").0, [""; 0]);
        assert_eq!(page("d/", None, "after=z&reverse&limit=1").0, ["d/3"]);
        assert_eq!(
            page("d/", Some("/"), "after=d/2/x").0,
            ["d/3"],
            "it is listed with its folder"
        );
    }

    #[test]
    fn patterns_choose_among_the_names_that_are_listed() {
        assert_eq!(page("", None, "match=d/*").0, ["d/", "d/1", "d/3"]);
        assert_eq!(page("", Some("/"), "match=?/").0, ["d/", "e/"]);
        assert_eq!(page("", None, "match=**1&reverse").0, ["e/1", "d/1"]);
    }

    #[test]
    fn rows_are_shown_without_values_and_counted() {
        let extras = |query: &'static str| Extras::read(Query::new(query.as_bytes())).unwrap().unwrap();

        let bare = reply(&state(), b"a", None, &extras("novalue")).body_text();
        let count = reply(&state(), b"d/", None, &extras("count")).body_text();
        let folded = reply(&state(), b"d/", Some(b"/"), &extras("count")).body_text();

        assert!(bare.contains("\"Value\":null"), "{bare}");
        assert_eq!(
            (count.as_str(), folded.as_str()),
            (r#"{"Count":5}"#, r#"{"Count":4}"#)
        );
    }
}
