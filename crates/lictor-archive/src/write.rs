//! Writing an archive.

use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use lictor_proto::v1::MetaRow;
use lictor_state::{State, snapshot};
use sha2::{Digest, Sha256};

use crate::{LICTOR_RECORD, Meta};

/// Bytes of a record.
const RECORD_BYTES: usize = 256 * 1024;

/// An archive whose `state.bin` is complete, so that nothing but its reader can fail any more.
///
/// The rows go to a scratch file first, since `meta.json` and the tar say how long they are before they come. They are
/// packed there already, so gzip only wraps them.
#[derive(Debug)]
pub struct Saved<F> {
    scratch: F,
    meta: Meta,
    sha256: [u8; 32],
}

impl<F: Read + Write + Seek> Saved<F> {
    /// Writes the rows of `state` to `scratch`, which is empty. `row` is as for [`snapshot::write`].
    ///
    /// # Errors
    /// Those of `scratch`.
    pub fn new(state: &State, row: &MetaRow, meta: Meta, mut scratch: F) -> io::Result<Self> {
        let mut records = Records {
            out: &mut scratch,
            digest: Sha256::new(),
            len: 0,
            buffer: Vec::with_capacity(RECORD_BYTES + 6),
        };
        records.begin(meta.index)?;
        snapshot::write(state, row, &mut records)?;
        records.flush()?;
        let (sha256, len) = (records.digest.finalize().into(), records.len);
        let size = i64::try_from(len).map_err(io::Error::other)?;
        Ok(Self {
            scratch,
            meta: Meta { size, ..meta },
            sha256,
        })
    }

    /// Where the state stood.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// Those of `out` and of the scratch file.
    pub fn send(mut self, out: impl Write) -> io::Result<()> {
        self.scratch.seek(SeekFrom::Start(0))?;
        let mut tar = tar::Builder::new(GzEncoder::new(out, Compression::none()));
        let mut json = serde_json::to_vec(&self.meta).map_err(io::Error::other)?;
        json.push(b'\n');
        let sums = format!(
            "{}  meta.json\n{}  state.bin\n",
            hex::encode(Sha256::digest(&json)),
            hex::encode(self.sha256)
        );
        let len = u64::try_from(self.meta.size).map_err(io::Error::other)?;
        let at = self
            .meta
            .id
            .rsplit('-')
            .next()
            .and_then(|ms| ms.parse::<u64>().ok());
        let mtime = at.unwrap_or(0) / 1000;
        append(&mut tar, "meta.json", json.len() as u64, mtime, &json[..])?;
        append(&mut tar, "state.bin", len, mtime, &mut self.scratch)?;
        append(&mut tar, "SHA256SUMS", sums.len() as u64, mtime, sums.as_bytes())?;
        tar.into_inner()?.finish()?.flush()
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    len: u64,
    mtime: u64,
    data: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_mode(0o600);
    header.set_mtime(mtime);
    header.set_size(len);
    header.set_cksum();
    tar.append(&header, data)
}

/// Cuts a stream into records, and takes the digest of what they are.
struct Records<'a, W> {
    out: &'a mut W,
    digest: Sha256,
    len: u64,
    /// The record that is being filled, with room for its head.
    buffer: Vec<u8>,
}

const HEAD: [u8; 6] = [LICTOR_RECORD, 0xc6, 0, 0, 0, 0];

impl<W: Write> Records<'_, W> {
    /// Writes the map with `LastIndex`.
    fn begin(&mut self, index: u64) -> io::Result<()> {
        let mut head = vec![0x81, 0xa9];
        head.extend_from_slice(b"LastIndex");
        head.push(0xcf);
        head.extend_from_slice(&index.to_be_bytes());
        self.put(&head)?;
        self.buffer.extend_from_slice(&HEAD);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.len += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl<W: Write> Write for Records<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(HEAD.len() + RECORD_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == HEAD.len() + RECORD_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let len = self.buffer.len() - HEAD.len();
        if len == 0 {
            return Ok(());
        }
        let mut record = std::mem::take(&mut self.buffer);
        record[2..6].copy_from_slice(&u32::try_from(len).map_err(io::Error::other)?.to_be_bytes());
        self.put(&record)?;
        record.truncate(0);
        record.extend_from_slice(&HEAD);
        self.buffer = record;
        Ok(())
    }
}
