//! What this agent was told: its services and checks, their health, and when something is due next. It does no I/O and
//! reads no clock; time is a parameter.
//!
//! ```text
//! register, report, run results ──> Local ──> pending ids for the catalog, unsaved ids for the disk
//!                                     │
//!                        one heap of deadlines: TTLs that lapse, runs, removals
//! ```
//! A TTL that is renewed costs no heap operation: the heap holds an early deadline, and when that comes the check says
//! how much later it really is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_proto::v1::{CheckRow, ServiceRow};

use crate::definition::{CheckDefinition, CheckKind, Health, ServiceDefinition, nanos};

/// How long a change of a check's output alone may be missing in the catalog (Consul: `check_update_interval`).
pub(crate) const OUTPUT_SYNC_DELAY: Duration = Duration::from_secs(300);
/// The check that node maintenance is.
pub(crate) const NODE_MAINTENANCE: &str = "_node_maintenance";
/// What a lapsed TTL check says.
const EXPIRED: &str = "TTL expired";

/// Why the agent cannot do what it was asked for. The texts are Consul's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// No such check.
    #[error("Unknown check ID {}. Ensure that the check ID is passed, not the check name.", quote(.0))]
    UnknownCheck(String),
    /// No such service.
    #[error("Unknown service ID {}. Ensure that the service ID is passed, not the service name.", quote(.0))]
    UnknownService(String),
    /// A check that speaks for a service that is not registered.
    #[error("ServiceID {} does not exist", quote(.0))]
    NoSuchService(String),
    /// A report on a check that runs by itself.
    #[error("CheckID {} does not have associated TTL", quote(.0))]
    NotTtl(String),
    /// A program from a client, which this agent does not run.
    #[error(
        "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
    )]
    RemoteScriptsDisabled,
    /// A program from a configuration file, which this agent does not run.
    #[error(
        "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or \
         'enable_local_script_checks' to true"
    )]
    ScriptsDisabled,
    /// The registry of this agent is at its bound.
    #[error("too many services and checks on this agent")]
    Full,
}

/// Most services, and most checks, on one agent.
pub(crate) const ENTRIES_MAX: usize = 100_000;

fn quote(text: &str) -> String {
    lictor_proto::go::quote(text.as_bytes())
}

/// Who registered an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// A client; kept on disk.
    Api,
    /// A configuration file; goes when the file no longer has it.
    Config,
}

/// Whose checks may run programs. Whoever may register such a check may run anything as this agent's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scripts {
    /// Those that clients register (Consul: `enable_script_checks`).
    pub from_clients: bool,
    /// Those in configuration files (Consul: `enable_local_script_checks`).
    pub from_files: bool,
}

/// A local service.
#[derive(Debug, Clone)]
pub(crate) struct LocalService {
    pub(crate) row: Arc<ServiceRow>,
    pub(crate) source: Source,
    /// The ids of its checks.
    pub(crate) checks: BTreeSet<String>,
}

/// A local check.
#[derive(Debug, Clone)]
pub(crate) struct LocalCheck {
    pub(crate) definition: Arc<CheckDefinition>,
    pub(crate) row: Arc<CheckRow>,
    pub(crate) source: Source,
    /// Tells deadlines and runs of this registration from those of an earlier one with the same id.
    generation: u64,
    health: Health,
    /// When a TTL lapses.
    expires: Option<Instant>,
    /// Whether anything was reported since it was registered.
    is_reported: bool,
    /// Since when it is critical without a break.
    critical_since: Option<Instant>,
    /// Results of the same kind in a row.
    streak: Streak,
    /// Whether a change of its output alone waits to go to the catalog.
    output_deferred: bool,
    armed: Armed,
}

/// Which deadlines of a check are in the heap: at most one of each.
#[derive(Debug, Clone, Copy, Default)]
struct Armed {
    expire: bool,
    deregister: bool,
    output: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    successes: u32,
    failures: u32,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A TTL may have lapsed.
    Expire,
    /// A check runs.
    Run,
    /// A check may have been critical for long enough to remove its service.
    Deregister,
    /// A deferred output goes to the catalog.
    Output,
}

type Timer = Reverse<(Instant, Due, u64, String)>;

/// Something that the owner must do now.
#[derive(Debug)]
pub(crate) enum Action {
    /// Run this check and report with its generation.
    Run {
        id: String,
        generation: u64,
        definition: Arc<CheckDefinition>,
    },
    /// A service was critical for too long and is gone, with these checks.
    Removed { service: String, checks: Vec<String> },
}

/// Ids that the catalog may not agree on.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) services: BTreeSet<String>,
    pub(crate) checks: BTreeSet<String>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.checks.is_empty()
    }
}

/// All local services and checks.
#[derive(Debug)]
pub(crate) struct Local {
    node: String,
    /// How much of a check's output is kept that names no limit of its own.
    output_max_bytes: usize,
    scripts: Scripts,
    services: BTreeMap<String, LocalService>,
    checks: BTreeMap<String, LocalCheck>,
    timers: BinaryHeap<Timer>,
    generation: u64,
    pending: Pending,
    unsaved: BTreeSet<String>,
    fed: bool,
    /// The deadline that the owner sleeps for.
    armed_for: Option<Instant>,
}

/// The health to begin with, where it is known from before.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    pub(crate) health: Health,
    pub(crate) output: String,
    /// How much of a TTL is spent.
    pub(crate) age: Duration,
}

impl Local {
    pub(crate) fn new(node: &str, output_max_bytes: usize, scripts: Scripts) -> Self {
        Self {
            node: node.to_owned(),
            output_max_bytes,
            scripts,
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
            timers: BinaryHeap::new(),
            generation: 0,
            pending: Pending::default(),
            unsaved: BTreeSet::new(),
            fed: false,
            armed_for: None,
        }
    }

    pub(crate) fn services(&self) -> &BTreeMap<String, LocalService> {
        &self.services
    }

    pub(crate) fn checks(&self) -> &BTreeMap<String, LocalCheck> {
        &self.checks
    }

    /// Registers or replaces a service without its checks.
    ///
    /// # Errors
    /// [`LocalError::Full`].
    pub(crate) fn put_service(
        &mut self,
        definition: &ServiceDefinition,
        source: Source,
    ) -> Result<(), LocalError> {
        if self.services.len() >= ENTRIES_MAX && !self.services.contains_key(&definition.id) {
            return Err(LocalError::Full);
        }
        let id = definition.id.clone();
        let row = Arc::new(definition.to_row(&self.node));
        let checks = self
            .services
            .remove(&id)
            .map(|known| known.checks)
            .unwrap_or_default();
        for check in &checks {
            if let Some(check) = self.checks.get_mut(check) {
                let of_check = Arc::make_mut(&mut check.row);
                of_check.service_name.clone_from(&row.service);
                of_check.service_tags.clone_from(&row.tags);
            }
        }
        self.pending.services.insert(id.clone());
        self.services.insert(id, LocalService { row, source, checks });
        Ok(())
    }

    /// Refuses a check that runs a program where that is not allowed.
    ///
    /// # Errors
    /// [`LocalError::RemoteScriptsDisabled`] and [`LocalError::ScriptsDisabled`].
    pub(crate) fn permit(&self, definition: &CheckDefinition, source: Source) -> Result<(), LocalError> {
        if !matches!(definition.kind, CheckKind::Script(_)) {
            return Ok(());
        }
        match source {
            Source::Api if !self.scripts.from_clients => Err(LocalError::RemoteScriptsDisabled),
            Source::Config if !self.scripts.from_files => Err(LocalError::ScriptsDisabled),
            _ => Ok(()),
        }
    }

    /// Registers or replaces a check. Its first run comes after `first_run_after`.
    ///
    /// # Errors
    /// [`LocalError::NoSuchService`], [`LocalError::Full`] and those of [`Self::permit`].
    pub(crate) fn put_check(
        &mut self,
        definition: CheckDefinition,
        source: Source,
        restored: Option<Restored>,
        first_run_after: Duration,
        now: Instant,
    ) -> Result<(), LocalError> {
        self.permit(&definition, source)?;
        let service = match definition.service_id.as_str() {
            "" => None,
            id => Some(
                self.services
                    .get(id)
                    .ok_or_else(|| LocalError::NoSuchService(id.to_owned()))?,
            ),
        };
        if self.checks.len() >= ENTRIES_MAX && !self.checks.contains_key(&definition.id) {
            return Err(LocalError::Full);
        }
        let (mut health, mut output, mut age) = (
            definition.status.unwrap_or(Health::Critical),
            String::new(),
            Duration::ZERO,
        );
        if let Some(restored) = restored {
            (health, output, age) = (restored.health, restored.output, restored.age);
        }
        self.generation += 1;
        let id = definition.id.clone();
        let expires = match definition.kind {
            CheckKind::Ttl(ttl) => Some(now + nanos(ttl).saturating_sub(age)),
            _ => None,
        };
        let check = LocalCheck {
            row: Arc::new(definition.to_row(&self.node, service.map(|s| &*s.row), health, &output)),
            source,
            generation: self.generation,
            health,
            expires,
            is_reported: false,
            critical_since: None,
            streak: Streak::default(),
            output_deferred: false,
            armed: Armed {
                expire: expires.is_some(),
                ..Armed::default()
            },
            definition: Arc::new(definition),
        };
        if let Some(expires) = expires {
            self.timers
                .push(Reverse((expires, Due::Expire, check.generation, id.clone())));
        }
        if check.definition.kind.runs() {
            self.timers.push(Reverse((
                now + first_run_after,
                Due::Run,
                check.generation,
                id.clone(),
            )));
        }
        self.fed |= check.expires.is_some();
        self.pending.checks.insert(id.clone());
        let service_id = check.row.service_id.clone();
        if let Some(old) = self.checks.insert(id.clone(), check)
            && old.row.service_id != service_id
            && let Some(service) = self.services.get_mut(&old.row.service_id)
        {
            service.checks.remove(&id);
        }
        if let Some(service) = self.services.get_mut(&service_id) {
            service.checks.insert(id.clone());
        }
        self.turned(&id, now);
        self.drop_stale_timers();
        Ok(())
    }

    /// Removes a service with its checks, and answers the ids of these.
    ///
    /// # Errors
    /// [`LocalError::UnknownService`].
    pub(crate) fn remove_service(&mut self, id: &str) -> Result<Vec<String>, LocalError> {
        let service = self
            .services
            .remove(id)
            .ok_or_else(|| LocalError::UnknownService(id.to_owned()))?;
        let checks: Vec<String> = service.checks.into_iter().collect();
        for check in &checks {
            self.checks.remove(check);
        }
        self.pending.services.insert(id.to_owned());
        self.pending.checks.extend(checks.iter().cloned());
        Ok(checks)
    }

    /// Removes a check.
    ///
    /// # Errors
    /// [`LocalError::UnknownCheck`].
    pub(crate) fn remove_check(&mut self, id: &str) -> Result<(), LocalError> {
        let check = self
            .checks
            .remove(id)
            .ok_or_else(|| LocalError::UnknownCheck(id.to_owned()))?;
        if let Some(service) = self.services.get_mut(&check.row.service_id) {
            service.checks.remove(id);
        }
        self.pending.checks.insert(id.to_owned());
        Ok(())
    }

    /// An application's report on its TTL check.
    ///
    /// # Errors
    /// [`LocalError::UnknownCheck`] and [`LocalError::NotTtl`].
    pub(crate) fn report(
        &mut self,
        id: &str,
        health: Health,
        output: &str,
        now: Instant,
    ) -> Result<(), LocalError> {
        let check = self
            .checks
            .get_mut(id)
            .ok_or_else(|| LocalError::UnknownCheck(id.to_owned()))?;
        let CheckKind::Ttl(ttl) = check.definition.kind else {
            return Err(LocalError::NotTtl(id.to_owned()));
        };
        let expires = now + nanos(ttl);
        (check.expires, check.is_reported) = (Some(expires), true);
        if !std::mem::replace(&mut check.armed.expire, true) {
            self.timers
                .push(Reverse((expires, Due::Expire, check.generation, id.to_owned())));
        }
        let output = cut(output, check.definition.output_max_bytes(self.output_max_bytes));
        self.fed = true;
        self.set(id, health, &output, now);
        Ok(())
    }

    /// The result of a run. One that belongs to an earlier registration is dropped.
    pub(crate) fn ran(&mut self, id: &str, generation: u64, health: Health, output: &str, now: Instant) {
        let Some(check) = self
            .checks
            .get_mut(id)
            .filter(|check| check.generation == generation)
        else {
            return;
        };
        let timer = (
            now + check.definition.run_interval(),
            Due::Run,
            generation,
            id.to_owned(),
        );
        self.timers.push(Reverse(timer));
        let health = check.streak.judge(&check.definition, health, check.health);
        self.set(id, health, output, now);
    }

    /// Puts a due run off, because too many are under way.
    pub(crate) fn run_later(&mut self, id: String, generation: u64, at: Instant) {
        self.timers.push(Reverse((at, Due::Run, generation, id)));
    }

    /// When [`Self::due`] has something to do next.
    fn next_deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// The same for the one who sleeps until then.
    pub(crate) fn arm(&mut self) -> Option<Instant> {
        self.armed_for = self.next_deadline();
        self.armed_for
    }

    /// Whether the next deadline is before the one that is slept for.
    pub(crate) fn must_rearm(&self) -> bool {
        match (self.next_deadline(), self.armed_for) {
            (Some(next), Some(armed)) => next < armed,
            (next, None) => next.is_some(),
            (None, Some(_)) => false,
        }
    }

    /// Does what is due, at most `limit` deadlines of it, and answers what the owner has to do.
    pub(crate) fn due(&mut self, now: Instant, limit: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..limit {
            let Some(Reverse((at, ..))) = self.timers.peek() else {
                break;
            };
            if *at > now {
                break;
            }
            let Some(Reverse((_, due, generation, id))) = self.timers.pop() else {
                break;
            };
            if self
                .checks
                .get(&id)
                .is_some_and(|check| check.generation == generation)
            {
                actions.extend(self.one_due(due, id, now));
            }
        }
        actions
    }

    fn one_due(&mut self, due: Due, id: String, now: Instant) -> Option<Action> {
        let check = self.checks.get_mut(&id)?;
        match due {
            Due::Run => {
                let (generation, definition) = (check.generation, Arc::clone(&check.definition));
                Some(Action::Run {
                    id,
                    generation,
                    definition,
                })
            }
            Due::Expire => {
                check.armed.expire = false;
                let expires = check.expires?;
                if expires > now {
                    check.armed.expire = true;
                    self.timers.push(Reverse((expires, due, check.generation, id)));
                    return None;
                }
                let output = match check.row.output.as_str() {
                    last if last.is_empty() || !check.is_reported => EXPIRED.to_owned(),
                    last => format!("{EXPIRED} (last output before timeout follows): {last}"),
                };
                (check.expires, check.is_reported) = (None, false);
                self.set(&id, Health::Critical, &output, now);
                None
            }
            Due::Deregister => {
                check.armed.deregister = false;
                let ripe = check.critical_since? + check.definition.deregister_after()?;
                if ripe > now {
                    check.armed.deregister = true;
                    self.timers.push(Reverse((ripe, due, check.generation, id)));
                    return None;
                }
                let service = check.row.service_id.clone();
                let checks = self.remove_service(&service).ok()?;
                Some(Action::Removed { service, checks })
            }
            Due::Output => {
                check.armed.output = false;
                if std::mem::take(&mut check.output_deferred) {
                    self.pending.checks.insert(id);
                }
                None
            }
        }
    }

    fn set(&mut self, id: &str, health: Health, output: &str, now: Instant) {
        let Some(check) = self.checks.get_mut(id) else {
            return;
        };
        let turned = check.health != health;
        if !turned && check.row.output == output {
            return;
        }
        check.health = health;
        let row = Arc::make_mut(&mut check.row);
        health.as_str().clone_into(&mut row.status);
        output.clone_into(&mut row.output);
        self.unsaved.insert(id.to_owned());
        if turned {
            check.output_deferred = false;
            self.pending.checks.insert(id.to_owned());
            self.turned(id, now);
        } else {
            check.output_deferred = true;
            if !check.armed.output {
                check.armed.output = true;
                let timer = (
                    now + OUTPUT_SYNC_DELAY,
                    Due::Output,
                    check.generation,
                    id.to_owned(),
                );
                self.timers.push(Reverse(timer));
            }
        }
    }

    /// Arms what a change of health asks for.
    fn turned(&mut self, id: &str, now: Instant) {
        let Some(check) = self.checks.get_mut(id) else {
            return;
        };
        let Armed {
            expire, deregister, ..
        } = &mut check.armed;
        if check.health != Health::Critical {
            check.critical_since = None;
            if let (Some(expires), false) = (check.expires, *expire) {
                *expire = true;
                self.timers
                    .push(Reverse((expires, Due::Expire, check.generation, id.to_owned())));
            }
            return;
        }
        check.critical_since = Some(now);
        if let (Some(after), false, false) = (
            check.definition.deregister_after(),
            check.row.service_id.is_empty(),
            *deregister,
        ) {
            *deregister = true;
            self.timers.push(Reverse((
                now + after,
                Due::Deregister,
                check.generation,
                id.to_owned(),
            )));
        }
    }

    /// Deadlines of earlier registrations stay in the heap until they come; this keeps them from piling up.
    fn drop_stale_timers(&mut self) {
        if self.timers.len() > 8 * self.checks.len() + 1024 {
            let checks = &self.checks;
            self.timers.retain(|Reverse((_, _, generation, id))| {
                checks
                    .get(id)
                    .is_some_and(|check| check.generation == *generation)
            });
        }
    }

    /// Whether the catalog has to hear of something.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes the ids that the catalog has to hear of.
    pub(crate) fn take_pending(&mut self) -> Pending {
        std::mem::take(&mut self.pending)
    }

    /// Whether the disk has to hear of something.
    pub(crate) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Takes the checks whose health on disk is not the present one.
    pub(crate) fn take_unsaved(&mut self) -> Vec<LocalCheck> {
        let ids = std::mem::take(&mut self.unsaved);
        ids.iter().filter_map(|id| self.checks.get(id).cloned()).collect()
    }

    /// Whether any application reported since this was asked last.
    pub(crate) fn take_fed(&mut self) -> bool {
        std::mem::take(&mut self.fed)
    }
}

impl LocalCheck {
    pub(crate) fn health(&self) -> Health {
        self.health
    }

    pub(crate) fn output_is_deferred(&self) -> bool {
        self.output_deferred
    }

    /// The present health, for a registration that replaces this one.
    pub(crate) fn restored(&self, now: Instant) -> Restored {
        let age = match (&self.definition.kind, self.expires) {
            (CheckKind::Ttl(ttl), Some(expires)) => {
                nanos(*ttl).saturating_sub(expires.saturating_duration_since(now))
            }
            _ => Duration::ZERO,
        };
        Restored {
            health: self.health,
            output: self.row.output.clone(),
            age,
        }
    }
}

impl Streak {
    /// Counts one result and answers the health that follows from it.
    fn judge(&mut self, definition: &CheckDefinition, result: Health, present: Health) -> Health {
        if result == Health::Passing {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            let enough = self.successes >= definition.success_before_passing;
            return if enough { Health::Passing } else { present };
        }
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let warning_from = match definition.failures_before_warning {
            0 => definition.failures_before_critical,
            from => from,
        };
        if self.failures >= definition.failures_before_critical {
            result
        } else if self.failures >= warning_from {
            Health::Warning
        } else {
            present
        }
    }
}

/// At most `max` bytes of a report, and how much it was.
fn cut(output: &str, max: usize) -> String {
    if output.len() <= max {
        return output.to_owned();
    }
    let mut end = max;
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    format!(
        "{} ... (captured {max} of {} bytes)",
        &output[..end],
        output.len()
    )
}

#[cfg(test)]
mod tests;
