//! Reads a stream as its bytes come.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use lictor_proto::v1::{MetaRow, SnapshotRow, SnapshotTrailer};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{FRAME_MAX_BYTES, MAGIC, SnapshotError, Summary, TABLES, TRAILER_MAX_BYTES, table_count};
use crate::{Loader, State, Table};

const HEAD_LEN: usize = MAGIC.len() + 4;
const LENGTHS_LEN: usize = 8;

/// What a stream holds, piece by piece.
#[derive(Debug)]
pub enum Piece {
    /// Where the state stands; comes first and once.
    Meta(Box<MetaRow>),
    /// A row: its table, its key, its value.
    Row(Table, Bytes, Bytes),
}

/// Whether a reader wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The stream goes on.
    More,
    /// The trailer is read and right; `unused` bytes of the last push are not part of the stream.
    Done {
        /// How many bytes at the end of the push were not looked at.
        unused: usize,
    },
}

/// Takes a stream apart. Checks its form and its digest, but not what the rows mean: rows are given out before the digest
/// is known, so nothing may be made of them until [`Progress::Done`].
#[derive(Debug)]
pub struct Decoder {
    /// Bytes that do not make a whole frame yet.
    pending: BytesMut,
    at: At,
    digest: Sha256,
    rows: [u64; TABLES.len()],
    /// How many tables the format knows.
    table_count: usize,
    /// The number of the table that the last row belonged to.
    table: u32,
    unpacked_bytes: u64,
    limit_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    Meta,
    Rows,
    End,
}

impl Decoder {
    /// A reader that refuses a stream of more than `limit_bytes`, unpacked.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            pending: BytesMut::new(),
            at: At::Head,
            digest: Sha256::new(),
            rows: [0; TABLES.len()],
            table_count: 0,
            table: 0,
            unpacked_bytes: 0,
            limit_bytes,
        }
    }

    /// Takes the next bytes, of any number, and hands out the pieces that they complete.
    ///
    /// # Errors
    /// See [`SnapshotError`]; also what `each` answers. The reader is of no use after an error.
    pub fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Piece) -> Result<(), SnapshotError>,
    ) -> Result<Progress, SnapshotError> {
        if self.at == At::End {
            return Ok(Progress::Done { unused: bytes.len() });
        }
        self.pending.extend_from_slice(bytes);
        if self.at == At::Head && !self.head()? {
            return Ok(Progress::More);
        }
        while let Some((lengths, rest)) = self.pending.split_first_chunk::<LENGTHS_LEN>() {
            let (plain_len, len) = split(*lengths);
            check_lengths(plain_len, len)?;
            if rest.len() < len {
                break;
            }
            let frame = self.pending.split_to(LENGTHS_LEN + len);
            if plain_len == 0 {
                self.trailer(&frame[LENGTHS_LEN..])?;
                self.at = At::End;
                let unused = self.pending.len();
                self.pending = BytesMut::new();
                return Ok(Progress::Done { unused });
            }
            self.digest.update(&frame);
            self.frame(frame.freeze().slice(LENGTHS_LEN..), plain_len, each)?;
        }
        Ok(Progress::More)
    }

    /// What the whole stream held.
    ///
    /// # Errors
    /// [`SnapshotError::CutOff`] before [`Progress::Done`].
    pub fn finish(self) -> Result<Summary, SnapshotError> {
        match self.at {
            At::End => Ok(Summary {
                rows: self.rows,
                sha256: self.digest.finalize().into(),
            }),
            At::Head | At::Meta | At::Rows => Err(SnapshotError::CutOff),
        }
    }

    /// Whether the head is there.
    fn head(&mut self) -> Result<bool, SnapshotError> {
        let known = self.pending.len().min(MAGIC.len());
        if self.pending[..known] != MAGIC[..known] {
            return Err(SnapshotError::NotASnapshot);
        }
        if self.pending.len() < HEAD_LEN {
            return Ok(false);
        }
        let head = self.pending.split_to(HEAD_LEN);
        self.digest.update(&head);
        let found = (&head[MAGIC.len()..]).get_u32_le();
        self.table_count = table_count(found).ok_or(SnapshotError::OtherFormat { found })?;
        self.at = At::Meta;
        Ok(true)
    }

    fn frame(
        &mut self,
        packed: Bytes,
        plain_len: usize,
        each: &mut dyn FnMut(Piece) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        self.unpacked_bytes += plain_len as u64;
        if self.unpacked_bytes > self.limit_bytes {
            return Err(SnapshotError::TooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        let mut records = if packed.len() == plain_len {
            packed
        } else {
            let mut plain = vec![0; plain_len];
            match lz4_flex::block::decompress_into(&packed, &mut plain) {
                Ok(len) if len == plain_len => plain.into(),
                _ => return Err(SnapshotError::Damaged("a frame does not unpack")),
            }
        };
        if self.at == At::Meta {
            each(Piece::Meta(Box::new(record(&mut records)?)))?;
            self.at = At::Rows;
        }
        while !records.is_empty() {
            let row: SnapshotRow = record(&mut records)?;
            each(Piece::Row(self.count(row.table)?, row.key, row.value))?;
        }
        Ok(())
    }

    /// Counts a row of the table with this number.
    fn count(&mut self, number: u32) -> Result<Table, SnapshotError> {
        let found = TABLES
            .into_iter()
            .take(self.table_count)
            .enumerate()
            .find(|(_, table)| table.number() == number);
        let Some((at, table)) = found else {
            return Err(SnapshotError::Damaged("a row of an unknown table"));
        };
        if number < self.table {
            return Err(SnapshotError::Damaged("tables out of order"));
        }
        self.table = number;
        self.rows[at] += 1;
        Ok(table)
    }

    fn trailer(&self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let Ok(trailer) = SnapshotTrailer::decode(bytes) else {
            return Err(SnapshotError::Damaged("its trailer"));
        };
        if trailer.sha256[..] != self.digest.clone().finalize()[..] {
            return Err(SnapshotError::Damaged("its digest is another"));
        }
        if self.at != At::Rows || trailer.rows != self.rows[..self.table_count] {
            return Err(SnapshotError::Damaged("rows are missing"));
        }
        Ok(())
    }
}

fn split(lengths: [u8; LENGTHS_LEN]) -> (usize, usize) {
    let mut lengths = &lengths[..];
    (lengths.get_u32_le() as usize, lengths.get_u32_le() as usize)
}

/// Before anything of that length is waited for.
fn check_lengths(plain_len: usize, len: usize) -> Result<(), SnapshotError> {
    let is_right = match plain_len {
        0 => len <= TRAILER_MAX_BYTES,
        _ => len > 0 && len <= plain_len && plain_len <= FRAME_MAX_BYTES,
    };
    is_right
        .then_some(())
        .ok_or(SnapshotError::Damaged("a frame of impossible length"))
}

fn record<M: Message + Default>(records: &mut Bytes) -> Result<M, SnapshotError> {
    M::decode_length_delimited(records).map_err(|_| SnapshotError::Damaged("a record does not decode"))
}

/// Makes a [`State`] of a stream.
pub struct Receiver {
    decoder: Decoder,
    /// The meta row and what the rows become; `None` before it has come.
    loading: Option<(Box<MetaRow>, Loader)>,
}

/// What a whole stream held.
#[derive(Debug)]
pub struct Received {
    /// Where the state stands, and what its owner said beyond that.
    pub meta: MetaRow,
    /// The state.
    pub state: State,
    /// Counts and digest.
    pub summary: Summary,
}

impl Receiver {
    /// As for [`Decoder::new`].
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            decoder: Decoder::new(limit_bytes),
            loading: None,
        }
    }

    /// Takes the next bytes, of any number.
    ///
    /// # Errors
    /// See [`SnapshotError`]. The reader is of no use after an error.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Progress, SnapshotError> {
        let loading = &mut self.loading;
        self.decoder
            .push(bytes, &mut |piece| match (piece, &mut *loading) {
                (Piece::Meta(meta), loading) => {
                    let loader = Loader::new(&meta);
                    *loading = Some((meta, loader));
                    Ok(())
                }
                (Piece::Row(table, key, value), Some((_, loader))) => {
                    Ok(loader.push_bytes(table, &key, &value)?)
                }
                (Piece::Row(..), None) => Err(SnapshotError::Damaged("rows before the meta row")),
            })
    }

    /// Reads a whole stream.
    ///
    /// # Errors
    /// Those of `source`, and [`SnapshotError`] as [`io::ErrorKind::InvalidData`].
    pub fn read(mut self, source: &mut impl io::Read) -> io::Result<Received> {
        let invalid = |error: SnapshotError| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut buffer = vec![0; super::FRAME_BYTES];
        loop {
            let len = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if matches!(self.push(&buffer[..len]).map_err(invalid)?, Progress::Done { unused } if unused > 0)
            {
                return Err(invalid(SnapshotError::Damaged("something follows its end")));
            }
        }
        self.finish().map_err(invalid)
    }

    /// The state.
    ///
    /// # Errors
    /// [`SnapshotError::CutOff`] before [`Progress::Done`].
    pub fn finish(self) -> Result<Received, SnapshotError> {
        let summary = self.decoder.finish()?;
        let (meta, loader) = self.loading.ok_or(SnapshotError::CutOff)?;
        Ok(Received {
            meta: *meta,
            state: loader.finish(),
            summary,
        })
    }
}
