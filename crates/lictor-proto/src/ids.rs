//! Newtypes for numbers and identifiers that must not mix.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A position in the raft log; the first entry is 1.
    LogIndex
}
number! {
    /// A raft term.
    Term
}
number! {
    /// The identity of a raft member: random, non-zero, drawn with a data directory and never reused.
    RaftId
}
number! {
    /// An index as clients see it (`X-Consul-Index`, `ModifyIndex`): the log index plus the index offset.
    ConsulIndex
}
number! {
    /// The number of a raft `Ready`, used to report it persisted.
    ReadyNo
}

number! {
    /// Milliseconds on a clock that never goes back; its zero means nothing.
    MonoTime
}

impl MonoTime {
    /// The time `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The milliseconds since `earlier`; 0 if that is later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A session's uuid. Its text form is lower case, 8-4-4-4-12.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// Reads the 8-4-4-4-12 form in any letter case. Nothing else is a session id.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut id = [0u8; 16];
        let mut nibbles = 0;
        for (at, &byte) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = (byte as char).to_digit(16)?;
            id[nibbles / 2] = (id[nibbles / 2] << 4) | u8::try_from(digit).ok()?;
            nibbles += 1;
        }
        Some(Self(id))
    }

    /// Reads the 16 bytes of a row or command.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 36 characters of the text form, without an allocation.
    pub fn to_text(self) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for byte in self.0 {
            if matches!(at, 8 | 13 | 18 | 23) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        text
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::SessionId;

    #[test]
    fn session_ids_parse_in_any_case_and_print_in_lower() {
        let id = SessionId::parse("8A3bda11-bf72-ec79-f42e-244e89801e8c").unwrap();

        assert_eq!(id.to_string(), "8a3bda11-bf72-ec79-f42e-244e89801e8c");
    }

    #[test]
    fn other_texts_are_no_session_ids() {
        for text in [
            "",
            "x",
            "8a3bda11bf72ec79f42e244e89801e8c",
            "8a3bda11-bf72-ec79-f42e-244e89801e8g",
        ] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }
}
