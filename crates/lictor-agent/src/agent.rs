//! The running agent: its tasks, and what the API asks of it.
//!
//! Tasks, all ended by [`Agent::stop`]: one that runs checks and lets TTLs lapse, one that brings the catalog up to
//! date, one that writes the health of checks to disk. Registrations write to disk themselves before they answer.
//!
//! Locks: `registrations` (held across disk writes) before `local` (held for lookups and updates alone).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lictor_node::{Identity, Node, ProposeError};
use lictor_proto::v1::{CheckRow, ClientAgent, NodeRow, ServiceRow};
use parking_lot::Mutex;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ca::CertificateAuthority;
use crate::definition::{CheckDefinition, CheckKind, Health, OUTPUT_MAX_BYTES, ReadError, ServiceDefinition};
use crate::events::Events;
use crate::local::{Local, LocalError, NODE_MAINTENANCE, Restored, Scripts, Source};
use crate::reconcile::Own;
use crate::store::{Store, StoredCheck};
use crate::{runner, saver, sync};

/// Why a server's agent cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It makes no sense here; the texts are Consul's.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Its files cannot be read or written.
    #[error("the agent's files: {0}")]
    Disk(#[from] io::Error),
}

/// Services and checks from configuration files.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// Services with their checks.
    pub services: Vec<ServiceDefinition>,
    /// Checks of the node, or of services that are defined elsewhere.
    pub checks: Vec<CheckDefinition>,
}

impl Definitions {
    /// Reads the `services` and `checks` of a configuration.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn from_json(services: Vec<Value>, checks: Vec<Value>) -> Result<Self, String> {
        let services = services.into_iter().enumerate().map(|(at, value)| {
            ServiceDefinition::from_json(value)
                .map_err(|error| format!("services[{at}]: {}", in_file(&error)))
        });
        let checks = checks.into_iter().enumerate().map(|(at, value)| {
            CheckDefinition::from_json(value).map_err(|error| format!("checks[{at}]: {}", in_file(&error)))
        });
        Ok(Self {
            services: services.collect::<Result<_, _>>()?,
            checks: checks.collect::<Result<_, _>>()?,
        })
    }
}

impl Definitions {
    /// All checks, those of services included.
    fn all_checks(&self) -> impl Iterator<Item = &CheckDefinition> {
        let of_services = self.services.iter().flat_map(|service| &service.checks);
        of_services.chain(&self.checks)
    }
}

/// The error without what only requests have.
fn in_file(error: &ReadError) -> String {
    let text = error.to_string();
    text.trim_start_matches("Request decode failed: ").to_owned()
}

/// Asks the process to read its configuration again, for `/v1/agent/reload`. The process hands the definitions to
/// [`Agent::reload`] before this resolves.
pub type RequestReload =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;
/// Begins the orderly stop of the server, for `leave`.
pub type Leave = Arc<dyn Fn() + Send + Sync>;

/// How an agent begins.
#[derive(Clone, Default)]
pub struct Config {
    /// Where it keeps its files (below `agent/`); without one it forgets everything.
    pub data_dir: Option<PathBuf>,
    /// Whether it is an agent without a server.
    pub is_client: bool,
    /// What the configuration files define.
    pub definitions: Definitions,
    /// The version that the node's and the server's entries show.
    pub version: String,
    /// Free entries of the node.
    pub node_meta: BTreeMap<String, String>,
    /// The port that members are shown with.
    pub serf_lan_port: u16,
    /// How much of a check's output is kept, in bytes; 0 for [`OUTPUT_MAX_BYTES`].
    pub output_max_bytes: usize,
    /// Whose checks may run programs.
    pub scripts: Scripts,
    /// Reads the configuration again; without it a reload changes nothing.
    pub request_reload: Option<RequestReload>,
    /// Stops the server; without it a leave does nothing.
    pub leave: Option<Leave>,
}

/// The agent of this server. Cloning shares it.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

/// What the tasks of an agent share.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) own: Own,
    pub(crate) local: Mutex<Local>,
    pub(crate) store: Store,
    /// Held while registrations change, so that files and memory change in the same order.
    pub(crate) registrations: tokio::sync::Mutex<()>,
    pub(crate) wake_sync: Notify,
    pub(crate) wake_runner: Notify,
    pub(crate) wake_saver: Notify,
    pub(crate) stop: CancellationToken,
    services_changed: watch::Sender<u64>,
    events: Events,
    ca: CertificateAuthority,
    tasks: TaskTracker,
    version: String,
    serf_lan_port: u16,
    /// How much of a check's output is kept.
    pub(crate) output_max_bytes: usize,
    request_reload: Option<RequestReload>,
    leave: Option<Leave>,
}

impl Agent {
    /// Loads what was registered before and starts the agent's tasks. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn start(node: Node, config: Config) -> Result<Self, Error> {
        let store = Store::open(config.data_dir.as_deref())?;
        let ca = CertificateAuthority::open(config.data_dir.as_deref())?;
        let own = own_rows(node.identity(), &config);
        let output_max_bytes = match config.output_max_bytes {
            0 => OUTPUT_MAX_BYTES,
            given => given,
        };
        let mut local = Local::new(&own.node.node, output_max_bytes, config.scripts);
        let now = Instant::now();
        let stored = store.load();
        let health: BTreeMap<&str, &Restored> = stored
            .checks
            .iter()
            .map(|(check, restored)| (check.definition.id.as_str(), restored))
            .collect();
        for service in stored.services {
            local.put_service(&service, Source::Api)?;
        }
        put_definitions(
            &mut local,
            config.definitions,
            &|id| health.get(id).copied().cloned(),
            now,
        )?;
        for (check, restored) in stored.checks {
            let StoredCheck {
                source: Source::Api,
                definition,
                ..
            } = check
            else {
                continue;
            };
            let id = definition.id.clone();
            if let Err(error) = put_check(&mut local, definition, Source::Api, Some(restored), now) {
                tracing::warn!(check = id, %error, "a check on disk was left out");
            }
        }
        let shared = Arc::new(Shared {
            node,
            own,
            local: Mutex::new(local),
            store,
            registrations: tokio::sync::Mutex::default(),
            wake_sync: Notify::new(),
            wake_runner: Notify::new(),
            wake_saver: Notify::new(),
            stop: CancellationToken::new(),
            services_changed: watch::channel(0).0,
            events: Events::default(),
            ca,
            tasks: TaskTracker::new(),
            version: config.version,
            serf_lan_port: config.serf_lan_port,
            output_max_bytes,
            request_reload: config.request_reload,
            leave: config.leave,
        });
        for task in [
            spawn(&shared, Task::Run),
            spawn(&shared, Task::Sync),
            spawn(&shared, Task::Save),
        ] {
            drop(task);
        }
        shared.tasks.close();
        Ok(Self { shared })
    }

    /// Enters this server, its `serfHealth` check and its `consul` service in the catalog, as soon as somebody leads.
    /// Sessions can be made from then on.
    ///
    /// # Errors
    /// [`ProposeError::Stopping`].
    pub async fn register_self(&self) -> Result<(), ProposeError> {
        sync::register_own(&self.shared).await
    }

    /// Ends the agent's tasks and writes what they have not yet written.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.wait().await;
    }

    /// Registers or replaces a service. Checks that it had and does not name again stay, unless `replace_checks`.
    ///
    /// # Errors
    /// [`Error::Local`] and [`Error::Disk`].
    pub async fn register_service(
        &self,
        mut service: ServiceDefinition,
        replace_checks: bool,
    ) -> Result<(), Error> {
        let _turn = self.shared.registrations.lock().await;
        let checks = std::mem::take(&mut service.checks);
        let now = Instant::now();
        let (saved, removed) = self.shared.change(|local| {
            checks
                .iter()
                .try_for_each(|check| local.permit(check, Source::Api))?;
            let mut removed = Vec::new();
            if replace_checks && let Some(known) = local.services().get(&service.id) {
                let named = |id: &&String| checks.iter().any(|check| check.id == **id);
                removed.extend(known.checks.iter().filter(|id| !named(id)).cloned());
            }
            for id in &removed {
                local.remove_check(id)?;
            }
            local.put_service(&service, Source::Api)?;
            let mut saved = Vec::with_capacity(checks.len());
            for check in checks {
                let id = check.id.clone();
                let restored = local.checks().get(&id).map(|known| known.restored(now));
                put_check(local, check, Source::Api, restored, now)?;
                saved.extend(local.checks().get(&id).map(StoredCheck::from));
            }
            Ok::<_, LocalError>((saved, removed))
        })?;
        self.shared.services_changed();
        self.shared
            .on_disk(move |store| {
                store.save_service(&service)?;
                saved.iter().try_for_each(|check| store.save_check(check))?;
                removed.iter().try_for_each(|id| store.remove_check(id))
            })
            .await
    }

    /// Removes a service and its checks.
    ///
    /// # Errors
    /// [`LocalError::UnknownService`] and [`Error::Disk`].
    pub async fn deregister_service(&self, id: &str) -> Result<(), Error> {
        let _turn = self.shared.registrations.lock().await;
        let checks = self.shared.change(|local| local.remove_service(id))?;
        self.shared.services_changed();
        self.shared.forget_service(id.to_owned(), checks).await
    }

    /// Registers or replaces a check. One that is known keeps its health.
    ///
    /// # Errors
    /// [`LocalError::NoSuchService`] and [`Error::Disk`].
    pub async fn register_check(&self, check: CheckDefinition) -> Result<(), Error> {
        let _turn = self.shared.registrations.lock().await;
        let id = check.id.clone();
        let saved = self.shared.change(|local| {
            let now = Instant::now();
            let restored = local.checks().get(&id).map(|known| known.restored(now));
            put_check(local, check, Source::Api, restored, now)?;
            Ok::<_, LocalError>(local.checks().get(&id).map(StoredCheck::from))
        })?;
        self.shared
            .on_disk(move |store| saved.iter().try_for_each(|check| store.save_check(check)))
            .await
    }

    /// Removes a check.
    ///
    /// # Errors
    /// [`LocalError::UnknownCheck`] and [`Error::Disk`].
    pub async fn deregister_check(&self, id: &str) -> Result<(), Error> {
        let _turn = self.shared.registrations.lock().await;
        self.shared.change(|local| local.remove_check(id))?;
        let id = id.to_owned();
        self.shared.on_disk(move |store| store.remove_check(&id)).await
    }

    /// An application's report on its TTL check.
    ///
    /// # Errors
    /// [`LocalError::UnknownCheck`] and [`LocalError::NotTtl`].
    pub fn report(&self, check: &str, health: Health, output: &str) -> Result<(), LocalError> {
        self.shared
            .change(|local| local.report(check, health, output, Instant::now()))
    }

    /// Takes the node, or one of its services, out of service by a critical check, or puts it back.
    ///
    /// # Errors
    /// [`LocalError::UnknownService`] and [`Error::Disk`].
    pub async fn maintain(&self, service: Option<&str>, enable: bool, reason: &str) -> Result<(), Error> {
        let id = match service {
            None => NODE_MAINTENANCE.to_owned(),
            Some(service) if self.service(service).is_some() => format!("_service_maintenance:{service}"),
            Some(service) => return Err(LocalError::UnknownService(service.to_owned()).into()),
        };
        let is_on = self.shared.local.lock().checks().contains_key(&id);
        if is_on == enable {
            return Ok(());
        }
        if !enable {
            return self.deregister_check(&id).await;
        }
        let (name, subject) = match service {
            None => ("Node Maintenance Mode", "node"),
            Some(_) => ("Service Maintenance Mode", "service"),
        };
        let notes = match reason {
            "" => format!(
                "Maintenance mode is enabled for this {subject}, but no reason was provided. This is a default message."
            ),
            reason => reason.to_owned(),
        };
        let (name, service_id) = (name.to_owned(), service.unwrap_or_default().to_owned());
        let status = Some(Health::Critical);
        self.register_check(CheckDefinition {
            id,
            name,
            notes,
            service_id,
            status,
            ..CheckDefinition::default()
        })
        .await
    }

    /// Takes over what the configuration files define now.
    ///
    /// # Errors
    /// [`Error::Local`] and [`Error::Disk`].
    pub async fn reload(&self, definitions: Definitions) -> Result<(), Error> {
        let _turn = self.shared.registrations.lock().await;
        let now = Instant::now();
        let gone = self.shared.change(|local| {
            definitions
                .all_checks()
                .try_for_each(|check| local.permit(check, Source::Config))?;
            let known: BTreeMap<String, Restored> = local
                .checks()
                .iter()
                .map(|(id, check)| (id.clone(), check.restored(now)))
                .collect();
            let gone = remove_configured(local, &definitions);
            put_definitions(local, definitions, &|id| known.get(id).cloned(), now)?;
            Ok::<_, LocalError>(gone)
        })?;
        self.shared.services_changed();
        self.shared
            .on_disk(move |store| gone.iter().try_for_each(|id| store.remove_check(id)))
            .await
    }

    /// One local service.
    pub fn service(&self, id: &str) -> Option<Arc<ServiceRow>> {
        self.shared
            .local
            .lock()
            .services()
            .get(id)
            .map(|service| Arc::clone(&service.row))
    }

    /// All local services by id.
    pub fn services(&self) -> Vec<Arc<ServiceRow>> {
        self.shared
            .local
            .lock()
            .services()
            .values()
            .map(|service| Arc::clone(&service.row))
            .collect()
    }

    /// One local check.
    pub fn check(&self, id: &str) -> Option<Arc<CheckRow>> {
        self.shared
            .local
            .lock()
            .checks()
            .get(id)
            .map(|check| Arc::clone(&check.row))
    }

    /// All local checks by id.
    pub fn checks(&self) -> Vec<Arc<CheckRow>> {
        self.shared
            .local
            .lock()
            .checks()
            .values()
            .map(|check| Arc::clone(&check.row))
            .collect()
    }

    /// Resolves with each change of the local services.
    pub fn watch_services(&self) -> watch::Receiver<u64> {
        self.shared.services_changed.subscribe()
    }

    /// The events that reached this agent.
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// The certificate authority of this server.
    pub fn certificate_authority(&self) -> &CertificateAuthority {
        &self.shared.ca
    }

    /// The version that this server shows.
    pub fn version(&self) -> &str {
        &self.shared.version
    }

    /// The port that members are shown with.
    pub fn serf_lan_port(&self) -> u16 {
        self.shared.serf_lan_port
    }

    /// Has the process read its configuration again and take over what can change.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn request_reload(&self) -> Result<(), String> {
        match &self.shared.request_reload {
            Some(request) => request().await,
            None => Ok(()),
        }
    }

    /// Begins the orderly stop of this server.
    pub fn leave(&self) {
        if let Some(leave) = &self.shared.leave {
            leave();
        }
    }

    /// The row by which this server's node is registered.
    pub fn own_node(&self) -> &NodeRow {
        &self.shared.own.node
    }
}

impl Shared {
    /// Changes the local state and tells the tasks that have to know.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Local) -> T) -> T {
        let (result, sync, save, rearm) = {
            let mut local = self.local.lock();
            let result = change(&mut local);
            (
                result,
                local.has_pending(),
                local.has_unsaved(),
                local.must_rearm(),
            )
        };
        for (is_due, task) in [
            (sync, &self.wake_sync),
            (save, &self.wake_saver),
            (rearm, &self.wake_runner),
        ] {
            if is_due {
                task.notify_one();
            }
        }
        result
    }

    /// Tells those who wait for a change of services.
    pub(crate) fn services_changed(&self) {
        self.services_changed.send_modify(|count| *count += 1);
    }

    /// Does disk work off the runtime's threads.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub(crate) async fn on_disk(
        &self,
        work: impl FnOnce(&Store) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(io::Error::other)??)
    }

    /// Removes the files of a service and its checks.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub(crate) async fn forget_service(&self, id: String, checks: Vec<String>) -> Result<(), Error> {
        self.on_disk(move |store| {
            store.remove_service(&id)?;
            checks.iter().try_for_each(|check| store.remove_check(check))
        })
        .await
    }
}

enum Task {
    Run,
    Sync,
    Save,
}

fn spawn(shared: &Arc<Shared>, task: Task) -> tokio::task::JoinHandle<()> {
    let own = Arc::clone(shared);
    shared.tasks.spawn(async move {
        match task {
            Task::Run => runner::run(&own).await,
            Task::Sync => sync::run(&own).await,
            Task::Save => saver::run(&own).await,
        }
    })
}

/// A time as Consul's telemetry prints it: `2026-01-02 03:04:05 +0000 UTC`.
pub fn timestamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{date} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}

/// A time as JSON has it (RFC 3339, UTC).
pub fn rfc3339(at: SystemTime) -> String {
    // Only years beyond 9999 cannot be written.
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

/// Registers a check whose first run comes at a random point of its interval, so that runs spread out.
fn put_check(
    local: &mut Local,
    check: CheckDefinition,
    source: Source,
    restored: Option<Restored>,
    now: Instant,
) -> Result<(), LocalError> {
    let offset = match check.kind {
        // Costs nothing, and people wait for it.
        CheckKind::Alias(_) => Duration::ZERO,
        _ if check.kind.runs() => check.run_interval().mul_f64(random_fraction()),
        _ => Duration::ZERO,
    };
    local.put_check(check, source, restored, offset, now)
}

/// A number from 0 to below 1.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};

    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

fn put_definitions(
    local: &mut Local,
    definitions: Definitions,
    restored: &dyn Fn(&str) -> Option<Restored>,
    now: Instant,
) -> Result<(), LocalError> {
    let mut checks = definitions.checks;
    for mut service in definitions.services {
        checks.append(&mut service.checks);
        local.put_service(&service, Source::Config)?;
    }
    for check in checks {
        let known = restored(&check.id);
        put_check(local, check, Source::Config, known, now)?;
    }
    Ok(())
}

/// Removes what came from configuration files and is no longer there; answers the ids of removed checks.
fn remove_configured(local: &mut Local, definitions: &Definitions) -> Vec<String> {
    let from_config = |source: Source| source == Source::Config;
    let services: Vec<String> = local
        .services()
        .iter()
        .filter(|(id, service)| {
            from_config(service.source) && !definitions.services.iter().any(|s| s.id == **id)
        })
        .map(|(id, _)| id.clone())
        .collect();
    let defined = |id: &str| definitions.all_checks().any(|check| check.id == id);
    let mut checks: Vec<String> = local
        .checks()
        .iter()
        .filter(|(id, check)| from_config(check.source) && !defined(id))
        .map(|(id, _)| id.clone())
        .collect();
    for check in &checks {
        // It was just found.
        let _ = local.remove_check(check);
    }
    for service in &services {
        checks.extend(local.remove_service(service).unwrap_or_default());
    }
    checks
}

/// An agent's node as it is registered.
pub fn node_row(identity: &Identity, config: &Config) -> NodeRow {
    let text = |text: &str| text.to_owned();
    let mut meta = config.node_meta.clone();
    meta.insert(text("consul-network-segment"), String::new());
    meta.insert(text("consul-version"), config.version.clone());
    let (lan, wan) = if identity.address.contains(':') {
        ("lan_ipv6", "wan_ipv6")
    } else {
        ("lan_ipv4", "wan_ipv4")
    };
    let addresses = ["lan", lan, "wan", wan].map(|tag| (text(tag), identity.address.clone()));
    NodeRow {
        id: identity.node_id.clone(),
        node: identity.node.clone(),
        address: identity.address.clone(),
        datacenter: identity.datacenter.clone(),
        tagged_addresses: addresses.into(),
        meta,
        client: config.is_client.then(|| ClientAgent {
            port: config.serf_lan_port.into(),
            version: config.version.clone(),
        }),
        ..NodeRow::default()
    }
}

/// What an agent says of itself in the catalog; only a server has a service.
fn own_rows(identity: &Identity, config: &Config) -> Own {
    let text = |text: &str| text.to_owned();
    let entries = |entries: &[(&str, &str)]| {
        entries
            .iter()
            .map(|(key, value)| (text(key), text(value)))
            .collect()
    };
    let node = node_row(identity, config);
    let service = ServiceRow {
        node: identity.node.clone(),
        id: text("consul"),
        service: text("consul"),
        port: identity.server_port.into(),
        weight_passing: 1,
        weight_warning: 1,
        meta: entries(&[
            ("non_voter", "false"),
            ("raft_version", "3"),
            ("read_replica", "false"),
            ("serf_protocol_current", "2"),
            ("serf_protocol_max", "5"),
            ("serf_protocol_min", "1"),
            ("version", &config.version),
        ]),
        ..ServiceRow::default()
    };
    let check = CheckRow {
        node: identity.node.clone(),
        check_id: text("serfHealth"),
        name: text("Serf Health Status"),
        status: text("passing"),
        output: text("Agent alive and reachable"),
        ..CheckRow::default()
    };
    Own {
        node,
        services: if config.is_client {
            Vec::new()
        } else {
            vec![Arc::new(service)]
        },
        checks: vec![Arc::new(check)],
    }
}
