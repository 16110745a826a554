//! Why a data directory cannot be used. Each text is one line that says what to do.

use std::path::PathBuf;

/// Why a data directory, or the state in it, cannot be opened. What is on the disk is left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Written by a build with another data format.
    #[error(
        "data directory {path}: it has data format {found}, this build reads format {expected}; start the release \
         that wrote it, or choose another -data-dir"
    )]
    OtherVersion {
        /// The directory.
        path: PathBuf,
        /// The format on the disk.
        found: String,
        /// The format of this build.
        expected: u32,
    },
    /// Another process has it.
    #[error("data directory {path}: in use by another process; stop that one, or choose another -data-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It holds something else.
    #[error(
        "data directory {path}: not empty and not written by Lictor (there is {found}); choose an empty or new -data-dir"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// The first thing found in it.
        found: String,
    },
    /// The operating system refuses.
    #[error("data directory {path}: {cause}; check its owner, permissions and disk")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why; part of the text, so not told again as a source.
        cause: std::io::Error,
    },
    /// What is there is not what was written.
    #[error(
        "data directory {path}: damaged ({what}); nothing was changed. Restore it from a backup, or move it away to \
         start empty"
    )]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}
