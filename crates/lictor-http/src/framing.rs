//! Follows where requests begin in what an HTTP/1 client sends, and writes their first lines as hyper takes them.
//!
//! `http::Uri` (1.5) drops what follows a `#`, so that a write of `cfg#1` would go to the key `cfg`, and refuses some
//! bytes that Consul takes. So these bytes are escaped in the target of a request before hyper reads it, which changes
//! nothing of what it means; everything else goes through as it came.
//!
//! ```text
//! line ──\n──> headers ──blank line──> head ──hyper took it──> body of a length, or chunks ──> line
//! ```
//! How long a body is, is hyper's to say: hyper gets one head at a time, and what came behind it waits until the
//! request has begun. So a body is never taken for a head, whatever a client sends in one piece.

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use memchr::memchr;
use tokio::io::ReadBuf;

/// How long a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes follow the head.
    Exact(u64),
    /// Chunks follow.
    Chunked,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Framing {
    at: At,
    held: Option<Box<Held>>,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A first line of which nothing is in; line breaks before it are nothing.
    #[default]
    Start,
    /// A first line of which so many spaces are in.
    Line {
        spaces: u8,
    },
    /// The headers, in a line that is blank so far or is not.
    Headers {
        is_blank: bool,
    },
    /// Unknown until the request begins.
    Head,
    Body(u64),
    /// The line that says how long a chunk is.
    ChunkSize {
        size: u64,
        has_digits: bool,
    },
    /// A chunk with its line break.
    Chunk(u64),
    Trailers {
        is_blank: bool,
    },
    /// Hyper sees something else than is seen here, and refuses it.
    Lost,
}

/// What was read from the socket and not yet by hyper. Bounded by what one read takes.
#[derive(Debug, Default)]
struct Held {
    /// To be handed on.
    ready: Bytes,
    /// To be looked at when all before it was handed on.
    raw: Bytes,
}

/// How much of what came may go on.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    len: usize,
    /// Where a request's target is in it.
    target: Range<usize>,
}

impl Framing {
    /// Takes note that hyper took a head.
    pub(crate) fn began(&mut self, length: Length) {
        self.at = match (self.at, length) {
            (At::Head, Length::Exact(0)) => At::Start,
            (At::Head, Length::Exact(len)) => At::Body(len),
            (At::Head, Length::Chunked) => At::CHUNK_SIZE,
            _ => At::Lost,
        };
    }

    /// Whether something is held that hyper has not read.
    pub(crate) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Keeps bytes that were read ahead; nothing else may be held.
    pub(crate) fn hold(&mut self, raw: Bytes) {
        self.held = Some(Box::new(Held {
            ready: Bytes::new(),
            raw,
        }));
    }

    /// Hands on what is held, as far as it may go on and there is room.
    pub(crate) fn fill(&mut self, buf: &mut ReadBuf<'_>) {
        let Some(mut held) = self.held.take() else { return };
        if held.ready.is_empty() {
            let piece = self.piece(&held.raw);
            let raw = held.raw.split_to(piece.len);
            held.ready = if is_plain(&raw[piece.target.clone()]) {
                raw
            } else {
                escaped(&raw, piece.target).into()
            };
        }
        let len = held.ready.len().min(buf.remaining());
        buf.put_slice(&held.ready[..len]);
        held.ready.advance(len);
        if !(held.ready.is_empty() && held.raw.is_empty()) {
            self.held = Some(held);
        }
    }

    /// Looks at what was just read, which `buf` has behind the first `before` bytes, and leaves there what may go on.
    pub(crate) fn filter(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        let piece = self.piece(read);
        let is_plain = is_plain(&read[piece.target.clone()]);
        if is_plain && piece.len == read.len() {
            return;
        }
        let raw = Bytes::copy_from_slice(&read[piece.len..]);
        if is_plain {
            buf.set_filled(before + piece.len);
            self.hold(raw);
            return;
        }
        let ready = escaped(&read[..piece.len], piece.target).into();
        buf.set_filled(before);
        self.held = Some(Box::new(Held { ready, raw }));
        self.fill(buf);
    }

    /// Follows `bytes` up to the end of a head or of a body at most.
    fn piece(&mut self, bytes: &[u8]) -> Piece {
        let mut piece = Piece { len: 0, target: 0..0 };
        while piece.len < bytes.len() {
            let (rest, was) = (&bytes[piece.len..], self.at);
            let (len, at) = was.after(rest);
            if let At::Line { spaces } = was {
                let target = target(&rest[..len], spaces);
                piece.target = piece.len + target.start..piece.len + target.end;
            }
            piece.len += len;
            self.at = at;
            if at == At::Head || (at == At::Start && was != At::Start) {
                break;
            }
        }
        piece
    }
}

impl At {
    const CHUNK_SIZE: Self = Self::ChunkSize {
        size: 0,
        has_digits: true,
    };

    /// How many of these bytes, which are not none, belong to what is now, and what is after them.
    fn after(self, bytes: &[u8]) -> (usize, Self) {
        match self {
            Self::Start => match bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
                Some(at) => (at, Self::Line { spaces: 0 }),
                None => (bytes.len(), Self::Start),
            },
            Self::Line { spaces } => {
                if let Some(at) = memchr(b'\n', bytes) {
                    return (at + 1, Self::Headers { is_blank: true });
                }
                let more = bytes.iter().filter(|byte| **byte == b' ').take(2).count();
                let spaces = spaces.saturating_add(u8::try_from(more).unwrap_or(2));
                (bytes.len(), Self::Line { spaces })
            }
            Self::Headers { is_blank } => match blank_line(bytes, is_blank) {
                Ok(len) => (len, Self::Head),
                Err(is_blank) => (bytes.len(), Self::Headers { is_blank }),
            },
            Self::Body(len) => match taken(len, bytes) {
                (taken, 0) => (taken, Self::Start),
                (taken, left) => (taken, Self::Body(left)),
            },
            Self::ChunkSize { size, has_digits } => chunk_size(bytes, size, has_digits),
            Self::Chunk(len) => match taken(len, bytes) {
                (taken, 0) => (taken, Self::CHUNK_SIZE),
                (taken, left) => (taken, Self::Chunk(left)),
            },
            Self::Trailers { is_blank } => match blank_line(bytes, is_blank) {
                Ok(len) => (len, Self::Start),
                Err(is_blank) => (bytes.len(), Self::Trailers { is_blank }),
            },
            Self::Head | Self::Lost => (bytes.len(), Self::Lost),
        }
    }
}

/// How many of these bytes are among the next `len`, and how many of those are missing.
fn taken(len: u64, bytes: &[u8]) -> (usize, u64) {
    let taken = usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()));
    (taken, len - taken as u64)
}

/// The end of the first blank line, or whether the last line is blank so far.
fn blank_line(bytes: &[u8], mut is_blank: bool) -> Result<usize, bool> {
    let is_nothing = |line: &[u8]| matches!(line, b"" | b"\r");
    let mut at = 0;
    while let Some(len) = memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + len];
        at += len + 1;
        if is_blank && is_nothing(line) {
            return Ok(at);
        }
        is_blank = true;
    }
    Err(is_blank && is_nothing(&bytes[at..]))
}

fn chunk_size(bytes: &[u8], mut size: u64, mut has_digits: bool) -> (usize, At) {
    for (at, byte) in bytes.iter().enumerate() {
        match char::from(*byte).to_digit(16) {
            _ if *byte == b'\n' && size == 0 => return (at + 1, At::Trailers { is_blank: true }),
            // With the line break behind it.
            _ if *byte == b'\n' => return (at + 1, size.checked_add(2).map_or(At::Lost, At::Chunk)),
            Some(digit) if has_digits => {
                let longer = size
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(digit.into()));
                let Some(longer) = longer else {
                    return (bytes.len(), At::Lost);
                };
                size = longer;
            }
            _ => has_digits = false,
        }
    }
    (bytes.len(), At::ChunkSize { size, has_digits })
}

/// Where the target is in a piece of a first line that begins after so many spaces of it.
fn target(line: &[u8], spaces: u8) -> Range<usize> {
    let is_end = |byte: &u8| matches!(byte, b' ' | b'\n');
    let start = match spaces {
        0 => line.iter().position(is_end).map_or(line.len(), |at| at + 1),
        1 => 0,
        _ => line.len(),
    };
    let len = line[start..].iter().position(is_end);
    start..len.map_or(line.len(), |len| start + len)
}

/// Whether hyper takes a target as it is meant.
fn is_plain(target: &[u8]) -> bool {
    !target.iter().copied().any(is_escaped)
}

/// The delimiters of a URI, and what is not ASCII, since it need not be UTF-8.
fn is_escaped(byte: u8) -> bool {
    matches!(byte, b'#' | b'"' | b'<' | b'>' | b'`' | 0x80..)
}

fn escaped(bytes: &[u8], target: Range<usize>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2 * target.len());
    out.extend_from_slice(&bytes[..target.start]);
    for byte in bytes[target.clone()].iter().copied() {
        if is_escaped(byte) {
            out.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
        } else {
            out.push(byte);
        }
    }
    out.extend_from_slice(&bytes[target.end..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper reads of bytes that come in pieces of this length; it takes each head with a body as told.
    fn through(sent: &[u8], piece_len: usize, room: usize, bodies: &[Length]) -> Vec<u8> {
        let mut framing = Framing::default();
        let mut bodies = bodies.iter();
        let mut all = Vec::new();
        let mut buffer = vec![0; room];
        let mut pieces = sent.chunks(piece_len.min(room));
        loop {
            if framing.at == At::Head {
                framing.began(*bodies.next().unwrap());
            }
            let mut buf = ReadBuf::new(&mut buffer);
            if framing.holds() {
                framing.fill(&mut buf);
            } else {
                let Some(piece) = pieces.next() else { return all };
                buf.put_slice(piece);
                framing.filter(&mut buf, 0);
            }
            assert!(!buf.filled().is_empty());
            all.extend_from_slice(buf.filled());
        }
    }

    const SENT: &[u8] = b"PUT /v1/kv/c#1?x=\"<>\" HTTP/1.1\r\nA: \"#\"\r\nContent-Length: 26\r\n\r\n\
        GET /#\" HTTP/1.1\r\nA:#\r\n\r\n#\
        \r\nPUT /`\xe9 HTTP/1.1\nTransfer-Encoding: chunked\n\n\
        1a;x=#\r\nGET /#\" HTTP/1.1\r\nA:#\r\n\r\n#\r\n0\r\nT: #\r\n\r\n\
        GET /a#b#?c#d HTTP/1.1\r\n\r\n";
    const READ: &[u8] = b"PUT /v1/kv/c%231?x=%22%3C%3E%22 HTTP/1.1\r\nA: \"#\"\r\nContent-Length: 26\r\n\r\n\
        GET /#\" HTTP/1.1\r\nA:#\r\n\r\n#\
        \r\nPUT /%60%E9 HTTP/1.1\nTransfer-Encoding: chunked\n\n\
        1a;x=#\r\nGET /#\" HTTP/1.1\r\nA:#\r\n\r\n#\r\n0\r\nT: #\r\n\r\n\
        GET /a%23b%23?c%23d HTTP/1.1\r\n\r\n";

    #[test]
    fn targets_are_escaped_and_nothing_else_however_the_bytes_come() {
        let bodies = [Length::Exact(26), Length::Chunked, Length::Exact(0)];
        for piece_len in 1..=SENT.len() {
            for room in [1, 2, 3, 7, 64, 4096] {
                let read = through(SENT, piece_len, room, &bodies);
                assert_eq!(read.escape_ascii().to_string(), READ.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn what_hyper_does_not_take_goes_through_as_it_came() {
        let sent = b"GET / HTTP/1.1\r\n\r\nGET /# HTTP/1.1\r\n\r\n";
        let mut framing = Framing::default();
        let mut buffer = [0; 64];
        let mut buf = ReadBuf::new(&mut buffer);
        buf.put_slice(sent);
        framing.filter(&mut buf, 0);
        assert_eq!(buf.filled(), b"GET / HTTP/1.1\r\n\r\n");

        framing.fill(&mut buf);

        assert_eq!(buf.filled(), sent);
        assert_eq!(framing.at, At::Lost);
    }
}
