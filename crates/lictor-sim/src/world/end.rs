//! The faults end: the cluster has to come back, agree, have empty queues, and explain all that it ever answered.

use super::{Event, SECOND, World};
use crate::check::linear::{self, Action, Operation, Verdict};
use crate::check::{Breach, Checked, ensure};
use crate::client::check_total;
use crate::request::Row;
use crate::server::{Micros, digest_of};

/// How long the cluster may take to come back, and to end all sessions.
const HEALING: Micros = 30 * SECOND;

impl World {
    pub(super) fn heal(&mut self) {
        self.say(|| "all faults end".to_owned());
        self.healed = true;
        self.network.heal();
        for id in self.servers.keys().copied().collect::<Vec<_>>() {
            let after = self.random.below(SECOND / 2);
            self.schedule(after, Event::Start(id));
            if let Some(server) = self.servers.get_mut(&id) {
                server.slow_until = 0;
                let life = server.life;
                self.schedule(0, Event::Resume { id, life });
            }
        }
        self.schedule(3 * SECOND, Event::Look);
    }

    /// Whether all is well, or else not yet too late.
    pub(super) fn look(&mut self) -> Checked {
        self.done = self.is_well();
        ensure(self.done || self.now < self.heals_at + HEALING, || {
            format!("the cluster does not come back: {}", self.describe())
        })?;
        self.schedule(SECOND / 5, Event::Look);
        Ok(())
    }

    fn is_well(&self) -> bool {
        let mut last = None;
        for server in self.servers.values() {
            let (Some(status), Some(process)) = (server.status(), &server.process) else {
                return false;
            };
            let all = (status.term, status.last, status.leader);
            let applied = server.applied() == status.last && status.leader.is_some();
            let state = process.state();
            let is_empty = state.sessions().next().is_none()
                && state.queue_entries().next().is_none()
                && state.lock_waits().next().is_none()
                && state.kv_ttls().next().is_none();
            if !applied || *last.get_or_insert(all) != all || !is_empty {
                return false;
            }
        }
        self.operator.is_idle() && self.calls.iter().all(Option::is_none)
    }

    fn describe(&self) -> String {
        let servers = self.servers.values().map(|server| {
            let process = server.process.as_ref();
            let sessions = process.map(|process| process.state().sessions().count());
            let queued = process.map(|process| {
                process.state().queue_entries().count() + process.state().lock_waits().count()
            });
            let (id, applied, status) = (server.id, server.applied(), server.status());
            format!("\n  {id}: applied {applied}, {sessions:?} sessions, {queued:?} in queues, {status:?}")
        });
        servers.collect()
    }

    /// Answers the number of keys whose history could not be decided.
    pub(super) fn final_checks(&mut self) -> Result<u64, Breach> {
        let mut digest = None;
        for server in self.servers.values() {
            let Some(process) = &server.process else { continue };
            let now = digest_of(process.state())?;
            ensure(*digest.get_or_insert(now) == now, || {
                format!("the state of {} differs at the end", server.id)
            })?;
        }
        self.check_counters()?;
        self.check_accounts()?;
        self.check_histories()
    }

    fn rows(&self, prefix: &[u8]) -> Vec<Row> {
        let process = self.servers.values().find_map(|server| server.process.as_ref());
        let row = |row: &lictor_state::KvRow| Row {
            key: bytes::Bytes::copy_from_slice(row.key()),
            value: bytes::Bytes::copy_from_slice(row.value()),
            modify_index: row.modify_index(),
        };
        process.map_or_else(Vec::new, |process| {
            process.state().kv_list(prefix).map(row).collect()
        })
    }

    fn check_counters(&self) -> Checked {
        for row in self.rows(b"count/") {
            let (_, count) = crate::client::parse(&row)?;
            let (least, most) = self.histories.counters.get(&row.key).copied().unwrap_or_default();
            ensure((least..=most).contains(&count), || {
                format!(
                    "{:?} counted {count}, but {least} to {most} increments were made",
                    row.key
                )
            })?;
        }
        Ok(())
    }

    fn check_accounts(&self) -> Checked {
        check_total(&self.rows(b"bank/"))
    }

    /// Each key's history, with a last read of what the state holds now.
    fn check_histories(&mut self) -> Result<u64, Breach> {
        let mut undecided = 0;
        let rows = self.rows(b"");
        for (key, history) in &mut self.histories.keys {
            let row = rows.iter().find(|row| row.key == *key);
            let value = row.map(crate::client::parse).transpose()?.map(|(value, _)| value);
            self.moment += 1;
            history.push(Operation {
                called: self.moment,
                answered: Some(self.moment),
                action: Action::Read(value),
            });
            match linear::check(history, None) {
                Verdict::Linearizable => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Violation => {
                    let shown = history.iter().filter(|_| self.verbose);
                    let shown: Vec<_> = shown.map(|operation| format!("\n  {operation:?}")).collect();
                    let text = format!("the history of {key:?} has no order:{}", shown.concat());
                    return Err(Breach(text));
                }
            }
        }
        Ok(undecided)
    }
}
