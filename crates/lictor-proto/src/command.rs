//! The command of one raft log entry, and its envelope.

use bytes::Bytes;
use prost::Message;

use crate::limits::ENTRY_MAX_BYTES;
pub use crate::v1::entry::Command;

/// The level that this build writes and understands.
const LEVEL: u32 = 1;

/// Tag and name of every kind of command, as in `command.proto`.
const KINDS: &[(u32, &str)] = include!(concat!(env!("OUT_DIR"), "/kinds.rs"));

/// Why the bytes of a log entry are not a command that this build can apply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are no message at all: the log is damaged or was written by something else.
    #[error("log entry is not a command: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A kind from a later release that must not be skipped.
    #[error("log entry of kind {kind} needs feature level {level}; this build has {LEVEL}")]
    Unknown {
        /// The tag of the command.
        kind: u32,
        /// The level that the writer asked for.
        level: u32,
    },
}

impl Command {
    /// The bytes of the log entry that carries this command.
    pub fn to_entry_bytes(self) -> Vec<u8> {
        let entry = crate::v1::Entry {
            kind: self.kind(),
            // What changes no row may be passed over by a release that does not know it.
            skippable: matches!(self, Self::CompareStates(_)),
            level: LEVEL,
            command: Some(self),
        };
        entry.encode_to_vec()
    }

    /// Reads the bytes of a log entry. `None` stands for a kind that this build does not know and may skip.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] for bytes that are no entry, [`DecodeError::Unknown`] for a kind that this
    /// build does not know and must not skip.
    pub fn from_entry_bytes(data: Bytes) -> Result<Option<Self>, DecodeError> {
        let entry = crate::v1::Entry::decode(data)?;
        match entry.command {
            Some(command) => Ok(Some(command)),
            None if entry.skippable => Ok(None),
            None => Err(DecodeError::Unknown {
                kind: entry.kind,
                level: entry.level,
            }),
        }
    }

    /// Whether the encoded command stays within [`ENTRY_MAX_BYTES`].
    pub fn fits(encoded_bytes: usize) -> bool {
        encoded_bytes <= ENTRY_MAX_BYTES
    }

    /// All kinds of commands: the tag in the entry, below 128, and the name.
    pub fn kinds() -> impl Iterator<Item = (u32, &'static str)> {
        KINDS.iter().copied()
    }

    /// Whether these are the bytes of an entry that changes one key and no more, so that applying it takes
    /// microseconds whatever the state holds.
    pub fn is_of_one_key(entry: &[u8]) -> bool {
        // The kind is the first field, and below 128.
        const KIND: u8 = 1 << 3;
        matches!(entry, [KIND, 16 | 17 | 19 | 20, ..])
    }

    /// The tag of the command in the entry.
    pub fn kind(&self) -> u32 {
        match self {
            Self::KvSet(_) => 16,
            Self::KvDelete(_) => 17,
            Self::KvDeleteTree(_) => 18,
            Self::KvLock(_) => 19,
            Self::KvUnlock(_) => 20,
            Self::Txn(_) => 21,
            Self::SessionCreate(_) => 22,
            Self::SessionDestroy(_) => 23,
            Self::ReapTombstones(_) => 24,
            Self::LockDelayOver(_) => 25,
            Self::Register(_) => 26,
            Self::Deregister(_) => 27,
            Self::Restore(_) => 28,
            Self::KvSetTtl(_) => 50,
            Self::KvTtlOver(_) => 51,
            Self::CompareStates(_) => 70,
            Self::PreparedQuerySet(_) => 60,
            Self::PreparedQueryDelete(_) => 61,
            Self::QueueEnter(_) => 40,
            Self::QueueRenew(_) => 41,
            Self::QueueRelease(_) => 42,
            Self::QueueDrop(_) => 43,
            Self::QueueForget(_) => 44,
            Self::KvLockEnter(_) => 45,
            Self::SessionTtlMinSet(_) => 46,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Entry, KvSet};

    #[test]
    fn a_command_survives_its_envelope() {
        let command = Command::KvSet(KvSet {
            key: "k".into(),
            value: "v".into(),
            flags: 7,
            cas: Some(0),
        });

        let back = Command::from_entry_bytes(command.clone().to_entry_bytes().into()).unwrap();

        assert_eq!(back, Some(command));
    }

    #[test]
    fn every_kind_has_a_name_and_a_small_tag() {
        let kinds: Vec<_> = Command::kinds().collect();

        assert!(
            kinds.contains(&(16, "kv_set")) && kinds.contains(&(44, "queue_forget")),
            "{kinds:?}"
        );
        assert!(kinds.iter().all(|(tag, _)| *tag < 128));
    }

    #[test]
    fn an_unknown_kind_stops_unless_it_may_be_skipped() {
        let unknown = |skippable| {
            Entry {
                kind: 9000,
                skippable,
                level: 9,
                command: None,
            }
            .encode_to_vec()
        };

        assert!(matches!(
            Command::from_entry_bytes(unknown(false).into()),
            Err(DecodeError::Unknown { kind: 9000, .. })
        ));
        assert_eq!(Command::from_entry_bytes(unknown(true).into()).unwrap(), None);
    }
}
