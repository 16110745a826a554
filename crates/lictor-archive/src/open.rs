//! Takes the archive apart, front to back, and checks its form and its digests.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use crate::meta::{CONSUL_VERSION, VERSION};
use crate::{ArchiveError, Meta, UNPACKED_MAX_BYTES};

/// `meta.json` and `SHA256SUMS` are a few hundred bytes.
const SMALL_MAX_BYTES: u64 = 1 << 20;
/// What tar programs may pad an archive with.
const PADDING_MAX_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;

/// The names of the files, and how far each was read.
#[derive(Default)]
struct Found {
    meta: Option<(Meta, [u8; 32])>,
    state: Option<(u64, [u8; 32])>,
    sums: Option<Vec<u8>>,
}

/// Reads an archive; `content` makes something of `state.bin`. What it made, or why it could not, only comes out if the
/// archive is whole.
pub(crate) fn open<T>(
    source: impl Read,
    content: impl FnOnce(&mut dyn BufRead) -> Result<T, ArchiveError>,
) -> Result<(Meta, T), ArchiveError> {
    let mut packed = BufReader::with_capacity(BUFFER_BYTES, source);
    check_magic(&mut packed)?;
    let mut tar = tar::Archive::new(GzDecoder::new(packed).take(UNPACKED_MAX_BYTES));
    let mut found = Found::default();
    let mut content = Some(content);
    let mut made = None;
    // Raw: extensions of tar that would be kept in memory, such as long names, are files that do not belong here.
    for entry in tar.entries().map_err(not_tar)?.raw(true) {
        let mut entry = entry.map_err(not_tar)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match name.as_str() {
            "meta.json" if found.meta.is_none() => found.meta = Some(meta(&mut entry)?),
            "SHA256SUMS" if found.sums.is_none() => found.sums = Some(small(&mut entry)?),
            "state.bin" => {
                let mut reader = Hashed::new(entry);
                let taken = content.take().ok_or_else(|| unexpected(&name))?;
                made = Some(taken(&mut BufReader::with_capacity(BUFFER_BYTES, &mut reader)));
                found.state = Some(reader.end()?);
            }
            _ => return Err(unexpected(&name)),
        }
    }
    check_end(tar.into_inner())?;
    let meta = found.check()?;
    let made = made.ok_or_else(|| missing("state.bin"))??;
    Ok((meta, made))
}

impl Found {
    fn check(self) -> Result<Meta, ArchiveError> {
        let sums = self.sums.unwrap_or_default();
        let sums = parse_sums(&sums)?;
        let files = [
            ("meta.json", self.meta.as_ref().map(|(_, sha256)| sha256)),
            ("state.bin", self.state.as_ref().map(|(_, sha256)| sha256)),
        ];
        if let Some((name, _)) = sums
            .iter()
            .find(|(name, _)| files.iter().all(|(file, _)| file != name))
        {
            return Err(ArchiveError::Integrity(format!("list missing hash for {name:?}")));
        }
        for (name, sha256) in files {
            let listed = sums.iter().find(|(listed, _)| *listed == name);
            let (Some(sha256), Some((_, listed))) = (sha256, listed) else {
                return Err(missing(name));
            };
            if listed[..] != sha256[..] {
                return Err(ArchiveError::Integrity(format!("hash check failed for {name:?}")));
            }
        }
        let (Some((meta, _)), Some((size, _))) = (self.meta, self.state) else {
            return Err(missing("meta.json"));
        };
        if ![CONSUL_VERSION, VERSION].contains(&meta.version) {
            return Err(ArchiveError::Content(format!(
                "unsupported snapshot version {}",
                meta.version
            )));
        }
        if u64::try_from(meta.size) != Ok(size) {
            let text = format!(
                "failed to write snapshot, size didn't match ({size} != {})",
                meta.size
            );
            return Err(ArchiveError::Content(text));
        }
        Ok(meta)
    }
}

/// Lines of a digest in hexadecimal, two spaces, and a name.
fn parse_sums(text: &[u8]) -> Result<Vec<(&str, Vec<u8>)>, ArchiveError> {
    let refuse = |what: &str| ArchiveError::Integrity(what.to_owned());
    let text = std::str::from_utf8(text).map_err(|_| refuse("the list of digests is no text"))?;
    let parse = |line| {
        let (digest, name) =
            str::split_once(line, "  ").ok_or_else(|| refuse("no digest and name on a line"))?;
        let digest = hex::decode(digest).map_err(|_| refuse("a digest is not hexadecimal"))?;
        Ok((name, digest))
    };
    text.lines().map(parse).collect()
}

fn check_magic(packed: &mut impl BufRead) -> Result<(), ArchiveError> {
    let head = packed.fill_buf().map_err(ArchiveError::Io)?;
    match head {
        [] => Err(ArchiveError::NotGzip("EOF")),
        _ if head.len() < 10 => Err(ArchiveError::NotGzip("unexpected EOF")),
        [0x1f, 0x8b, 8, ..] => Ok(()),
        _ => Err(ArchiveError::NotGzip("gzip: invalid header")),
    }
}

fn meta(entry: &mut impl Read) -> Result<(Meta, [u8; 32]), ArchiveError> {
    let json = small(entry)?;
    let meta = serde_json::from_slice(&json)
        .map_err(|error| ArchiveError::Form(format!("failed to decode snapshot metadata: {error}")))?;
    Ok((meta, Sha256::digest(&json).into()))
}

fn small(entry: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry
        .take(SMALL_MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| cut(&error))?;
    Ok(bytes)
}

/// What remains is padding, and then the end of the gzip with the right checksum.
fn check_end<R: BufRead>(mut rest: io::Take<GzDecoder<R>>) -> Result<(), ArchiveError> {
    let end = |error: &io::Error| ArchiveError::End(in_words(error));
    let mut unread = 0;
    let mut buffer = [0; 4096];
    loop {
        let len = rest.read(&mut buffer).map_err(|error| end(&error))?;
        if len == 0 {
            break;
        }
        unread += len as u64;
        if unread > PADDING_MAX_BYTES || buffer[..len].iter().any(|&byte| byte != 0) {
            return Err(ArchiveError::End(format!(
                "{unread} unread uncompressed bytes remain"
            )));
        }
    }
    if rest.limit() == 0 {
        return Err(ArchiveError::Content(format!(
            "it holds more than {UNPACKED_MAX_BYTES} bytes"
        )));
    }
    let mut packed = rest.into_inner().into_inner();
    match packed.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(ArchiveError::End("unexpected EOF".to_owned())),
        Err(error) => Err(ArchiveError::Io(error)),
    }
}

fn unexpected(name: &str) -> ArchiveError {
    ArchiveError::Form(format!("unexpected file {name:?} in snapshot"))
}

fn missing(name: &str) -> ArchiveError {
    ArchiveError::Integrity(format!("file missing for {name:?}"))
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn not_tar(error: io::Error) -> ArchiveError {
    let what = match error.kind() {
        ErrorKind::UnexpectedEof => "unexpected EOF",
        _ => "archive/tar: invalid tar header",
    };
    ArchiveError::Form(format!("failed reading snapshot: {what}"))
}

fn cut(error: &io::Error) -> ArchiveError {
    ArchiveError::Form(format!(
        "failed to read or write snapshot data: {}",
        in_words(error)
    ))
}

/// Go's words for what gzip finds wrong.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => "gzip: invalid checksum".to_owned(),
        _ => error.to_string(),
    }
}

/// Takes the digest of what passes through, and keeps the first failure, which whoever reads may put in other words.
struct Hashed<R> {
    inner: R,
    digest: Sha256,
    len: u64,
    failure: Option<ArchiveError>,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            digest: Sha256::new(),
            len: 0,
            failure: None,
        }
    }

    /// Reads what is left; the length and the digest.
    fn end(mut self) -> Result<(u64, [u8; 32]), ArchiveError> {
        if self.failure.is_none() {
            // The failure says more than this error.
            let _ = io::copy(&mut self, &mut io::sink());
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok((self.len, self.digest.finalize().into())),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(len) => {
                self.digest.update(&buffer[..len]);
                self.len += len as u64;
                Ok(len)
            }
            Err(error) => {
                self.failure.get_or_insert_with(|| cut(&error));
                Err(error)
            }
        }
    }
}
