//! What can go wrong, sorted by what the caller may do about it.

use std::io;

/// Why a raft message was not taken. Raft sends again; the caller reports the peer unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// No such peer.
    #[error("no such peer")]
    UnknownPeer,
    /// There is no connection now.
    #[error("the peer is not connected")]
    Unreachable,
    /// The queue is at its bound.
    #[error("the queue to the peer is full")]
    Full,
    /// Larger than a message may be.
    #[error("the message is too large")]
    TooLarge,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The other side has not seen, and never will see, the whole call: it may be made again, there or elsewhere.
    #[error("not sent: {0}")]
    NotSent(#[from] NotSent),
    /// The call may or may not have had its effect. What is not idempotent must not be made again.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(#[from] Lost),
}

/// Why a call or a bulk stream did not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// No such peer, or it was removed before the call left.
    #[error("no such peer")]
    UnknownPeer,
    /// There is no connection, for this reason.
    #[error("{0}")]
    Unreachable(String),
    /// The two servers do not accept each other, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The address is this server's own.
    #[error("the address is this server's own")]
    Itself,
    /// Too many calls wait, here or there.
    #[error("too many calls wait")]
    Busy,
    /// The body is larger than it may be.
    #[error("{len_bytes} bytes are more than the limit of {max_bytes}")]
    TooLarge {
        /// The size of the body.
        len_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The deadline passed before the call could leave.
    #[error("the deadline passed")]
    Deadline,
}

/// How the answer of a call that had left was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The connection ended, for this reason.
    #[error("connection lost: {0}")]
    Connection(String),
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The answer was larger than it may be.
    #[error("the answer was too large")]
    AnswerTooLarge,
}

/// A key, or a set of certificates, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// The cluster key has too few bytes to be kept secret.
    #[error("a cluster key has at least {min_bytes} bytes, this one has {len_bytes}")]
    ShortKey {
        /// The size of the key.
        len_bytes: usize,
        /// The smallest size.
        min_bytes: usize,
    },
    /// A keyring without a key, or with too many.
    #[error("a keyring has at least one key and at most {max}")]
    KeyCount {
        /// Most keys.
        max: usize,
    },
    /// The changed keys could not be kept, and were not changed.
    #[error("the keyring cannot be written: {0}")]
    NotKept(#[source] io::Error),
    /// A PEM text has not in it what it should have.
    #[error("no {wanted} in {place}")]
    Pem {
        /// What is missing.
        wanted: &'static str,
        /// Which of the texts.
        place: &'static str,
    },
    /// The certificate is not made for this use.
    #[error("the certificate is not one of a server of this cluster: {0}")]
    Certificate(String),
    /// TLS does not take them.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a connection was not opened or not accepted: one line for the log of each side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the handshake took too long")]
    Timeout,
    #[error("the other side does not speak Lictor's peer protocol")]
    NotAPeer,
    #[error("{0}")]
    Tls(String),
    /// What this side has against the other.
    #[error("{0}")]
    Refusing(String),
    /// What the other side has against this one.
    #[error("refused: {0}")]
    Refused(String),
    #[error("the address is this server's own")]
    Itself,
}

impl From<HandshakeError> for NotSent {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Itself => Self::Itself,
            HandshakeError::Refusing(_) | HandshakeError::Refused(_) | HandshakeError::Tls(_) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unreachable(error.to_string()),
        }
    }
}
