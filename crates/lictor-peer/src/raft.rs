//! The raft lanes: messages one way, from the dialing side. Nothing is answered; whoever wants an answer waits for one
//! over its own lane.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::config::Limits;
use crate::outbox::Outbox;
use crate::stream::{Ended, Stream, split};
use crate::wire::{WriteBuf, read_more, split_frame};

/// Nothing more is taken to be written while this much waits, so that the bound of the queue is the bound.
const WRITE_HIGH_BYTES: usize = 256 * 1024;
/// Pieces that are written with one call.
const CHUNKS_MAX: usize = 64;

/// Writes what the queue has, many messages at a time, until the connection ends. A bare connection is lent to the
/// senders while there is nothing to write.
pub(crate) async fn drive(stream: Stream, outbox: &Outbox<Bytes>) -> Ended {
    let ended = match stream {
        Stream::Plain(socket) => write_and_lend(Arc::new(socket), outbox)
            .await
            .map(|never| match never {}),
        Stream::Tls(..) => write_all(stream, outbox).await,
    };
    match ended {
        Ok(()) => Ended::Outdated,
        Err(error) => Ended::Lost(error.to_string()),
    }
}

async fn write_and_lend(socket: Arc<TcpStream>, outbox: &Outbox<Bytes>) -> io::Result<Infallible> {
    let mut out = WriteBuf::default();
    let mut nothing = [0];
    loop {
        if !out.has_remaining() {
            outbox.lend(&socket);
        }
        tokio::select! {
            () = outbox.filled(), if out.remaining() < WRITE_HIGH_BYTES => take(outbox, &mut out),
            ready = socket.writable(), if out.has_remaining() => {
                ready?;
                let mut chunks = [IoSlice::new(&[]); CHUNKS_MAX];
                let count = out.chunks_vectored(&mut chunks);
                match socket.try_write_vectored(&chunks[..count]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => out.advance(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            ready = socket.readable() => {
                ready?;
                match socket.try_read(&mut nothing) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Err(not_to_be_read(read?)),
                }
            }
        }
    }
}

fn take(outbox: &Outbox<Bytes>, out: &mut WriteBuf) {
    out.put_raw(&outbox.take_begun());
    outbox.drain(|message| {
        out.put_frame(&[], message);
        out.remaining() < WRITE_HIGH_BYTES
    });
}

/// The other side says nothing here, but this is how its end is noticed.
fn not_to_be_read(count: usize) -> io::Error {
    let (kind, text) = match count {
        0 => (io::ErrorKind::UnexpectedEof, "closed by the other side"),
        _ => (io::ErrorKind::InvalidData, "it sent something unknown"),
    };
    io::Error::new(kind, text)
}

/// Returns in good order, all that was taken being written, when the connection is to be made anew.
async fn write_all(stream: Stream, outbox: &Outbox<Bytes>) -> io::Result<()> {
    let hold = stream.hold();
    let outdated = hold.outdated();
    tokio::pin!(outdated);
    let (mut reader, mut writer) = split(stream);
    let mut out = WriteBuf::default();
    let mut nothing = [0];
    let mut is_outdated = false;
    loop {
        if is_outdated && !writer.has_work(&out) {
            return Ok(());
        }
        tokio::select! {
            () = outbox.filled(), if !is_outdated && out.remaining() < WRITE_HIGH_BYTES => take(outbox, &mut out),
            written = writer.step(&mut out), if writer.has_work(&out) => {
                written?;
            }
            () = &mut outdated, if !is_outdated => is_outdated = true,
            read = reader.read(&mut nothing) => return Err(not_to_be_read(read?)),
        }
    }
}

/// Hands each message that comes to `take` until the connection ends, which is always an error.
pub(crate) async fn receive(mut stream: Stream, limits: &Limits, take: impl Fn(Bytes)) -> io::Error {
    let mut incoming = BytesMut::new();
    loop {
        if let Err(error) = read_more(&mut stream, &mut incoming).await {
            return error;
        }
        loop {
            match split_frame(&mut incoming, limits.raft_message_max_bytes) {
                Ok(Some(message)) => take(message),
                Ok(None) => break,
                Err(error) => return error,
            }
        }
    }
}
