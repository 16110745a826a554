//! The raft lanes: messages one way, from the dialing side. Nothing is answered; whoever wants an answer waits for one
//! over its own lane.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use crate::config::Limits;
use crate::outbox::Outbox;
use crate::stream::{Ended, Stream, split};
use crate::wire::{WriteBuf, read_more, split_frame};

/// Nothing more is taken to be written while this much waits, so that the bound of the queue is the bound.
const WRITE_HIGH_BYTES: usize = 256 * 1024;

/// Writes what the queue has, many messages at a time, until the connection ends.
pub(crate) async fn drive(stream: Stream, outbox: &Outbox<Bytes>) -> Ended {
    match write_all(stream, outbox).await {
        Ok(()) => Ended::Outdated,
        Err(error) => Ended::Lost(error.to_string()),
    }
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
            () = outbox.filled(), if !is_outdated && out.remaining() < WRITE_HIGH_BYTES => outbox.drain(|message| {
                out.put_frame(&[], message);
                out.remaining() < WRITE_HIGH_BYTES
            }),
            written = writer.step(&mut out), if writer.has_work(&out) => {
                written?;
            }
            () = &mut outdated, if !is_outdated => is_outdated = true,
            // The other side says nothing here, but this is how its end is noticed.
            read = reader.read(&mut nothing) => {
                let (kind, text) = match read? {
                    0 => (io::ErrorKind::UnexpectedEof, "closed by the other side"),
                    _ => (io::ErrorKind::InvalidData, "it sent something unknown"),
                };
                return Err(io::Error::new(kind, text));
            }
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
