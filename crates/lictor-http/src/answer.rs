//! The bodies of answers.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::list::Pieces;

/// The body of every response.
pub(crate) enum Body {
    /// All of it at once; its length is announced.
    Whole(Full<Bytes>),
    /// A long list, written as the client takes it.
    Pieces(Box<Pieces>),
    /// The same for a client that must take the pieces in time.
    Watched(Watched),
    /// What another task makes as the client takes it.
    Flow(Flow),
    /// What a server answers, on its way through a client agent.
    Passed(Incoming),
}

/// Pieces of a body that another task makes. A clone shares them, so that only one can be sent.
#[derive(Debug, Clone)]
pub(crate) struct Flow(Arc<Mutex<mpsc::Receiver<io::Result<Bytes>>>>);

impl Flow {
    /// Ends when all senders are gone, or is broken off by the first error.
    pub(crate) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self(Arc::new(Mutex::new(pieces)))
    }
}

impl Body {
    /// Gives a long list up when nothing of it is taken for `patience` (at most twice as long).
    ///
    /// HTTP/2 needs this: a client may keep its connection alive and never ask for the next piece, and the server would
    /// hold on to a state of long ago.
    pub(crate) fn watched(self, patience: Duration) -> Self {
        match self {
            Self::Pieces(pieces) => {
                let taking = Arc::new(Mutex::new(Taking {
                    pieces: Some(pieces),
                    taken: 0,
                }));
                tokio::spawn(give_up(Arc::downgrade(&taking), patience));
                Self::Watched(Watched(taking))
            }
            other => other,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            Self::Pieces(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Self::Watched(watched) => Poll::Ready(watched.next().map(|piece| piece.map(Frame::data))),
            Self::Flow(flow) => {
                let piece = flow.0.lock().poll_recv(cx);
                piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
            Self::Passed(body) => Pin::new(body).poll_frame(cx).map_err(io::Error::other),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Pieces(pieces) => pieces.is_over(),
            Self::Watched(watched) => watched.is_over(),
            Self::Flow(_) => false,
            Self::Passed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Passed(body) => body.size_hint(),
            Self::Pieces(_) | Self::Watched(_) | Self::Flow(_) => SizeHint::default(),
        }
    }
}

/// A long list that is dropped when the client takes nothing of it.
pub(crate) struct Watched(Arc<Mutex<Taking>>);

struct Taking {
    /// `None` once it is given up.
    pieces: Option<Box<Pieces>>,
    taken: u64,
}

impl Watched {
    fn next(&self) -> Option<io::Result<Bytes>> {
        let mut taking = self.0.lock();
        taking.taken += 1;
        match &mut taking.pieces {
            Some(pieces) => pieces.next().map(Ok),
            None => Some(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    fn is_over(&self) -> bool {
        self.0
            .lock()
            .pieces
            .as_ref()
            .is_some_and(|pieces| pieces.is_over())
    }
}

/// Ends with the list or with the client's time.
async fn give_up(list: Weak<Mutex<Taking>>, patience: Duration) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(patience).await;
        let Some(list) = list.upgrade() else { return };
        let mut taking = list.lock();
        if taking.taken == seen {
            taking.pieces = None;
            return;
        }
        seen = taking.taken;
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::list;
    use crate::reply::Policy;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A mebibyte, shared with the test.
    #[derive(Debug)]
    struct Long(#[expect(dead_code, reason = "counted by the tests")] Arc<()>);

    impl list::Entry for Long {
        fn push(&self, out: &mut Vec<u8>) {
            out.resize(out.len() + (1 << 20), b'1');
        }
    }

    fn watched(row: &Arc<()>) -> Body {
        let rows: Vec<_> = (0..4).map(|_| Long(Arc::clone(row))).collect();
        let reply = list::of(rows.into_iter());
        let response = reply.into_response(hyper::HeaderMap::new(), Policy::Allow, &hyper::HeaderMap::new());
        response.into_body().watched(PATIENCE)
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_taken_slowly_is_whole() {
        let mut body = watched(&Arc::default());
        let mut len = 0;
        while let Some(frame) = body.frame().await {
            len += frame.unwrap().into_data().unwrap().len();
            tokio::time::sleep(PATIENCE * 9 / 10).await;
        }

        assert_eq!(len, 4 * (1 << 20) + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_not_taken_lets_go_of_its_rows() {
        let row = Arc::default();
        let mut body = watched(&row);
        body.frame().await.unwrap().unwrap();
        assert!(Arc::strong_count(&row) > 1);

        tokio::time::sleep(2 * PATIENCE + Duration::from_secs(1)).await;

        assert_eq!(Arc::strong_count(&row), 1);
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
