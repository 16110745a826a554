//! Reads the marks out of RocksDB's WAL files, also those behind damage, where RocksDB stops.
//!
//! A WAL file is a sequence of 32 KiB blocks. A block holds fragments: masked CRC-32C (4), payload length (2),
//! type (1), log number (4), payload; all little-endian, the checksum covers type to payload. Fragments of
//! older uses of a recycled file carry another log number than the file's name. The payloads of a first
//! fragment and those that follow it make a write batch: sequence number (8), count (4), then operations; a
//! put is `01`, key and value, each with its length as a varint. Nothing here is trusted beyond its checksum.

use std::fs;
use std::io;
use std::path::Path;

use lictor_raft::Mark;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 11;
const BATCH_HEADER: usize = 12;
const PUT: u8 = 1;
/// Enough of a batch to hold the mark's operation.
const HEAD: usize = 128;

/// Types: 5 is a whole batch in one fragment, 6 the first of several, 7 one in the middle, 8 the last.
const FULL: u8 = 5;
const FIRST: u8 = 6;
const LAST: u8 = 8;

/// A mark at the head of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The batch's first sequence number.
    pub(super) sequence: u64,
    pub(super) mark: Mark,
}

/// All marks that can be read in the WAL files of a directory; none if there is no directory.
pub(super) fn marks(directory: &Path, key: &[u8]) -> io::Result<Vec<Found>> {
    let files = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut found = Vec::new();
    for file in files {
        let path = file?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|kind| kind == "log")) {
            scan(&fs::read(&path)?, number, key, &mut found);
        }
    }
    Ok(found)
}

fn scan(bytes: &[u8], file_number: u64, key: &[u8], found: &mut Vec<Found>) {
    // The header has room for the low half only.
    let number = (file_number & u64::from(u32::MAX)).to_le_bytes();
    let mut head: Vec<u8> = Vec::with_capacity(HEAD);
    for block in bytes.chunks(BLOCK) {
        let mut at = 0;
        while at + HEADER <= block.len() {
            let Some((kind, payload)) = fragment(&block[at..], &number[..4]) else {
                // Damage: look for the next fragment at every place.
                head.clear();
                at += 1;
                continue;
            };
            at += HEADER + payload.len();
            if matches!(kind, FULL | FIRST) {
                head.clear();
            } else if head.is_empty() || head.len() >= HEAD {
                continue;
            }
            head.extend_from_slice(&payload[..payload.len().min(HEAD)]);
            if let Some(mark) = mark_of(&head, key) {
                found.push(mark);
                head.clear();
            }
        }
    }
}

/// The fragment that begins here, if it is whole.
fn fragment<'a>(bytes: &'a [u8], number: &[u8]) -> Option<(u8, &'a [u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [c0, c1, c2, c3, l0, l1, kind, ..] = *header;
    if !(FULL..=LAST).contains(&kind) || &header[7..] != number {
        return None;
    }
    let payload = rest.get(..usize::from(u16::from_le_bytes([l0, l1])))?;
    let checksum = crc32c::crc32c(&bytes[6..HEADER + payload.len()]);
    (mask(checksum) == u32::from_le_bytes([c0, c1, c2, c3])).then_some((kind, payload))
}

/// RocksDB stores checksums rotated and shifted, so that a checksum of bytes that hold checksums stays strong.
fn mask(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn mark_of(batch: &[u8], key: &[u8]) -> Option<Found> {
    let (header, rest) = batch.split_first_chunk::<BATCH_HEADER>()?;
    let sequence = u64::from_le_bytes(*header.first_chunk()?);
    let rest = rest.strip_prefix(&[PUT])?;
    // Both lengths are below 128: one byte each.
    let (&key_len, rest) = rest.split_first()?;
    let rest = rest
        .strip_prefix(key)
        .filter(|_| usize::from(key_len) == key.len())?;
    let (&len, rest) = rest.split_first()?;
    let mark = Mark::decode(rest.get(..usize::from(len))?).ok()?;
    Some(Found { sequence, mark })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_masked_as_rocksdb_does() {
        // Of "foo", from RocksDB's own unit test of the mask: it is reversible and never the identity.
        let checksum = crc32c::crc32c(b"foo");

        assert_ne!(mask(checksum), checksum);
        assert_eq!(mask(checksum).wrapping_sub(0xa282_ead8).rotate_left(15), checksum);
    }

    #[test]
    fn rubbish_has_no_marks() {
        let mut found = Vec::new();
        let rubbish: Vec<u8> = (0..100_000u32)
            .map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect();

        scan(&rubbish, 4, b"key", &mut found);
        scan(&[], 4, b"key", &mut found);

        assert_eq!(found, []);
    }
}
