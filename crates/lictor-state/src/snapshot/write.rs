//! Writes a state as a stream.

use std::io;

use lictor_proto::v1::{MetaRow, SnapshotRow, SnapshotTrailer};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use sha2::{Digest, Sha256};

use super::{FORMAT, FRAME_BYTES, FRAME_MAX_BYTES, MAGIC, Summary, TABLES};
use crate::codec::{kv_len, put_kv};
use crate::{KvRow, State, Table, Write};

/// Writes all of `state`. `meta` is [`State::meta`] with what its owner knows beyond that: members, cluster id.
///
/// Takes as long as `out` does, and holds one frame at a time; hand it a clone of the published state and a thread that
/// may block.
///
/// # Errors
/// Those of `out`, and [`io::ErrorKind::InvalidData`] for a row beyond all bounds, which no command makes.
pub fn write(state: &State, meta: &MetaRow, out: &mut impl io::Write) -> io::Result<Summary> {
    let mut frames = Frames::begin(out)?;
    frames.record(meta)?;
    let mut rows = [0; TABLES.len()];
    for row in state.dump() {
        rows[row.table() as usize] += 1;
        frames.row(&row)?;
    }
    frames.end(rows)
}

struct Frames<'a, W> {
    out: &'a mut W,
    digest: Sha256,
    /// Records of the frame that is being filled.
    plain: Vec<u8>,
    /// Room for the same, packed, after the two lengths.
    packed: Vec<u8>,
}

impl<'a, W: io::Write> Frames<'a, W> {
    fn begin(out: &'a mut W) -> io::Result<Self> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&FORMAT.to_le_bytes());
        out.write_all(&head)?;
        Ok(Self {
            out,
            digest: Sha256::new_with_prefix(&head),
            plain: Vec::with_capacity(FRAME_BYTES * 2),
            packed: Vec::new(),
        })
    }

    fn row(&mut self, row: &Write) -> io::Result<()> {
        if let Write::Kv(row) = row {
            self.put_kv(row);
            return self.close_full_frame();
        }
        self.record(&SnapshotRow {
            table: row.table().number(),
            key: row.key_bytes(),
            value: row.value_bytes().into(),
        })
    }

    fn record(&mut self, message: &impl Message) -> io::Result<()> {
        // A vector always has room, so encoding cannot fail.
        message
            .encode_length_delimited(&mut self.plain)
            .map_err(io::Error::other)?;
        self.close_full_frame()
    }

    /// A `SnapshotRow` with a KV row, written without a copy of its key and value: nearly all rows are of this kind.
    fn put_kv(&mut self, row: &KvRow) {
        const TABLE_TAG: u8 = 0x08;
        const KEY_TAG: u8 = 0x12;
        const VALUE_TAG: u8 = 0x1a;
        let (key_len, value_len) = (row.key().len() as u64, kv_len(row) as u64);
        let lengths_len = encoded_len_varint(key_len) + encoded_len_varint(value_len);
        // The three tags, and the number of the table, which is below 128.
        encode_varint(4 + lengths_len as u64 + key_len + value_len, &mut self.plain);
        self.plain.push(TABLE_TAG);
        encode_varint(Table::Kv.number().into(), &mut self.plain);
        self.plain.push(KEY_TAG);
        encode_varint(key_len, &mut self.plain);
        self.plain.extend_from_slice(row.key());
        self.plain.push(VALUE_TAG);
        encode_varint(value_len, &mut self.plain);
        put_kv(row, &mut self.plain);
    }

    fn close_full_frame(&mut self) -> io::Result<()> {
        if self.plain.len() >= FRAME_BYTES {
            self.close_frame()?;
        }
        Ok(())
    }

    fn close_frame(&mut self) -> io::Result<()> {
        let plain_len = self.plain.len();
        if plain_len == 0 {
            return Ok(());
        }
        if plain_len > FRAME_MAX_BYTES {
            let text = format!("a row of {plain_len} bytes is too large for a snapshot");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let room = 8 + lz4_flex::block::get_maximum_output_size(plain_len);
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        let packed_len =
            lz4_flex::block::compress_into(&self.plain, &mut self.packed[8..]).map_err(io::Error::other)?;
        let packed_len = if packed_len < plain_len {
            packed_len
        } else {
            self.packed[8..8 + plain_len].copy_from_slice(&self.plain);
            plain_len
        };
        self.packed[..4].copy_from_slice(&number(plain_len));
        self.packed[4..8].copy_from_slice(&number(packed_len));
        let frame = &self.packed[..8 + packed_len];
        self.digest.update(frame);
        self.out.write_all(frame)?;
        self.plain.clear();
        Ok(())
    }

    fn end(mut self, rows: [u64; TABLES.len()]) -> io::Result<Summary> {
        self.close_frame()?;
        let sha256: [u8; 32] = self.digest.finalize().into();
        let trailer = SnapshotTrailer {
            rows: rows.to_vec(),
            sha256: sha256.to_vec().into(),
        };
        let trailer = trailer.encode_to_vec();
        self.out.write_all(&number(0))?;
        self.out.write_all(&number(trailer.len()))?;
        self.out.write_all(&trailer)?;
        Ok(Summary { rows, sha256 })
    }
}

/// A length within [`FRAME_MAX_BYTES`].
fn number(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}
