//! Files as bodies: neither way is a whole file in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use indicatif::ProgressBar;

/// What is read from the file at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// The body of a request.
#[derive(Debug, Clone)]
pub(crate) enum Sent {
    /// All of it at once.
    Whole(Bytes),
    /// A file, read as it is sent.
    File {
        file: Arc<File>,
        at: u64,
        len_bytes: u64,
        bar: ProgressBar,
    },
}

impl Default for Sent {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl<B: Into<Bytes>> From<B> for Sent {
    fn from(body: B) -> Self {
        Self::Whole(body.into())
    }
}

impl Sent {
    /// All of a file; the bar shows how far it went.
    pub(crate) fn file(file: File, bar: ProgressBar) -> io::Result<Self> {
        let len_bytes = file.metadata()?.len();
        Ok(Self::File {
            file: Arc::new(file),
            at: 0,
            len_bytes,
            bar,
        })
    }

    fn left_bytes(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File { at, len_bytes, .. } => len_bytes.saturating_sub(*at),
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    /// Reads a file on the spot: a command has nothing else to do meanwhile.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let left_bytes = self.left_bytes();
        if left_bytes == 0 {
            return Poll::Ready(None);
        }
        let piece = match &mut *self {
            Self::Whole(bytes) => Ok(std::mem::take(bytes)),
            Self::File { file, at, bar, .. } => {
                let wanted = usize::try_from(left_bytes)
                    .unwrap_or(PIECE_BYTES)
                    .min(PIECE_BYTES);
                let mut piece = vec![0; wanted];
                file.read_exact_at(&mut piece, *at).map(|()| {
                    *at += piece.len() as u64;
                    bar.set_position(*at);
                    piece.into()
                })
            }
        };
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes())
    }
}
