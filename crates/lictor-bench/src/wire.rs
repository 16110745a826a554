//! HTTP/1.1 on the client's side, reduced to what a load program needs.
//!
//! Requests are bytes built once and patched in place; answers are cut by [`parse`] without copying. Both ends of
//! every connection share the machine's cores, so each microsecond saved here is one that the server can use.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Longest answer that is taken in, in bytes; anything longer is an error of the measurement.
const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;
const READ_CHUNK_BYTES: usize = 16 * 1024;

/// One answer, borrowed from the connection's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// Status code.
    pub(crate) status: u16,
    /// `X-Consul-Index`, if it was sent.
    pub(crate) index: Option<u64>,
    /// Body with the chunks joined.
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// The body's start as text, for error messages.
    pub(crate) fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(200)])
            .trim()
            .to_owned()
    }
}

/// What the head says; offsets count from the start of the answer.
struct Head {
    status: u16,
    index: Option<u64>,
    len_bytes: Option<usize>,
    chunked: bool,
    body_start: usize,
}

/// Where one answer lies at the front of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    status: u16,
    index: Option<u64>,
    body: Range<usize>,
    /// Bytes of the whole answer, framing included.
    taken: usize,
}

/// What [`parse`] found.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Not all there; nothing can be said before the buffer holds this many bytes.
    Needs(usize),
    Whole(Cut),
}

/// Finds one whole answer at the front of `buf`. Chunks are joined in place, which is why the buffer is mutable; as
/// long as something is missing nothing is touched.
fn parse(buf: &mut [u8]) -> io::Result<Progress> {
    let Some(head) = parse_head(buf)? else {
        return Ok(Progress::Needs(buf.len() + 1));
    };
    let (body_end, taken) = if head.chunked {
        match join_chunks(buf, head.body_start)? {
            Some(ends) => ends,
            None => return Ok(Progress::Needs(buf.len() + 1)),
        }
    } else {
        let end = head.body_start + head.len_bytes.unwrap_or(0);
        if buf.len() < end {
            return Ok(Progress::Needs(end));
        }
        (end, end)
    };
    Ok(Progress::Whole(Cut {
        status: head.status,
        index: head.index,
        body: head.body_start..body_end,
        taken,
    }))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn parse_head(buf: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = buf
        .get(9..12)
        .and_then(number)
        .ok_or_else(|| bad("no status line"))?;
    let status = u16::try_from(status).map_err(|_| bad("no status line"))?;
    let mut head = Head {
        status,
        index: None,
        len_bytes: None,
        chunked: false,
        body_start: end + 4,
    };
    for line in buf[..end].split(|&byte| byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // The length is compared first: most headers are none of these.
        match colon {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let len = number(value).ok_or_else(|| bad("bad content-length"))?;
                head.len_bytes = usize::try_from(len).ok();
            }
            14 if name.eq_ignore_ascii_case(b"x-consul-index") => head.index = number(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => head.chunked = true,
            _ => {}
        }
    }
    Ok(Some(head))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Moves the chunks together and answers where the body and where the whole answer ends.
fn join_chunks(buf: &mut [u8], start: usize) -> io::Result<Option<(usize, usize)>> {
    // Nothing may be moved before all of it is there: a second call would not understand what the first left.
    let mut at = start;
    loop {
        let Some((len, data)) = chunk_head(buf, at)? else {
            return Ok(None);
        };
        if buf.len() < data + len + 2 {
            return Ok(None);
        }
        at = data + len + 2;
        if len == 0 {
            break;
        }
    }
    let (mut from, mut to) = (start, start);
    while from < at {
        let Some((len, data)) = chunk_head(buf, from)? else {
            break;
        };
        buf.copy_within(data..data + len, to);
        to += len;
        from = data + len + 2;
    }
    Ok(Some((to, at)))
}

fn chunk_head(buf: &[u8], at: usize) -> io::Result<Option<(usize, usize)>> {
    let rest = buf.get(at..).unwrap_or_default();
    let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&rest[..end]).map_err(|_| bad("bad chunk"))?;
    let len = usize::from_str_radix(text.trim(), 16).map_err(|_| bad("bad chunk"))?;
    if len > ANSWER_MAX_BYTES {
        return Err(bad("chunk too large"));
    }
    Ok(Some((len, at + end + 2)))
}

/// The bytes of a request with a body; pass `b""` for none.
pub(crate) fn request(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let mut head = String::with_capacity(96 + target.len());
    // Writing to a String cannot fail.
    let _ = write!(head, "{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    if method != "GET" {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A connection with its receive buffer, for tokio's single-threaded runtime.
pub(crate) struct Connection {
    stream: tokio::net::TcpStream,
    buf: Buffer,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = tokio::net::TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buf: Buffer::default(),
        })
    }

    /// Sends one request and waits for its answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        self.stream.write_all(request).await?;
        self.buf.drop_answer();
        while !self.buf.is_complete()? {
            let room = self.buf.room()?;
            let got = self.stream.read(room).await?;
            self.buf.filled(got)?;
        }
        self.buf.answer()
    }
}

/// A blocking connection, for set-up work and for the many idle watchers, which need no task.
pub(crate) struct Blocking {
    stream: TcpStream,
    patience: Duration,
    buf: Buffer,
}

impl Blocking {
    pub(crate) fn open(addr: SocketAddr) -> io::Result<Self> {
        Self::open_within(addr, Duration::from_secs(60))
    }

    /// One whose answers must not keep it waiting for longer than that.
    pub(crate) fn open_within(addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self {
            stream,
            patience,
            buf: Buffer::default(),
        })
    }

    pub(crate) fn call(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.send(request)?;
        self.receive()
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// Waits for the answer to the oldest request that has none.
    pub(crate) fn receive(&mut self) -> io::Result<Answer<'_>> {
        self.buf.receive(|room| self.stream.read(room))?;
        self.buf.answer()
    }

    /// The same into a buffer that many connections share.
    pub(crate) fn receive_with<'a>(&mut self, spare: &'a mut Buffer) -> io::Result<Answer<'a>> {
        spare.receive(|room| self.stream.read(room))?;
        spare.answer()
    }

    /// The same, but nobody is woken by the answer: it is looked for every so often, for as long as the patience is.
    pub(crate) fn look_with<'a>(&mut self, spare: &'a mut Buffer, every: Duration) -> io::Result<Answer<'a>> {
        let mut left = self.patience;
        spare.receive(|room| {
            loop {
                match recv(&self.stream, &mut *room, RecvFlags::DONTWAIT) {
                    Err(Errno::AGAIN) if !left.is_zero() => std::thread::sleep(every),
                    got => return Ok(got?.0),
                }
                left = left.saturating_sub(every);
            }
        })?;
        spare.answer()
    }
}

/// Receive buffer that holds at most one answer, since requests are not pipelined.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
    needed: usize,
    cut: Option<Cut>,
}

impl Buffer {
    /// Takes one answer in by reads that fill what room they are given.
    fn receive(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        self.drop_answer();
        while !self.is_complete()? {
            let got = read(self.room()?)?;
            self.filled(got)?;
        }
        Ok(())
    }

    fn drop_answer(&mut self) {
        self.used = 0;
        self.needed = 1;
        self.cut = None;
    }

    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.bytes.len() - self.used < READ_CHUNK_BYTES / 4 {
            if self.bytes.len() > ANSWER_MAX_BYTES {
                return Err(bad("answer too large"));
            }
            let grown = (self.bytes.len() * 2).max(READ_CHUNK_BYTES);
            self.bytes.resize(grown, 0);
        }
        Ok(&mut self.bytes[self.used..])
    }

    fn filled(&mut self, got: usize) -> io::Result<()> {
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.used += got;
        Ok(())
    }

    fn is_complete(&mut self) -> io::Result<bool> {
        if self.used < self.needed {
            return Ok(false);
        }
        match parse(&mut self.bytes[..self.used])? {
            Progress::Needs(needed) => self.needed = needed,
            Progress::Whole(cut) => self.cut = Some(cut),
        }
        Ok(self.cut.is_some())
    }

    fn answer(&self) -> io::Result<Answer<'_>> {
        let cut = self.cut.as_ref().ok_or_else(|| bad("no answer"))?;
        Ok(Answer {
            status: cut.status,
            index: cut.index,
            body: &self.bytes[cut.body.clone()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 42\r\nContent-Length: 4\r\n\r\ntrue";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";

    fn whole(bytes: &mut [u8]) -> Cut {
        match parse(bytes).unwrap() {
            Progress::Whole(cut) => cut,
            Progress::Needs(needed) => panic!("needs {needed} bytes"),
        }
    }

    #[test]
    fn an_answer_with_a_length_ends_there() {
        let mut bytes = [PLAIN, b"HTTP"].concat();

        let cut = whole(&mut bytes);

        assert_eq!((cut.status, cut.index, cut.taken), (200, Some(42), PLAIN.len()));
        assert_eq!(&bytes[cut.body], b"true");
    }

    #[test]
    fn chunks_are_joined() {
        let mut bytes = CHUNKED.to_vec();

        let cut = whole(&mut bytes);

        assert_eq!((cut.status, cut.index, cut.taken), (404, None, CHUNKED.len()));
        assert_eq!(&bytes[cut.body], b"abc0123456789");
    }

    #[test]
    fn an_answer_cut_anywhere_is_not_complete_and_stays_as_it_was() {
        for whole in [PLAIN, CHUNKED] {
            for cut in 0..whole.len() {
                let mut bytes = whole[..cut].to_vec();
                let Progress::Needs(needed) = parse(&mut bytes).unwrap() else {
                    panic!("complete at {cut}")
                };
                assert!(needed > cut && needed <= whole.len());
                assert_eq!(bytes, &whole[..cut]);
            }
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(parse(&mut b"SMTP\r\n\r\n".to_vec()).is_err());
        assert!(
            parse(&mut b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_vec()).is_err()
        );
    }

    #[test]
    fn a_get_has_no_length_and_a_put_has_one() {
        assert_eq!(
            request("GET", "/x", b""),
            b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        assert_eq!(
            request("PUT", "/x", b"ab"),
            b"PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab"
        );
    }
}
