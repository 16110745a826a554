//! Lines for the locks of keys in the model.

use lictor_proto::SessionId;
use lictor_proto::v1;

use super::{Answer, Model};

impl Model {
    pub(super) fn enter(&mut self, enter: &v1::KvLockEnter) -> Answer {
        let lock = enter.lock.as_ref()?;
        let line = self.lines.get(&lock.key[..]);
        if line.is_some_and(|line| line.iter().any(|wait| wait.request == enter.request)) {
            return Some(true);
        }
        self.sessions.get(&SessionId::parse(&lock.session)?.0)?;
        if self.lock(lock)? {
            return Some(true);
        }
        let wait = v1::LockWaitRow {
            key: lock.key.clone(),
            index: self.index,
            session: lock.session.clone(),
            value: lock.value.clone(),
            flags: lock.flags,
            request: enter.request.clone(),
        };
        self.lines.entry(lock.key.to_vec()).or_default().push(wait);
        Some(true)
    }

    pub(super) fn leave(&mut self, leaves: impl Fn(&v1::LockWaitRow) -> bool) {
        for line in self.lines.values_mut() {
            line.retain(|wait| !leaves(wait));
        }
        self.lines.retain(|_, line| !line.is_empty());
    }

    /// What a command has freed goes to the next in line, for all that its session asked for.
    pub(super) fn grant(&mut self) {
        for (key, line) in self.lines.clone() {
            let is_held = self.kv.get(&key).is_some_and(|row| !row.session.is_empty());
            if is_held || self.delays.contains_key(&key) {
                continue;
            }
            let holder = line[0].session.clone();
            for wait in line.iter().filter(|wait| wait.session == holder) {
                self.take(&v1::KvLock {
                    key: wait.key.clone(),
                    value: wait.value.clone(),
                    flags: wait.flags,
                    session: wait.session.clone(),
                    checked_at: 0,
                });
            }
            self.leave(|wait| wait.key[..] == key[..] && wait.session == holder);
        }
    }
}
