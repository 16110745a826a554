//! Why an archive is refused. The texts are Consul's where it has one.

use std::io;

use lictor_state::snapshot::SnapshotError;

/// Why a file is no archive that can be restored. Nothing was changed by it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It is not gzip.
    #[error("failed to decompress snapshot: {0}")]
    NotGzip(&'static str),
    /// It is not a tar of the three files.
    #[error("failed to read snapshot file: {0}")]
    Form(String),
    /// A digest is wrong or missing.
    #[error("failed to read snapshot file: failed checking integrity of snapshot: {0}")]
    Integrity(String),
    /// It does not end where it should.
    #[error("{0}")]
    End(String),
    /// Its digests are right, but its rows make no state.
    #[error("Raft error when restoring snapshot: {0}")]
    Content(String),
    /// The file cannot be read.
    #[error("failed to read snapshot file: {0}")]
    Io(#[source] io::Error),
}

impl ArchiveError {
    pub(crate) fn content(what: impl std::fmt::Display) -> Self {
        Self::Content(format!("{what}"))
    }
}

impl From<SnapshotError> for ArchiveError {
    fn from(error: SnapshotError) -> Self {
        Self::Content(error.to_string())
    }
}
