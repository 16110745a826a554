//! `/v1/snapshot`: archives of the whole state, out and in. Neither is ever in memory as a whole.

use std::io;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use lictor_node::{RestoreError, Scratch, Upload};
use tokio::sync::mpsc;

use crate::acl::{Access, Resource};
use crate::answer::Flow;
use crate::blocking;
use crate::body;
use crate::ctx::{Ctx, Verb};
use crate::error::ApiError;
use crate::reply::{Meta, Reply};

/// Pieces of a body that wait between the connection and the disk.
const PIECES_MAX: usize = 8;
/// What a piece on its way out has.
const PIECE_BYTES: usize = 128 * 1024;

/// `GET` and `PUT /v1/snapshot`.
pub(crate) async fn serve(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.check_datacenter()?;
    // A snapshot holds the secrets of all tokens, so that it takes what rules over them.
    ctx.authorize(Resource::Acl, Access::Write)?;
    match ctx.verb {
        Verb::Put if ctx.query().has("stale") => Err(ApiError::internal("stale not allowed for restore")),
        Verb::Put => restore(ctx).await,
        _ => {
            let consistency = ctx.read_options()?.consistency;
            save(&ctx, blocking::gate(&ctx.shared.node, consistency).await?).await
        }
    }
}

async fn save(ctx: &Ctx, read: lictor_node::ReadMeta) -> Result<Reply, ApiError> {
    let saved = ctx.shared.node.save().await;
    let saved = saved.map_err(|error| failed("save", &error))?;
    let index = saved.meta().index;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    // Ends with the connection: then nobody takes the pieces.
    tokio::task::spawn_blocking(move || send(saved, sender));
    let reply = Reply::flow(Flow::new(receiver)).with_meta(Meta::new(index, read));
    Ok(reply.with_header(CONTENT_TYPE, HeaderValue::from_static("application/x-gzip")))
}

fn send(saved: lictor_archive::Saved<Scratch>, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut pieces = Pieces {
        sender,
        filling: Vec::with_capacity(PIECE_BYTES),
    };
    match saved.send(&mut pieces) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            tracing::error!(%error, "a snapshot was broken off");
            // The client sees that something is missing; if it is gone itself, nobody has to.
            let _ = pieces.sender.blocking_send(Err(error));
        }
    }
}

/// Makes pieces of what is written, and waits for the client to take them.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    filling: Vec<u8>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.filling.extend_from_slice(bytes);
        if self.filling.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filling.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.filling, Vec::with_capacity(PIECE_BYTES));
        let sent = self.sender.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// 200 with an empty body, or 500 in Consul's words and nothing changed.
async fn restore(mut ctx: Ctx) -> Result<Reply, ApiError> {
    let upload = ctx.shared.node.upload().map_err(|error| unstaged(&error))?;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let writing = tokio::task::spawn_blocking(move || write(upload, receiver));
    let poured = match ctx.take_body() {
        Some(body) => body::pour(body, ctx.shared.limits.body_grace, ctx.route, sender).await,
        None => Ok(()),
    };
    let upload = writing
        .await
        .map_err(io::Error::other)
        .and_then(|written| written);
    let upload = upload.map_err(|error| unstaged(&error))?;
    poured?;
    ctx.shared.node.restore(upload).await?;
    let octets = HeaderValue::from_static("application/octet-stream");
    Ok(Reply::empty(StatusCode::OK).with_header(CONTENT_TYPE, octets))
}

fn write(mut upload: Upload, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Upload> {
    while let Some(piece) = pieces.blocking_recv() {
        upload.write(&piece)?;
    }
    Ok(upload)
}

fn unstaged(error: &io::Error) -> ApiError {
    failed("stage", error)
}

fn failed(to_do: &'static str, error: &io::Error) -> ApiError {
    let text = format!("failed to {to_do} snapshot: {error}");
    if error.kind() == io::ErrorKind::ResourceBusy {
        return ApiError::new(StatusCode::TOO_MANY_REQUESTS, text);
    }
    tracing::error!("{text}");
    ApiError::internal(text)
}

impl From<RestoreError> for ApiError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Propose(error) => error.into(),
            RestoreError::Staging(error) => unstaged(&error),
            _ => Self::internal(error.to_string()),
        }
    }
}
