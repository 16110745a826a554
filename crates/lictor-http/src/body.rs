//! Reads request bodies within bounds of length and time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use lictor_telemetry::journey;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;

/// The slowest upload that is taken: this long for each byte, which is 500 bytes a second.
const TIME_PER_BYTE: Duration = Duration::from_millis(2);

/// What the client of a route is told whose body ended before its length.
pub(crate) fn broken_off(route: &str) -> ApiError {
    const WHY: &str = "unexpected EOF";
    match route {
        // Bodies that are taken as they are.
        "/v1/kv/" | "/v1/event/fire/" => ApiError::internal(WHY),
        "/v1/snapshot" => ApiError::internal(format!("failed to decompress snapshot: {WHY}")),
        "/v1/txn" => ApiError::bad_request(format!("Failed to parse body: {WHY}")),
        "/v1/operator/autopilot/configuration" => {
            ApiError::bad_request(format!("Error parsing autopilot config: {WHY}"))
        }
        _ => ApiError::decode(WHY),
    }
}

/// A body of a client that is passed on, and word of it when it ends before its length.
#[derive(Debug)]
pub(crate) struct PassedOn {
    body: Incoming,
    broke_off: Arc<AtomicBool>,
}

impl PassedOn {
    /// Also gives what will say whether the client broke off.
    pub(crate) fn new(body: Incoming) -> (Self, Arc<AtomicBool>) {
        let broke_off = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&broke_off);
        (Self { body, broke_off }, watched)
    }
}

impl Body for PassedOn {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = polled {
            self.broke_off.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the whole body of a request to `route`. A body that came in one piece is not copied.
///
/// The time that the client may take is `grace`, and [`TIME_PER_BYTE`] more for each byte that is in: a large body over
/// a slow line has all the time it needs, and one that trickles to hold a connection does not.
///
/// # Errors
/// 413 beyond `limit_bytes`, [`broken_off`] when the client breaks off, 408 when it is too slow.
pub(crate) async fn read<B>(
    mut body: B,
    limit_bytes: usize,
    grace: Duration,
    route: &str,
) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let from = Instant::now();
    let mut due = from + grace;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit_bytes {
        return Err(too_large(announced, limit_bytes));
    }
    // The timer is only armed when bytes are waited for.
    while let Some(frame) = timeout_at(due, body.frame()).await.map_err(|_| too_slow())? {
        let Ok(data) = frame.map_err(|_| broken_off(route))?.into_data() else {
            continue;
        };
        due += TIME_PER_BYTE * u32::try_from(data.len()).unwrap_or(u32::MAX);
        let len = first.len() + rest.len() + data.len();
        if len > limit_bytes {
            return Err(too_large(len, limit_bytes));
        }
        if rest.is_empty() && first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(announced.max(len));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    journey::add(journey::Stage::Body, from.elapsed());
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Hands a body on piece by piece, of any length but within the bounds of time of [`read`]; stops when nobody takes the
/// pieces any more.
///
/// # Errors
/// [`broken_off`] when the client breaks off, 408 when it is too slow.
pub(crate) async fn pour<B>(
    mut body: B,
    grace: Duration,
    route: &str,
    to: mpsc::Sender<Bytes>,
) -> Result<(), ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut due = Instant::now() + grace;
    while let Some(frame) = timeout_at(due, body.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|_| broken_off(route))?;
        let Ok(data) = frame.into_data() else { continue };
        let earned = TIME_PER_BYTE * u32::try_from(data.len()).unwrap_or(u32::MAX);
        // A disk that is slow is not the client's fault.
        let handed_on_from = Instant::now();
        if to.send(data).await.is_err() {
            return Ok(());
        }
        due += earned + handed_on_from.elapsed();
    }
    Ok(())
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "Request body came too slowly")
}

fn too_large(len_bytes: usize, limit_bytes: usize) -> ApiError {
    ApiError::too_large(format!(
        "Request body({len_bytes} bytes) too large, max size: {limit_bytes} bytes."
    ))
}

/// The 413 of an endpoint whose limit is a setting, which the text links to as Consul's does.
pub(crate) fn over_setting(len_bytes: u64, limit_bytes: usize, setting: &str) -> ApiError {
    ApiError::too_large(format!(
        "Request body({len_bytes} bytes) too large, max size: {limit_bytes} bytes. \
         See https://www.consul.io/docs/agent/config/config-files#{setting}."
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use tokio::time::{Sleep, sleep};

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    /// Pieces that come after pauses.
    struct Slow {
        pieces: VecDeque<(Duration, usize)>,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some((pause, len)) = self.pieces.front().copied() else {
                return Poll::Ready(None);
            };
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(pause)));
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
            self.pieces.pop_front();
            Poll::Ready(Some(Ok(Frame::data(vec![b'x'; len].into()))))
        }
    }

    async fn read_of(pieces: impl IntoIterator<Item = (u64, usize)>) -> Result<usize, String> {
        let pieces = pieces
            .into_iter()
            .map(|(seconds, len)| (Duration::from_secs(seconds), len));
        let body = Slow {
            pieces: pieces.collect(),
            pause: None,
        };
        let read = read(body, 1 << 20, GRACE, "/v1/kv/").await;
        read.map(|bytes| bytes.len())
            .map_err(|error| error.text().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_over_a_slow_line_has_all_the_time_it_needs() {
        // 1000 bytes a second for nine minutes.
        assert_eq!(read_of([(10, 10_000); 52]).await, Ok(520_000));
        // All but the end at once, and a pause that this has earned.
        assert_eq!(read_of([(0, 100_000), (220, 1)]).await, Ok(100_001));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let refused = Err("Request body came too slowly".to_owned());

        assert_eq!(read_of([(60, 1)]).await, refused);
        assert_eq!(read_of([(1, 1); 60]).await, refused);
        assert_eq!(read_of([(10, 4000); 60]).await, refused);
    }
}
