//! A connection: TCP, bare or inside TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::wire::WriteBuf;

/// After this long without a sign of life the kernel begins to ask for one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, Hold),
}

/// What the keys say that a connection was made with. Without keys nothing ever happens to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hold {
    /// Cancelled when this side shows another key by now.
    pub(crate) retired: CancellationToken,
    /// Cancelled when the key is removed that the other side has shown.
    pub(crate) removed: CancellationToken,
}

/// How a connection that this side made came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was closed in good order, to be made anew with other keys.
    Outdated,
    /// It was lost, for this reason.
    Lost(String),
}

impl Hold {
    /// Resolves when the connection should be made anew.
    pub(crate) async fn outdated(&self) {
        tokio::select! {
            () = self.retired.cancelled() => {}
            () = self.removed.cancelled() => {}
        }
    }
}

impl Stream {
    pub(crate) fn hold(&self) -> Hold {
        match self {
            Self::Plain(_) => Hold::default(),
            Self::Tls(_, hold) => hold.clone(),
        }
    }
}

/// The writing half of a connection.
#[derive(Debug)]
pub(crate) struct Writer {
    half: WriteHalf<Stream>,
    /// Whether what is written may stay in the stream until it is flushed.
    buffers: bool,
    unflushed: bool,
}

/// Both halves of a connection.
pub(crate) fn split(stream: Stream) -> (ReadHalf<Stream>, Writer) {
    let buffers = matches!(stream, Stream::Tls(..));
    let (reader, half) = tokio::io::split(stream);
    let writer = Writer {
        half,
        buffers,
        unflushed: false,
    };
    (reader, writer)
}

impl Writer {
    /// Whether there is anything to do for [`step`](Self::step).
    pub(crate) fn has_work(&self, out: &WriteBuf) -> bool {
        out.has_remaining() || self.unflushed
    }

    /// Writes as much of `out` as the connection takes at once, or flushes when all is written. Answers how many bytes
    /// were taken. Cancel safe.
    pub(crate) async fn step(&mut self, out: &mut WriteBuf) -> io::Result<usize> {
        if out.has_remaining() {
            let count = self.half.write_buf(out).await?;
            self.unflushed = self.buffers;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            return Ok(count);
        }
        self.half.flush().await?;
        self.unflushed = false;
        Ok(0)
    }
}

/// Small messages leave at once, and the kernel notices a peer that vanished without a word.
pub(crate) fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
