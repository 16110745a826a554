//! What can be wrong with a configuration, each as one line that names the place and what to do.

use std::path::PathBuf;

/// A configuration that cannot be used. The text is meant for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why not; part of the text, so not told again as a source.
        cause: std::io::Error,
    },
    /// A file is larger than any configuration should be.
    #[error("{path} has {bytes} bytes; a configuration file may have {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// A file's name does not tell its format.
    #[error("cannot tell the format of {path}: name it .json or .hcl, or give -config-format")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// Text that is neither JSON nor HCL.
    #[error("{origin}: {message}")]
    Syntax {
        /// File name or flag.
        origin: String,
        /// What is wrong, and where.
        message: String,
    },
    /// A key that nobody knows.
    #[error("{origin}: unknown configuration key {key:?}{}", hint(*.meant))]
    UnknownKey {
        /// File name or flag.
        origin: String,
        /// Dotted name.
        key: String,
        /// A known name that is close.
        meant: Option<&'static str>,
    },
    /// A value of the wrong kind.
    #[error("{origin}: {key} must be {expected}")]
    WrongKind {
        /// File name or flag.
        origin: String,
        /// Dotted name.
        key: String,
        /// The kind in words.
        expected: &'static str,
    },
    /// A value, or several together, that make no sense.
    #[error("{0}")]
    Invalid(String),
}

fn hint(meant: Option<&'static str>) -> String {
    meant.map_or_else(String::new, |name| format!(" (did you mean {name:?}?)"))
}
