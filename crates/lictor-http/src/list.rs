//! Lists, written piece by piece.
//!
//! A list that is short goes out as one buffer with its length. The text of a long one is never in memory as a whole:
//! its first piece is written by the handler, and the others from the same snapshot of the state as the connection
//! takes them. A client that reads slowly slows the writing.
//!
//! Lists of keys go on from the snapshot itself. All others hold on to the rows that they are going to show, which are
//! shared with the state.

use std::fmt;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use lictor_state::State;

use crate::json::{self, Indenter};
use crate::reply::{Indent, Layout, Reply};
use crate::routes::kv;

/// A list of up to so many bytes is one buffer.
const WHOLE_MAX_BYTES: usize = 1024 * 1024;
/// The pieces of a longer one, after the first.
const PIECE_BYTES: usize = 128 * 1024;

/// An entry of a list that is no list of keys: rows shared with the state.
pub(crate) trait Entry: fmt::Debug + Send + Sync + 'static {
    /// Writes it as compact JSON.
    fn push(&self, out: &mut Vec<u8>);
}

/// A JSON list of these entries.
pub(crate) fn of<E: Entry>(entries: impl Iterator<Item = E>) -> Reply {
    within(b"[".to_vec(), entries, &b"]"[..])
}

/// A list of these entries within a larger text: `head` ends in the bracket that opens the list, `tail` begins with
/// the one that closes it.
pub(crate) fn within<E: Entry>(
    head: Vec<u8>,
    mut entries: impl Iterator<Item = E>,
    tail: impl Into<Bytes>,
) -> Reply {
    let (mut first, tail) = (head, tail.into());
    let bracket = first.len();
    while first.len() < WHOLE_MAX_BYTES {
        let Some(entry) = entries.next() else {
            first.extend_from_slice(&tail);
            return Reply::json_bytes(first);
        };
        if first.len() > bracket {
            first.push(b',');
        }
        entry.push(&mut first);
    }
    let left: Vec<E> = entries.collect();
    let rest = Entries {
        of_one_kind: Arc::new(left),
        next: 0,
        tail,
    };
    Reply::list(first.into(), Rest(Source::Entries(rest)))
}

/// What is listed of keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    /// Rows as JSON objects.
    Rows,
    /// Names, cut behind the separator; an empty one cuts nothing.
    Keys { separator: &'a [u8] },
}

/// The list of keys below a prefix; `None` if there is nothing.
pub(crate) fn of_keys(state: &State, prefix: &[u8], form: Form<'_>) -> Option<Reply> {
    let mut first = Vec::with_capacity(4096);
    first.push(b'[');
    let next = push(state, prefix, form, prefix, &mut first, WHOLE_MAX_BYTES);
    if let Some(next) = next {
        let rest = Keys {
            state: state.clone(),
            prefix: Bytes::copy_from_slice(prefix),
            separator: match form {
                Form::Rows => None,
                Form::Keys { separator } => Some(Bytes::copy_from_slice(separator)),
            },
            next: Some(next),
        };
        return Some(Reply::list(first.into(), Rest(Source::Keys(Box::new(rest)))));
    }
    if first.len() == 1 {
        return None;
    }
    first.push(b']');
    Some(Reply::json_bytes(first))
}

/// Writes entries from `from` on, each but the list's first behind a comma, until `out` has `full` bytes. Answers where
/// to go on, `None` at the end.
fn push(
    state: &State,
    prefix: &[u8],
    form: Form<'_>,
    from: &[u8],
    out: &mut Vec<u8>,
    full: usize,
) -> Option<Vec<u8>> {
    match form {
        Form::Rows => {
            for row in state.kv_list_from(prefix, from) {
                if out.len() >= full {
                    return Some(row.key().to_vec());
                }
                out.reserve(2 + kv::row_len_bound(row));
                comma(out);
                kv::push_row(out, row);
            }
            None
        }
        Form::Keys { separator } => state.kv_keys(prefix, separator, from, &mut |name| {
            comma(out);
            json::push_str(out, name);
            if out.len() >= full {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }),
    }
}

/// Only the list's first entry stands behind the bracket.
fn comma(out: &mut Vec<u8>) {
    if out != b"[" {
        out.push(b',');
    }
}

/// What is left of a list whose first piece is written.
#[derive(Debug, Clone)]
pub(crate) struct Rest(Source);

#[derive(Debug, Clone)]
enum Source {
    Keys(Box<Keys>),
    Entries(Entries),
}

impl Rest {
    /// Writes the next piece; whether it is not the last.
    fn push(&mut self, out: &mut Vec<u8>, full: usize) -> bool {
        match &mut self.0 {
            Source::Keys(keys) => keys.push(out, full),
            Source::Entries(entries) => entries.push(out, full),
        }
    }
}

/// A snapshot, and where to go on.
#[derive(Debug, Clone)]
struct Keys {
    state: State,
    prefix: Bytes,
    /// Of a list of names.
    separator: Option<Bytes>,
    /// `None` when only the closing bracket is missing.
    next: Option<Vec<u8>>,
}

impl Keys {
    fn push(&mut self, out: &mut Vec<u8>, full: usize) -> bool {
        let form = match &self.separator {
            None => Form::Rows,
            Some(separator) => Form::Keys { separator },
        };
        if let Some(from) = self.next.take() {
            self.next = push(&self.state, &self.prefix, form, &from, out, full);
        }
        if self.next.is_none() {
            out.push(b']');
        }
        self.next.is_some()
    }
}

/// The entries that stand behind a first piece, which has at least one.
#[derive(Debug, Clone)]
struct Entries {
    of_one_kind: Arc<dyn Numbered>,
    next: usize,
    tail: Bytes,
}

impl Entries {
    fn push(&mut self, out: &mut Vec<u8>, full: usize) -> bool {
        while out.len() < full {
            let comma_at = out.len();
            out.push(b',');
            if !self.of_one_kind.push_entry(self.next, out) {
                out.truncate(comma_at);
                out.extend_from_slice(&self.tail);
                return false;
            }
            self.next += 1;
        }
        true
    }
}

/// Entries of one kind.
trait Numbered: fmt::Debug + Send + Sync {
    /// Writes one; whether there is one of this number.
    fn push_entry(&self, number: usize, out: &mut Vec<u8>) -> bool;
}

impl<E: Entry> Numbered for Vec<E> {
    fn push_entry(&self, number: usize, out: &mut Vec<u8>) -> bool {
        let entry = self.get(number);
        if let Some(entry) = entry {
            entry.push(out);
        }
        entry.is_some()
    }
}

/// A long list on its way to one client.
pub(crate) struct Pieces {
    first: Option<Bytes>,
    /// `None` once the last piece is written.
    rest: Option<Rest>,
    indenter: Option<Indenter>,
    ends_in_newline: bool,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Pieces {
    pub(crate) fn new(first: Bytes, rest: Rest, layout: Layout) -> Self {
        let gzip = || GzEncoder::new(Vec::with_capacity(PIECE_BYTES), Compression::fast());
        Self {
            first: Some(first),
            rest: Some(rest),
            indenter: (layout.indent != Indent::None).then(Indenter::default),
            ends_in_newline: layout.indent == Indent::Pretty,
            gzip: layout.gzip.then(gzip),
        }
    }

    /// Whether [`Self::next`] has nothing more to answer.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_none()
    }

    /// The next piece, laid out and packed.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        // Gzip may keep a whole piece to itself.
        while let Some(rest) = &mut self.rest {
            let mut is_last = false;
            let compact = self.first.take().unwrap_or_else(|| {
                // The last entry of a piece goes over its bound.
                let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
                is_last = !rest.push(&mut piece, PIECE_BYTES);
                piece.into()
            });
            if is_last {
                self.rest = None;
            }
            let text = self.laid_out(compact, is_last);
            let packed = match self.gzip.take() {
                None => text,
                Some(gzip) => self.packed(gzip, &text, is_last),
            };
            if !packed.is_empty() {
                return Some(packed);
            }
        }
        None
    }

    fn laid_out(&mut self, compact: Bytes, is_last: bool) -> Bytes {
        let Some(indenter) = &mut self.indenter else {
            return compact;
        };
        let mut text = Vec::with_capacity(compact.len() * 2);
        indenter.push(&compact, &mut text);
        if is_last && self.ends_in_newline {
            text.push(b'\n');
        }
        text.into()
    }

    fn packed(&mut self, mut gzip: GzEncoder<Vec<u8>>, text: &[u8], is_last: bool) -> Bytes {
        // Writing to memory does not fail. If it did, the client would see a stream without its end.
        let packed = gzip.write_all(text).and_then(|()| {
            if is_last {
                gzip.finish()
            } else {
                let packed = std::mem::take(gzip.get_mut());
                self.gzip = Some(gzip);
                Ok(packed)
            }
        });
        packed.map_or_else(
            |_| {
                self.rest = None;
                Bytes::new()
            },
            Bytes::from,
        )
    }
}

#[cfg(test)]
mod tests {
    use lictor_proto::{Command, LogIndex, Term, v1};
    use lictor_state::Effects;

    use super::*;

    fn set(state: &mut State, at: u64, key: &str) {
        let command = Command::KvSet(v1::KvSet {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::from_static(b"value"),
            flags: 0,
            cas: None,
        });
        state.apply(LogIndex(at), Term(1), &command, &mut Effects::default());
    }

    fn state() -> State {
        let mut state = State::default();
        let keys = ["a", "d/", "d/1", "d/2/x", "d/2/y", "d/2/z", "d/3", "e/1"];
        for (key, at) in keys.iter().zip(2..) {
            set(&mut state, at, key);
        }
        state
    }

    fn rest(state: &State, prefix: &'static [u8], form: Form<'static>) -> Rest {
        Rest(Source::Keys(Box::new(Keys {
            state: state.clone(),
            prefix: Bytes::from_static(prefix),
            separator: match form {
                Form::Rows => None,
                Form::Keys { separator } => Some(Bytes::from_static(separator)),
            },
            next: Some(prefix.to_vec()),
        })))
    }

    /// One of 100,000 bytes.
    #[derive(Debug)]
    struct Long(u8);

    impl Entry for Long {
        fn push(&self, out: &mut Vec<u8>) {
            json::push_str(out, &vec![self.0; 100_000 - 2]);
        }
    }

    fn long(count: u8) -> Reply {
        within(
            b"{\"L\":[".to_vec(),
            (b'a'..b'a' + count).map(Long),
            &b"],\"E\":null}"[..],
        )
    }

    #[test]
    fn entries_of_a_short_list_are_one_buffer() {
        assert_eq!(long(0).body_text(), "{\"L\":[],\"E\":null}");
        assert_eq!(long(10).body_text().len(), 6 + 10 * 100_000 + 9 + 11);
    }

    #[test]
    fn entries_of_a_long_list_come_in_pieces() {
        for count in [11, 12, 13, 26] {
            let mut pieces = long(count).into_pieces();
            let mut text = Vec::new();
            while let Some(piece) = pieces.next() {
                assert!(piece.len() <= WHOLE_MAX_BYTES + 100_000);
                text.extend_from_slice(&piece);
            }

            let shown: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let entries = shown["L"].as_array().unwrap();
            assert_eq!(entries.len(), usize::from(count));
            for (at, entry) in entries.iter().enumerate() {
                assert_eq!(
                    entry.as_str().unwrap().as_bytes()[99_997],
                    b'a' + u8::try_from(at).unwrap()
                );
            }
            assert!(shown["E"].is_null());
        }
    }

    const FORMS: [Form<'static>; 3] = [
        Form::Rows,
        Form::Keys { separator: b"" },
        Form::Keys { separator: b"/" },
    ];

    /// Rule R10 also counts folded names; here they must not be parted or told twice.
    #[test]
    fn pieces_of_any_size_are_the_whole_list() {
        let state = state();
        for prefix in [&b""[..], b"d", b"d/", b"e/"] {
            for form in FORMS {
                let whole = of_keys(&state, prefix, form).unwrap().body_text();
                for full in 1..whole.len() {
                    let mut rest = rest(&state, prefix, form);
                    let mut joined = b"[".to_vec();
                    loop {
                        let mut piece = Vec::new();
                        if joined == b"[" {
                            std::mem::swap(&mut piece, &mut joined);
                        }
                        let full = full + piece.len();
                        let more = rest.push(&mut piece, full);
                        joined.append(&mut piece);
                        if !more {
                            break;
                        }
                    }
                    assert_eq!(String::from_utf8(joined).unwrap(), whole, "{form:?} {full}");
                }
            }
        }
    }

    #[test]
    fn pieces_come_from_the_state_that_the_list_began_with() {
        let mut state = state();
        let expected = of_keys(&state, b"", Form::Rows).unwrap().body_text();
        let mut pieces = Pieces::new(
            Bytes::from_static(b"["),
            rest(&state, b"", Form::Rows),
            Layout::default(),
        );
        let first = pieces.next().unwrap();

        for (key, at) in ["d/1", "d/2/new", "zz"].iter().zip(20..) {
            set(&mut state, at, key);
        }

        let second = pieces.next().unwrap();
        assert!(pieces.is_over() && pieces.next().is_none());
        // The test begins the list before its first entry, which then stands behind a comma.
        let joined = [&first[..], &second[..]].concat();
        assert_eq!(
            String::from_utf8(joined).unwrap(),
            expected.replacen('[', "[,", 1)
        );
    }
}
