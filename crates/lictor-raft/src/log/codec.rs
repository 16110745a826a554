//! How entries and marks are written; shared by all stores.
//!
//! | value | bytes |
//! |---|---|
//! | entry | kind (1), term (varint), data (the rest); the index is in the key |
//! | mark | version 1 (1), vote (8, little-endian), term, commit, synced-through (varints) |
//!
//! A varint has seven bits a byte, low bits first, the high bit set on all but the last.

use bytes::Bytes;
use lictor_proto::{LogIndex, RaftId, Term};

use super::{DecodeError, EntryKind, HardState, LogEntry};

const MARK_VERSION: u8 = 1;

/// What a store writes beside the entries of each synced batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The hard state.
    pub hard_state: HardState,
    /// The log had durably reached this index before the batch that carries the mark was written. An end of
    /// the log below a mark that can be read is therefore a loss; the batch with the newest mark itself may
    /// be torn.
    pub synced_through: LogIndex,
}

impl Mark {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.push(MARK_VERSION);
        out.extend_from_slice(&self.hard_state.vote.0.to_le_bytes());
        put_varint(&mut out, self.hard_state.term.0);
        put_varint(&mut out, self.hard_state.commit.0);
        put_varint(&mut out, self.synced_through.0);
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&version, rest) = bytes.split_first().ok_or(DecodeError)?;
        let (vote, rest) = rest.split_first_chunk().ok_or(DecodeError)?;
        bytes = rest;
        let hard_state = HardState {
            vote: RaftId(u64::from_le_bytes(*vote)),
            term: Term(take_varint(&mut bytes)?),
            commit: LogIndex(take_varint(&mut bytes)?),
        };
        let synced_through = LogIndex(take_varint(&mut bytes)?);
        if version != MARK_VERSION || !bytes.is_empty() {
            return Err(DecodeError);
        }
        Ok(Self {
            hard_state,
            synced_through,
        })
    }
}

impl LogEntry {
    /// Adds the bytes to store, without the index.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.kind {
            EntryKind::Normal => 0,
            EntryKind::Conf => 1,
            EntryKind::ConfV2 => 2,
        });
        put_varint(out, self.term.0);
        out.extend_from_slice(&self.data);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn decode(index: LogIndex, bytes: &[u8]) -> Result<Self, DecodeError> {
        let (kind, term, data) = Self::parts(bytes)?;
        Ok(Self {
            index,
            term,
            kind,
            data: Bytes::copy_from_slice(data),
        })
    }

    /// Reads the term alone.
    ///
    /// # Errors
    /// As for [`Self::decode`].
    pub fn decode_term(bytes: &[u8]) -> Result<Term, DecodeError> {
        Self::parts(bytes).map(|(_, term, _)| term)
    }

    fn parts(bytes: &[u8]) -> Result<(EntryKind, Term, &[u8]), DecodeError> {
        let (kind, mut rest) = bytes.split_first().ok_or(DecodeError)?;
        let kind = match kind {
            0 => EntryKind::Normal,
            1 => EntryKind::Conf,
            2 => EntryKind::ConfV2,
            _ => return Err(DecodeError),
        };
        let term = Term(take_varint(&mut rest)?);
        Ok((kind, term, rest))
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Takes a varint off the front.
///
/// # Errors
/// [`DecodeError`] when it is cut short or does not fit 64 bits.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(DecodeError)?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return Err(DecodeError);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_costs_two_bytes_beside_its_data_in_low_terms() {
        let entry = LogEntry {
            index: LogIndex(9),
            term: Term(5),
            kind: EntryKind::ConfV2,
            data: Bytes::from_static(b"xyz"),
        };
        let mut bytes = Vec::new();

        entry.encode(&mut bytes);

        assert_eq!(bytes, [2, 5, b'x', b'y', b'z']);
        assert_eq!(LogEntry::decode(LogIndex(9), &bytes), Ok(entry));
        assert_eq!(LogEntry::decode_term(&bytes), Ok(Term(5)));
    }

    #[test]
    fn a_mark_is_read_back() {
        let mark = Mark {
            hard_state: HardState {
                term: Term(300),
                vote: RaftId(u64::MAX),
                commit: LogIndex(u64::MAX),
            },
            synced_through: LogIndex(7),
        };

        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
    }

    #[test]
    fn other_bytes_are_refused() {
        let mark = Mark::default().encode();
        let mut long = mark.clone();
        long.push(0);

        for bytes in [&[][..], &[2], &mark[..mark.len() - 1], &long] {
            assert_eq!(Mark::decode(bytes), Err(DecodeError), "{bytes:?}");
        }
        for bytes in [
            &[][..],
            &[0],
            &[3, 1],
            &[0, 0x80],
            &[0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
        ] {
            assert_eq!(
                LogEntry::decode(LogIndex(1), bytes),
                Err(DecodeError),
                "{bytes:?}"
            );
        }
    }
}
