//! `MessagePack` as far as a Consul's archive needs it, read within bounds.

use std::io::{BufRead, Read};

use crate::ArchiveError;

/// Lists and maps in one another.
const DEPTH_MAX: u32 = 32;
/// What one value may take in memory; the largest, a key's value, has half a megabyte by default.
const VALUE_MAX_BYTES: u64 = 64 << 20;
/// What an element of a list or map is counted with beside its bytes.
const ELEMENT_BYTES: u64 = 64;

/// A value. Texts and binary strings are the same: writers of old make no difference.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(Self, Self)>),
    /// A float or an extension, of which nothing is needed here.
    Other,
}

/// Reads values one after the other.
pub(crate) struct Source<'a> {
    inner: &'a mut dyn BufRead,
    /// Bytes read so far.
    pub(crate) read_bytes: u64,
    /// What the value that is being read may still take.
    left_bytes: u64,
}

impl<'a> Source<'a> {
    pub(crate) fn new(inner: &'a mut dyn BufRead) -> Self {
        Self {
            inner,
            read_bytes: 0,
            left_bytes: 0,
        }
    }

    /// The next byte by itself; `None` at the end.
    pub(crate) fn byte(&mut self) -> Result<Option<u8>, ArchiveError> {
        let next = self.inner.fill_buf().map_err(ArchiveError::Io)?.first().copied();
        if next.is_some() {
            self.inner.consume(1);
            self.read_bytes += 1;
        }
        Ok(next)
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Result<Value, ArchiveError> {
        self.left_bytes = VALUE_MAX_BYTES;
        self.nested(0)
    }

    /// The next value, a binary string of at most `max_bytes`, put into `into`.
    pub(crate) fn bytes_into(&mut self, max_bytes: usize, into: &mut Vec<u8>) -> Result<(), ArchiveError> {
        self.left_bytes = max_bytes as u64;
        into.clear();
        match self.array()? {
            [0xc6] => {
                let len = self.number(4)?;
                self.fill(len, into)
            }
            _ => Err(malformed("a record that is no binary string")),
        }
    }

    fn nested(&mut self, depth: u32) -> Result<Value, ArchiveError> {
        self.charge(ELEMENT_BYTES)?;
        if depth > DEPTH_MAX {
            return Err(malformed("values nested too deeply"));
        }
        let [tag] = self.array()?;
        Ok(match tag {
            0x00..=0x7f => Value::Uint(u64::from(tag)),
            0x80..=0x8f => self.map(u64::from(tag & 0x0f), depth)?,
            0x90..=0x9f => self.list(u64::from(tag & 0x0f), depth)?,
            0xa0..=0xbf => self.bytes(u64::from(tag & 0x1f))?,
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Bool(tag == 0xc3),
            0xc4 | 0xd9 => self.sized(1, Self::bytes)?,
            0xc5 | 0xda => self.sized(2, Self::bytes)?,
            0xc6 | 0xdb => self.sized(4, Self::bytes)?,
            0xc7..=0xc9 => {
                let len = self.number(1 << (tag - 0xc7))?;
                self.skip(len + 1)?
            }
            0xca => self.skip(4)?,
            0xcb => self.skip(8)?,
            0xcc..=0xcf => Value::Uint(self.number(1 << (tag - 0xcc))?),
            0xd0 => Value::Int(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Value::Int(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Value::Int(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Value::Int(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.skip((1 << (tag - 0xd4)) + 1)?,
            0xdc => self.sized(2, |source, len| source.list(len, depth))?,
            0xdd => self.sized(4, |source, len| source.list(len, depth))?,
            0xde => self.sized(2, |source, len| source.map(len, depth))?,
            0xdf => self.sized(4, |source, len| source.map(len, depth))?,
            0xc1 => return Err(malformed("a byte that begins no value")),
            0xe0..=0xff => Value::Int(i64::from(i8::from_be_bytes([tag]))),
        })
    }

    fn sized(
        &mut self,
        len_bytes: usize,
        read: impl FnOnce(&mut Self, u64) -> Result<Value, ArchiveError>,
    ) -> Result<Value, ArchiveError> {
        let len = self.number(len_bytes)?;
        read(self, len)
    }

    fn list(&mut self, len: u64, depth: u32) -> Result<Value, ArchiveError> {
        (0..len)
            .map(|_| self.nested(depth + 1))
            .collect::<Result<_, _>>()
            .map(Value::List)
    }

    fn map(&mut self, len: u64, depth: u32) -> Result<Value, ArchiveError> {
        let mut entry = || Ok((self.nested(depth + 1)?, self.nested(depth + 1)?));
        (0..len)
            .map(|_| entry())
            .collect::<Result<_, _>>()
            .map(Value::Map)
    }

    fn bytes(&mut self, len: u64) -> Result<Value, ArchiveError> {
        let mut bytes = Vec::new();
        self.fill(len, &mut bytes)?;
        Ok(Value::Bytes(bytes))
    }

    fn fill(&mut self, len: u64, into: &mut Vec<u8>) -> Result<(), ArchiveError> {
        self.charge(len)?;
        let read = Read::take(&mut *self.inner, len)
            .read_to_end(into)
            .map_err(ArchiveError::Io)?;
        self.read_bytes += read as u64;
        if read as u64 == len {
            Ok(())
        } else {
            Err(cut_off())
        }
    }

    fn skip(&mut self, len: u64) -> Result<Value, ArchiveError> {
        self.fill(len, &mut Vec::new())?;
        Ok(Value::Other)
    }

    /// A big-endian number of 1, 2, 4 or 8 bytes.
    fn number(&mut self, len_bytes: usize) -> Result<u64, ArchiveError> {
        let mut number = 0;
        for _ in 0..len_bytes {
            let [byte] = self.array()?;
            number = number << 8 | u64::from(byte);
        }
        Ok(number)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|_| cut_off())?;
        self.read_bytes += N as u64;
        Ok(bytes)
    }

    fn charge(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.ok_or_else(|| malformed("a value that is too large"))?;
        Ok(())
    }
}

impl Value {
    /// The value of a map's field; nil where there is none.
    pub(crate) fn field(&self, name: &str) -> &Self {
        let Self::Map(entries) = self else {
            return &Self::Nil;
        };
        let is = |key: &Self| matches!(key, Self::Bytes(bytes) if bytes == name.as_bytes());
        entries
            .iter()
            .find(|(key, _)| is(key))
            .map_or(&Self::Nil, |(_, value)| value)
    }

    pub(crate) fn is_nil(&self) -> bool {
        *self == Self::Nil
    }

    /// A number; 0 for nil.
    pub(crate) fn uint(&self) -> Option<u64> {
        match *self {
            Self::Nil => Some(0),
            Self::Uint(number) => Some(number),
            Self::Int(number) => number.try_into().ok(),
            _ => None,
        }
    }

    /// A number that may be negative; 0 for nil.
    pub(crate) fn int(&self) -> Option<i64> {
        match *self {
            Self::Nil => Some(0),
            Self::Uint(number) => number.try_into().ok(),
            Self::Int(number) => Some(number),
            _ => None,
        }
    }

    /// Bytes; none for nil.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Nil => Some(&[]),
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A text; "" for nil.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

fn cut_off() -> ArchiveError {
    malformed("it is cut off")
}

fn malformed(what: &str) -> ArchiveError {
    ArchiveError::Content(format!("state.bin is damaged: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Value, ArchiveError> {
        Source::new(&mut bytes).value()
    }

    #[test]
    fn values_of_all_sizes_are_read() {
        for (bytes, value) in [
            (&b"\x05"[..], Value::Uint(5)),
            (b"\xcd\x01\x02", Value::Uint(0x0102)),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", Value::Uint(u64::MAX)),
            (b"\xff", Value::Int(-1)),
            (b"\xd1\xff\x00", Value::Int(-256)),
            (b"\xa2ab", Value::Bytes(b"ab".to_vec())),
            (b"\xda\x00\x01a", Value::Bytes(b"a".to_vec())),
            (b"\x92\xc0\xc3", Value::List(vec![Value::Nil, Value::Bool(true)])),
            (
                b"\x81\xa1a\x01",
                Value::Map(vec![(Value::Bytes(b"a".to_vec()), Value::Uint(1))]),
            ),
            (b"\xcb\0\0\0\0\0\0\0\0", Value::Other),
            (b"\xd5\x01ab", Value::Other),
        ] {
            assert_eq!(read(bytes).unwrap(), value, "{bytes:x?}");
        }
    }

    #[test]
    fn what_promises_more_than_there_is_is_refused_without_room_for_it() {
        for bytes in [
            &b"\xc6\xff\xff\xff\xff"[..],
            b"\xdb\x00\x10\x00\x00abc",
            b"\xdd\xff\xff\xff\xff\xc0",
            b"\xdf\xff\xff\xff\xff",
            b"\xc1",
            b"",
            &[0x91; 1000],
        ] {
            assert!(read(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn many_small_elements_are_bounded() {
        let bytes = [&b"\xdd\x7f\xff\xff\xff"[..], &vec![0xc0; 2 << 20]].concat();

        let refused = read(&bytes).unwrap_err();

        assert!(refused.to_string().contains("too large"), "{refused}");
    }
}
