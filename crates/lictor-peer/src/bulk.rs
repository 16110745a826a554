//! Bulk streams: many bytes between two servers on a connection of their own. Writing waits while the reader is slow,
//! so a stream costs one chunk of memory on each side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};

use crate::stream::Stream;
use crate::wire::{WriteBuf, length_prefix, read_frame};

/// Largest chunk that is written as one; larger ones are cut.
pub const BULK_CHUNK_MAX_BYTES: usize = 1024 * 1024;
/// Largest head of a stream.
pub const BULK_HEAD_MAX_BYTES: usize = 64 * 1024;

/// Both ends that a server has of a bulk stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct BulkStream {
    /// What the other side writes.
    pub reader: BulkReader,
    /// What the other side reads.
    pub writer: BulkWriter,
}

/// Reads chunks until the other side has finished.
#[derive(Debug)]
pub struct BulkReader {
    stream: ReadHalf<Stream>,
    buf: BytesMut,
    finished: bool,
}

/// Writes chunks.
#[derive(Debug)]
pub struct BulkWriter {
    stream: WriteHalf<Stream>,
}

impl BulkStream {
    /// `buf` is what was already read of the chunks.
    pub(crate) fn new(stream: Stream, buf: BytesMut) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: BulkReader {
                stream: reader,
                buf,
                finished: false,
            },
            writer: BulkWriter { stream: writer },
        }
    }
}

impl BulkStream {
    /// The connection beneath it, for a protocol of its own instead of chunks; both sides must do so from the start.
    pub fn into_raw(self) -> RawStream {
        RawStream {
            stream: self.reader.stream.unsplit(self.writer.stream),
            read: self.reader.buf,
        }
    }
}

/// A bulk stream without chunks: bytes both ways.
#[derive(Debug)]
pub struct RawStream {
    stream: Stream,
    /// What was already read of the connection.
    read: BytesMut,
}

impl AsyncRead for RawStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl BulkReader {
    /// The next chunk, or none once the other side has finished. Cancel safe.
    ///
    /// # Errors
    /// The connection's; `UnexpectedEof` when it ended before the other side had finished.
    pub async fn read(&mut self) -> io::Result<Option<Bytes>> {
        if self.finished {
            return Ok(None);
        }
        let chunk = read_frame(&mut self.stream, &mut self.buf, BULK_CHUNK_MAX_BYTES).await?;
        self.finished = chunk.is_empty();
        Ok((!self.finished).then_some(chunk))
    }
}

impl BulkWriter {
    /// Writes `bytes` as one chunk, or several if they are more than [`BULK_CHUNK_MAX_BYTES`]. Not cancel safe: a
    /// stream whose write was dropped is of no use any more.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(BULK_CHUNK_MAX_BYTES) {
            self.write_chunk(chunk).await?;
        }
        Ok(())
    }

    /// Tells the other side that this was all; without it the other side takes the stream for broken.
    ///
    /// # Errors
    /// The connection's.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.write_chunk(&[]).await
    }

    async fn write_chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.stream.write_all(&length_prefix(chunk.len())).await?;
        self.stream.write_all(chunk).await?;
        self.stream.flush().await
    }
}

/// Begins a stream on the dialing side.
pub(crate) async fn open(mut stream: Stream, kind: u16, head: &[u8]) -> io::Result<BulkStream> {
    let mut out = WriteBuf::default();
    out.put_frame(&kind.to_le_bytes(), Bytes::copy_from_slice(head));
    stream.write_all_buf(&mut out).await?;
    stream.flush().await?;
    Ok(BulkStream::new(stream, BytesMut::new()))
}

/// Takes the beginning of a stream: kind and head.
pub(crate) async fn accept(mut stream: Stream) -> io::Result<(u16, Bytes, BulkStream)> {
    let mut buf = BytesMut::new();
    let mut head = read_frame(&mut stream, &mut buf, size_of::<u16>() + BULK_HEAD_MAX_BYTES).await?;
    let kind = head
        .try_get_u16_le()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it sent something unknown"))?;
    Ok((kind, head, BulkStream::new(stream, buf)))
}
