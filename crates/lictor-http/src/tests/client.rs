//! A client that sees the bytes on the wire.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};

/// One HTTP/1.1 connection.
pub(super) struct Connection<S = TcpStream> {
    stream: S,
    /// Bytes beyond the last response.
    rest: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Status line and headers, as cased on the wire.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn index(&self) -> u64 {
        self.header("X-Consul-Index").unwrap().parse().unwrap()
    }
}

impl Connection {
    pub(super) async fn open(address: impl ToSocketAddrs) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn over(stream: S) -> Self {
        Self {
            stream,
            rest: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Says that nothing more will be sent.
    pub(super) async fn close_half(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn request(&mut self, method: &str, target: &str, body: &str) -> Answer {
        self.ask(method, target, body).await;
        self.answer().await
    }

    pub(super) async fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, "").await
    }

    pub(super) async fn put(&mut self, target: &str, body: &str) -> Answer {
        self.request("PUT", target, body).await
    }

    /// Sends a request with headers of its own and waits for its answer.
    pub(super) async fn request_with(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.ask_with(method, target, headers, body).await;
        self.answer().await
    }

    /// Sends a request without waiting.
    pub(super) async fn ask(&mut self, method: &str, target: &str, body: &str) {
        self.ask_with(method, target, &[], body).await;
    }

    async fn ask_with(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) {
        let len = body.len();
        let lines = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"]);
        let headers: String = lines.flatten().collect();
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len}\r\n\r\n{body}"
        ))
        .await;
    }

    /// The next answer; it must have a length or come in chunks.
    pub(super) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if answer.header("Transfer-Encoding") == Some("chunked") {
            loop {
                match self.chunk().await {
                    end if end.is_empty() => break,
                    chunk => answer.body.extend_from_slice(&chunk),
                }
            }
        } else {
            let len = answer.header("Content-Length").unwrap().parse().unwrap();
            answer.body = self.exactly(len).await;
        }
        answer
    }

    /// The next answer without its body.
    pub(super) async fn head(&mut self) -> Answer {
        let head_len = loop {
            if let Some(at) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill().await,
                "closed within a head: {:?}",
                String::from_utf8_lossy(&self.rest)
            );
        };
        let head = String::from_utf8(self.rest.drain(..head_len).collect()).unwrap();
        Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body: Vec::new(),
        }
    }

    /// The next chunk of a body; the last one is empty.
    pub(super) async fn chunk(&mut self) -> Vec<u8> {
        let line = loop {
            match self.rest.windows(2).position(|w| w == b"\r\n") {
                Some(at) => break self.exactly(at + 2).await,
                None => assert!(self.fill().await, "closed before a chunk"),
            }
        };
        let len = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = self.exactly(len + 2).await;
        chunk.truncate(len);
        chunk
    }

    async fn exactly(&mut self, len: usize) -> Vec<u8> {
        while self.rest.len() < len {
            assert!(self.fill().await, "closed within a body");
        }
        self.rest.drain(..len).collect()
    }

    /// Waits until the server closes; panics if it sends anything more.
    pub(super) async fn closed(&mut self) {
        while self.fill().await {}
        assert_eq!(String::from_utf8_lossy(&self.rest), "");
    }

    async fn fill(&mut self) -> bool {
        // A reset is a close that came while bytes were under way.
        self.stream.read_buf(&mut self.rest).await.unwrap_or(0) > 0
    }
}
