//! Frames, the same on every lane: a length of 4 bytes, little endian, and that many bytes.
//!
//! | lane | the bytes |
//! | --- | --- |
//! | raft | one message |
//! | rpc, ask | one [`Frame`] |
//! | bulk | the first: kind (2 bytes, little endian) and head; then a chunk each; an empty one is the end |
//!
//! A [`Frame`] begins with a byte that says what it is; numbers are little endian:
//!
//! | first byte | then |
//! | --- | --- |
//! | 1 call | id (8), milliseconds until the deadline (4), kind (2), body |
//! | 2 answer | id (8), body |
//! | 3 not done | id (8), reason (1): 1 too many calls, 2 answer too large |
//! | 4 cancel | id (8) |
//! | 5 ping, 6 pong | any number (8), which comes back |
//! | 7 closing | how many bytes of calls were taken (8): those that begin behind them had no effect, and never will |

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The bytes before each frame.
pub(crate) const LENGTH_BYTES: usize = 4;
/// How much is asked of a socket at a time.
const READ_BYTES: usize = 64 * 1024;
/// Bodies up to this size are copied together; larger ones are written from where they are.
const COPY_MAX_BYTES: usize = 8 * 1024;

/// What comes before a frame of `len_bytes`.
#[expect(clippy::expect_used, reason = "all bounds are far below 4 GiB")]
pub(crate) fn length_prefix(len_bytes: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(len_bytes)
        .expect("what is sent is bounded far below 4 GiB")
        .to_le_bytes()
}

/// Takes the first frame off `buf`, if it is there whole.
///
/// # Errors
/// The frame says that it is longer than `max_bytes`.
pub(crate) fn split_frame(buf: &mut BytesMut, max_bytes: usize) -> io::Result<Option<Bytes>> {
    let Some((length, _)) = buf.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > max_bytes {
        let text = format!("a frame of {length} bytes, more than the limit of {max_bytes}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    if buf.len() - LENGTH_BYTES < length {
        return Ok(None);
    }
    buf.advance(LENGTH_BYTES);
    Ok(Some(buf.split_to(length).freeze()))
}

/// Reads what there is, at least a byte. The buffer grows with what has come, never with what was announced.
/// Cancel safe.
///
/// # Errors
/// The stream's, and its end.
pub(crate) async fn read_more(stream: &mut (impl AsyncRead + Unpin), buf: &mut BytesMut) -> io::Result<()> {
    if buf.capacity() - buf.len() < READ_BYTES / 4 {
        buf.reserve(buf.len().max(READ_BYTES));
    }
    if stream.read_buf(buf).await? == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed by the other side",
        ));
    }
    Ok(())
}

/// Reads one frame. Not cancel safe for the stream's other users, of which there are none: what was read stays in `buf`.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    buf: &mut BytesMut,
    max_bytes: usize,
) -> io::Result<Bytes> {
    loop {
        if let Some(frame) = split_frame(buf, max_bytes)? {
            return Ok(frame);
        }
        read_more(stream, buf).await?;
    }
}

/// What waits to be written: small frames copied together, large bodies by reference.
#[derive(Debug, Default)]
pub(crate) struct WriteBuf {
    sealed: VecDeque<Bytes>,
    tail: BytesMut,
    sealed_bytes: usize,
}

impl WriteBuf {
    /// Appends bytes as they are.
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
    }

    /// Appends a frame of `head` and `body`.
    pub(crate) fn put_frame(&mut self, head: &[u8], body: Bytes) {
        self.tail.put_slice(&length_prefix(head.len() + body.len()));
        self.tail.put_slice(head);
        if body.len() <= COPY_MAX_BYTES {
            self.tail.put_slice(&body);
        } else {
            let tail = self.tail.split().freeze();
            self.sealed_bytes += tail.len() + body.len();
            self.sealed.extend([tail, body]);
        }
    }
}

impl Buf for WriteBuf {
    fn remaining(&self) -> usize {
        self.sealed_bytes + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.sealed.front().map_or(&self.tail[..], |first| &first[..])
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let chunks = self.sealed.iter().map(|chunk| &chunk[..]).chain(tail);
        let mut filled = 0;
        for (slot, chunk) in dst.iter_mut().zip(chunks) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.sealed.front_mut() {
            if count < first.len() {
                first.advance(count);
                self.sealed_bytes -= count;
                return;
            }
            count -= first.len();
            self.sealed_bytes -= first.len();
            self.sealed.pop_front();
        }
        self.tail.advance(count);
    }
}

/// One frame of the rpc lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Call {
        id: u64,
        deadline_ms: u32,
        kind: u16,
        body: Bytes,
    },
    Answer {
        id: u64,
        body: Bytes,
    },
    NotDone {
        id: u64,
        reason: NotDone,
    },
    Cancel {
        id: u64,
    },
    Ping {
        stamp: u64,
    },
    Pong {
        stamp: u64,
    },
    Closing {
        taken: u64,
    },
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotDone {
    /// It was not begun.
    Busy,
    /// It was done, but its answer cannot be sent.
    AnswerTooLarge,
}

/// The most that a frame is longer than its body.
pub(crate) const FRAME_HEAD_MAX_BYTES: usize = 15;

impl Frame {
    /// Appends the frame to `out`.
    pub(crate) fn put(self, out: &mut WriteBuf) {
        let mut head = [0; FRAME_HEAD_MAX_BYTES];
        let mut rest = &mut head[..];
        let body = match self {
            Self::Call {
                id,
                deadline_ms,
                kind,
                body,
            } => {
                rest.put_u8(1);
                rest.put_u64_le(id);
                rest.put_u32_le(deadline_ms);
                rest.put_u16_le(kind);
                body
            }
            Self::Answer { id, body } => {
                rest.put_u8(2);
                rest.put_u64_le(id);
                body
            }
            Self::NotDone { id, reason } => {
                rest.put_u8(3);
                rest.put_u64_le(id);
                rest.put_u8(match reason {
                    NotDone::Busy => 1,
                    NotDone::AnswerTooLarge => 2,
                });
                Bytes::new()
            }
            Self::Cancel { id: number }
            | Self::Ping { stamp: number }
            | Self::Pong { stamp: number }
            | Self::Closing { taken: number } => {
                rest.put_u8(match self {
                    Self::Cancel { .. } => 4,
                    Self::Ping { .. } => 5,
                    Self::Pong { .. } => 6,
                    _ => 7,
                });
                rest.put_u64_le(number);
                Bytes::new()
            }
        };
        let unused = rest.len();
        out.put_frame(&head[..FRAME_HEAD_MAX_BYTES - unused], body);
    }

    /// Reads a frame; none if it is not one of the above.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let tag = bytes.try_get_u8().ok()?;
        let number = bytes.try_get_u64_le().ok()?;
        let frame = match tag {
            1 => Self::Call {
                id: number,
                deadline_ms: bytes.try_get_u32_le().ok()?,
                kind: bytes.try_get_u16_le().ok()?,
                body: bytes.split_off(0),
            },
            2 => Self::Answer {
                id: number,
                body: bytes.split_off(0),
            },
            3 => Self::NotDone {
                id: number,
                reason: match bytes.try_get_u8().ok()? {
                    1 => NotDone::Busy,
                    2 => NotDone::AnswerTooLarge,
                    _ => return None,
                },
            },
            4 => Self::Cancel { id: number },
            5 => Self::Ping { stamp: number },
            6 => Self::Pong { stamp: number },
            7 => Self::Closing { taken: number },
            _ => return None,
        };
        bytes.is_empty().then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        let sizes = prop_oneof![0..64usize, COPY_MAX_BYTES - 2..COPY_MAX_BYTES + 3];
        sizes.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len).prop_map(Bytes::from))
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (any::<u64>(), any::<u32>(), any::<u16>(), bytes()).prop_map(|(id, deadline_ms, kind, body)| {
                Frame::Call {
                    id,
                    deadline_ms,
                    kind,
                    body,
                }
            }),
            (any::<u64>(), bytes()).prop_map(|(id, body)| Frame::Answer { id, body }),
            any::<u64>().prop_map(|id| Frame::NotDone {
                id,
                reason: NotDone::Busy
            }),
            any::<u64>().prop_map(|id| Frame::NotDone {
                id,
                reason: NotDone::AnswerTooLarge
            }),
            any::<u64>().prop_map(|id| Frame::Cancel { id }),
            any::<u64>().prop_map(|stamp| Frame::Ping { stamp }),
            any::<u64>().prop_map(|stamp| Frame::Pong { stamp }),
            any::<u64>().prop_map(|taken| Frame::Closing { taken }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_come_back_however_the_stream_is_cut(
            frames in prop::collection::vec(frame(), 0..6),
            cuts in prop::collection::vec(1..5000usize, 1..20),
        ) {
            let mut out = WriteBuf::default();
            for frame in frames.clone() {
                frame.put(&mut out);
            }

            let mut came = Vec::new();
            let mut buf = BytesMut::new();
            let mut cuts = cuts.into_iter().cycle();
            while out.has_remaining() {
                let chunk = out.chunk();
                let part = chunk.len().min(cuts.next().unwrap());
                buf.extend_from_slice(&chunk[..part]);
                out.advance(part);
                while let Some(frame) = split_frame(&mut buf, 2 * COPY_MAX_BYTES).unwrap() {
                    came.push(Frame::decode(frame).unwrap());
                }
            }

            prop_assert_eq!(came, frames);
            prop_assert_eq!(out.remaining(), 0);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Frame::decode(Bytes::from(bytes.clone()));
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = split_frame(&mut buf, 32) {
                prop_assert!(frame.len() <= 32);
            }
        }

        #[test]
        fn all_that_is_written_is_counted_and_listed(frames in prop::collection::vec(frame(), 0..6)) {
            let mut out = WriteBuf::default();
            for frame in frames {
                frame.put(&mut out);
            }

            let mut slices = [IoSlice::new(&[]); 16];
            let filled = out.chunks_vectored(&mut slices);

            prop_assert_eq!(slices[..filled].iter().map(|slice| slice.len()).sum::<usize>(), out.remaining());
        }
    }

    #[test]
    fn the_example_of_a_call_is_as_specified() {
        let mut out = WriteBuf::default();

        let call = Frame::Call {
            id: 7,
            deadline_ms: 1000,
            kind: 2,
            body: Bytes::from_static(b"hi"),
        };
        call.put(&mut out);

        assert_eq!(
            out.chunk(),
            b"\x11\0\0\0\x01\x07\0\0\0\0\0\0\0\xe8\x03\0\0\x02\0hi"
        );
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_has_come() {
        let mut buf = BytesMut::from(&[1, 1, 0, 0][..]);

        assert!(split_frame(&mut buf, 257).unwrap().is_none());
        assert!(split_frame(&mut buf, 256).is_err());
    }
}
