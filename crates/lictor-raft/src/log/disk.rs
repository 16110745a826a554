//! A simulated disk: one file that a power cut treats as badly as a real disk may.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR: usize = 512;

/// A simulated disk holding one append-only file. Cloning shares it; it outlives the log that is on it.
#[derive(Clone, Default)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

type SyncHook = Box<dyn FnMut() -> Result<(), String> + Send>;

#[derive(Default)]
struct Inner {
    /// What a reader sees.
    bytes: Vec<u8>,
    /// How much of it survives a power cut.
    durable_len: usize,
    /// Syncs so far.
    syncs: u64,
    /// Runs in each sync; may block (a slow disk) or fail.
    on_sync: Option<SyncHook>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("SimDisk")
            .field("len", &inner.bytes.len())
            .field("durable_len", &inner.durable_len)
            .finish_non_exhaustive()
    }
}

impl SimDisk {
    /// Cuts the power: of what was not synced each sector is there, lost or torn, independently of the others
    /// and whatever their order; the same seed on the same disk does the same damage. Open logs must not be
    /// used any more.
    pub fn crash(&self, seed: u64) {
        let mut random = SplitMix(seed);
        let mut inner = self.lock();
        let durable = inner.durable_len;
        let unsynced = inner.bytes.len() - durable;
        let kept = usize::try_from(random.below(unsynced as u64 + 1)).unwrap_or(unsynced);
        inner.bytes.truncate(durable + kept);
        let mut at = durable;
        while at < inner.bytes.len() {
            let end = ((at / SECTOR + 1) * SECTOR).min(inner.bytes.len());
            let from = match random.below(4) {
                0 => at,
                1 => at + usize::try_from(random.below((end - at) as u64)).unwrap_or(0),
                _ => end,
            };
            inner.bytes[from..end].fill(0);
            at = end;
        }
        inner.durable_len = inner.bytes.len();
    }

    /// Flips all bits of one byte, durable or not; a position past the end does nothing.
    pub fn damage(&self, at: usize) {
        if let Some(byte) = self.lock().bytes.get_mut(at) {
            *byte = !*byte;
        }
    }

    /// Sets what happens in each sync: the closure may block, as a slow disk does, or fail it.
    pub fn on_sync(&self, hook: impl FnMut() -> Result<(), String> + Send + 'static) {
        self.lock().on_sync = Some(Box::new(hook));
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Length of the file in bytes.
    pub fn len_bytes(&self) -> usize {
        self.lock().bytes.len()
    }

    /// How much of the file a power cut cannot touch.
    pub fn durable_bytes(&self) -> usize {
        self.lock().durable_len
    }

    pub(super) fn append(&self, bytes: &[u8]) {
        self.lock().bytes.extend_from_slice(bytes);
    }

    /// All that was appended before the call is durable after it.
    pub(super) fn sync(&self) -> Result<(), String> {
        // The hook may block: readers of the disk must not wait for it.
        let (hook, len) = {
            let mut inner = self.lock();
            inner.syncs += 1;
            (inner.on_sync.take(), inner.bytes.len())
        };
        if let Some(mut hook) = hook {
            let done = hook();
            self.lock().on_sync.get_or_insert(hook);
            done?;
        }
        let mut inner = self.lock();
        inner.durable_len = inner.durable_len.max(len);
        Ok(())
    }

    /// Replaces the file atomically and durably, as writing a second file and renaming it does.
    pub(super) fn replace(&self, bytes: Vec<u8>) {
        let mut inner = self.lock();
        inner.durable_len = bytes.len();
        inner.bytes = bytes;
    }

    pub(super) fn read(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No step under this lock leaves the bytes half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A small generator with one word of state, its seed (Steele, Lea, Flood 2014). For simulations, so that a seed
/// replays; not for secrets.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(synced: usize, unsynced: usize) -> SimDisk {
        let disk = SimDisk::default();
        disk.append(&vec![1; synced]);
        disk.sync().unwrap();
        disk.append(&vec![2; unsynced]);
        disk
    }

    #[test]
    fn a_crash_never_touches_what_was_synced() {
        for seed in 0..200 {
            let disk = disk(700, 3000);

            disk.crash(seed);

            assert!(disk.read()[..700].iter().all(|&byte| byte == 1), "seed {seed}");
        }
    }

    #[test]
    fn a_crash_tears_loses_and_reorders() {
        let (mut whole, mut torn, mut holes) = (0, 0, 0);

        for seed in 0..200 {
            let disk = disk(0, 4 * SECTOR);
            disk.crash(seed);
            let sectors: Vec<(bool, bool)> = disk
                .read()
                .chunks(SECTOR)
                .map(|sector| (sector.iter().all(|&byte| byte == 2), sector.contains(&2)))
                .collect();
            whole += usize::from(sectors.first().is_some_and(|&(all, _)| all));
            torn += usize::from(sectors.iter().any(|&(all, any)| any && !all));
            holes += usize::from(sectors.windows(2).any(|pair| !pair[0].1 && pair[1].1));
        }

        assert!(whole > 20 && torn > 20 && holes > 20, "{whole} {torn} {holes}");
    }

    #[test]
    fn the_same_seed_does_the_same_damage() {
        let (one, two) = (disk(10, 2000), disk(10, 2000));

        one.crash(7);
        two.crash(7);

        assert_eq!(one.read(), two.read());
    }
}
