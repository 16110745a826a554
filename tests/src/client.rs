//! A blocking HTTP/1.1 client that hides nothing: header names keep their case, bodies their bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::Value;

/// How long an answer may take, unless a test says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer as it was on the wire; chunks are joined.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names and values in the order and case of the wire.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the header with exactly this name, case included.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {} {:?}", self.status, self.text()))
    }

    /// The one entry of a list, as most reads of one thing answer.
    ///
    /// # Errors
    /// When the body is not a list of one.
    pub fn entry(&self) -> Result<Value> {
        match self.json()? {
            Value::Array(mut list) if list.len() == 1 => Ok(list.remove(0)),
            other => bail!("not a list of one: {} {other}", self.status),
        }
    }

    /// `X-Consul-Index`.
    ///
    /// # Errors
    /// When it is missing or no number.
    pub fn index(&self) -> Result<u64> {
        let text = self
            .header("X-Consul-Index")
            .with_context(|| format!("no index in {:?}", self.headers))?;
        Ok(text.parse()?)
    }

    /// Whether the answer is 200 `true`.
    pub fn is_true(&self) -> bool {
        self.status == 200 && self.body.trim_ascii() == b"true"
    }

    /// Whether the answer is 200 `false`.
    pub fn is_false(&self) -> bool {
        self.status == 200 && self.body.trim_ascii() == b"false"
    }

    /// The value of a KV entry, decoded.
    ///
    /// # Errors
    /// When the answer is not one entry with a value in base64.
    pub fn value(&self) -> Result<Vec<u8>> {
        let entry = self.entry()?;
        let text = entry["Value"]
            .as_str()
            .with_context(|| format!("no value in {entry}"))?;
        Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
    }
}

/// One keep-alive connection; opened at the first call, and again after a failure or when the server closed it.
#[derive(Debug)]
pub struct Client {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    timeout: Duration,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            stream: None,
            timeout: TIMEOUT,
        }
    }

    /// How long each read or write may take from the next connection on.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// GET.
    ///
    /// # Errors
    /// When the exchange fails; an answer of any status is none.
    pub fn get(&mut self, target: &str) -> Result<Response> {
        self.call("GET", target, &[], b"")
    }

    /// PUT.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn put(&mut self, target: &str, body: impl AsRef<[u8]>) -> Result<Response> {
        self.call("PUT", target, &[], body.as_ref())
    }

    /// DELETE.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn delete(&mut self, target: &str) -> Result<Response> {
        self.call("DELETE", target, &[], b"")
    }

    /// Any request. `Host` and `Content-Length` are added.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn call(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if method != "GET" || !body.is_empty() {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.raw(&bytes)
    }

    /// Sends bytes as they are and reads one answer.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn raw(&mut self, bytes: &[u8]) -> Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let response = exchange(&mut stream, bytes)?;
        if response.header("Connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    /// A fresh connection, for tests that speak bytes.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(stream)
    }
}

/// Sends a request over any stream and reads one answer.
///
/// # Errors
/// When the stream fails or ends early, or the answer is not HTTP.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Result<Response> {
    // A server may answer and close before it has read everything; the answer still counts.
    let sent = stream.write_all(request).and_then(|()| stream.flush());
    match read_response(stream, request.starts_with(b"HEAD ")) {
        Ok(response) => Ok(response),
        Err(error) => {
            sent?;
            Err(error)
        }
    }
}

fn read_response(stream: &mut impl Read, without_body: bool) -> Result<Response> {
    let mut reader = Reader {
        stream,
        bytes: Vec::new(),
    };
    let head = loop {
        let head = String::from_utf8(reader.take_until(b"\r\n\r\n")?)?;
        // 100 Continue is followed by the answer proper.
        if !head.starts_with("HTTP/1.1 100") {
            break head;
        }
    };
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
        .with_context(|| format!("not an HTTP answer: {status_line:?}"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let find = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, v)| v.as_str())
    };
    let body = if without_body || status == 204 || status == 304 {
        Vec::new()
    } else if find("transfer-encoding") == Some("chunked") {
        reader.take_chunks()?
    } else if let Some(length) = find("content-length") {
        reader.take(length.parse()?)?
    } else {
        reader.take_rest()?
    };
    Ok(Response {
        status,
        headers,
        body,
    })
}

struct Reader<'a, S> {
    stream: &'a mut S,
    bytes: Vec<u8>,
}

impl<S: Read> Reader<'_, S> {
    fn more(&mut self) -> Result<()> {
        let mut chunk = [0; 16 * 1024];
        let got = loop {
            match self.stream.read(&mut chunk) {
                // A process that was stopped and goes on, for whatever reason, has lost nothing.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => break got?,
            }
        };
        if got == 0 {
            let seen = String::from_utf8_lossy(&self.bytes).into_owned();
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the connection ended after {seen:?}"),
            )
            .into());
        }
        self.bytes.extend_from_slice(&chunk[..got]);
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.bytes.len() < count {
            self.more()?;
        }
        Ok(self.bytes.drain(..count).collect())
    }

    /// What stands before `mark`; the mark goes too.
    fn take_until(&mut self, mark: &[u8]) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.bytes.windows(mark.len()).position(|window| window == mark) {
                let taken = self.bytes.drain(..at).collect();
                self.bytes.drain(..mark.len());
                return Ok(taken);
            }
            self.more()?;
        }
    }

    fn take_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = String::from_utf8(self.take_until(b"\r\n")?)?;
            let length = usize::from_str_radix(length.trim(), 16)?;
            body.extend(self.take(length)?);
            self.take_until(b"\r\n")?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn take_rest(&mut self) -> Result<Vec<u8>> {
        self.stream.read_to_end(&mut self.bytes)?;
        Ok(std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers what it was given, whatever is written to it.
    struct Canned<'a>(&'a [u8]);

    impl Read for Canned<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            // A byte at a time: no answer may depend on where packets end.
            self.0.read(&mut buf[..1])
        }
    }

    impl Write for Canned<'_> {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn names_keep_their_case_and_chunks_are_joined() {
        let wire = b"HTTP/1.1 200 OK\r\nx-Consul-INDEX: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";

        let response = exchange(&mut Canned(wire), b"GET / HTTP/1.1\r\n\r\n").unwrap();

        assert_eq!(response.body, b"abc");
        assert_eq!(response.header("x-Consul-INDEX"), Some("7"));
        assert_eq!(response.header("X-Consul-Index"), None);
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        assert!(
            exchange(
                &mut Canned(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"),
                b""
            )
            .is_err()
        );
        assert!(exchange(&mut Canned(b""), b"").is_err());
    }
}
