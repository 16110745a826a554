//! One KV row: a single allocation with a fixed header, the key, the session as written, and the value.

/// A KV row. Cloning shares it.
#[derive(Clone, Debug)]
pub struct KvRow {}

impl KvRow {
    /// The key's bytes.
    pub fn key(&self) -> &[u8] {
        todo!()
    }
    /// The value's bytes.
    pub fn value(&self) -> &[u8] {
        todo!()
    }
    /// The client's flags.
    pub fn flags(&self) -> u64 {
        todo!()
    }
    /// Index of the creation.
    pub fn create_index(&self) -> u64 {
        todo!()
    }
    /// Index of the last change.
    pub fn modify_index(&self) -> u64 {
        todo!()
    }
    /// How often the lock passed from nobody to somebody.
    pub fn lock_index(&self) -> u64 {
        todo!()
    }
    /// The holder as its client wrote it (rule R13).
    pub fn session(&self) -> Option<&str> {
        todo!()
    }
}
