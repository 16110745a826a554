//! Definitions of services and checks, as clients register them and configuration files list them.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_proto::v1::{CheckRow, ServiceAddress, ServiceRow};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decode::{self, DecodeError, Object};
use crate::mesh;

/// The shortest interval between two runs of a check (Consul: checks, `interval`).
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How long a run may take that names no timeout.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The same for a program.
pub const SCRIPT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The shortest `DeregisterCriticalServiceAfter` that acts.
pub const DEREGISTER_AFTER_MIN: Duration = Duration::from_secs(60);
/// How much of a check's output is kept unless the configuration says otherwise, in bytes (Consul:
/// `check_output_max_size`).
pub const OUTPUT_MAX_BYTES: usize = 4096;

/// The health of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Passing,
    /// Not well, but in service.
    Warning,
    /// Out of service; ends sessions that are bound to the check.
    Critical,
}

/// A definition that was refused; the texts are Consul's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDefinition {
    /// A service without a name.
    #[error("Missing service name")]
    NoServiceName,
    /// A check without a name.
    #[error("Missing check name")]
    NoCheckName,
    /// A status that does not exist.
    #[error("Bad check status")]
    BadStatus,
    /// The same in a service's check, for which Consul has other words.
    #[error("Status for checks must 'passing', 'warning', 'critical'")]
    BadServiceCheckStatus,
    /// A check that cannot run as it is defined.
    #[error("Invalid check: {0}")]
    Check(&'static str),
    /// An address that nobody can connect to.
    #[error("Invalid service address")]
    BadAddress,
    /// Weights that make no sense.
    #[error("Invalid Weights: {0}")]
    Weights(&'static str),
    /// Metadata over its bounds.
    #[error("Invalid Service Meta: {0}")]
    Meta(String),
    /// A member of a service mesh that does not say enough, or too much.
    #[error("Validation failed: {}", listed(.0))]
    Mesh(Vec<String>),
}

/// As Consul lists several errors.
fn listed(faults: &[String]) -> String {
    let errors = if faults.len() == 1 { "error" } else { "errors" };
    let list: Vec<_> = faults.iter().map(|fault| format!("\t* {fault}\n")).collect();
    format!("{} {errors} occurred:\n{}\n", faults.len(), list.concat())
}

/// A service as it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceDefinition {
    /// Its id on this node; the name if empty.
    pub id: String,
    /// What clients look for.
    pub name: String,
    /// Free words to select instances by.
    pub tags: Vec<String>,
    /// Where it listens; the node's address if empty.
    pub address: String,
    /// The port it listens on.
    pub port: u32,
    /// The Unix socket it listens on.
    pub socket_path: String,
    /// Free entries.
    pub meta: BTreeMap<String, String>,
    /// Addresses for particular networks, by name: address and port.
    pub tagged_addresses: BTreeMap<String, (String, u32)>,
    /// Weights while passing and while warning.
    pub weights: Option<(i64, i64)>,
    /// Whether others may change the tags in the catalog.
    pub enable_tag_override: bool,
    /// What kind of mesh member it is, empty for a plain service.
    pub kind: String,
    /// The proxy's settings as JSON, kept for clients.
    pub proxy: Option<String>,
    /// The mesh settings as JSON, kept for clients.
    pub connect: Option<String>,
    /// Its named ports as JSON, kept for clients.
    pub ports: Option<String>,
    /// Its region and zone as JSON, kept for clients.
    pub locality: Option<String>,
    /// Its checks.
    pub checks: Vec<CheckDefinition>,
}

/// What runs or feeds a check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// Nobody: it is set once, by maintenance mode.
    #[default]
    Fixed,
    /// The application reports by itself, at least this often (nanoseconds).
    Ttl(i64),
    /// A request to this server.
    Http(HttpRequest),
    /// A connection, with a TLS handshake if it says so.
    Tcp(Target),
    /// A datagram to this address that is not refused.
    Udp(String),
    /// A call of the standard health service; the address may name a service behind a slash.
    Grpc(Target),
    /// An HTTP/2 connection and a ping.
    H2ping(Target),
    /// A program and its arguments.
    Script(Vec<String>),
    /// The checks of another service or node.
    Alias(Alias),
}

/// A server that a check connects to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// Whether the connection is secured.
    pub use_tls: bool,
    /// The name that the certificate must carry; the host if empty.
    pub tls_server_name: String,
    /// Whether any certificate will do.
    pub tls_skip_verify: bool,
}

impl Target {
    /// The name that the certificate of a server at `HOST:PORT` must carry.
    pub(crate) fn server_name<'a>(&'a self, server: &'a str) -> &'a str {
        if self.tls_server_name.is_empty() {
            server.rsplit_once(':').map_or(server, |(host, _)| host)
        } else {
            &self.tls_server_name
        }
    }
}

/// What an alias check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alias {
    /// A node of the catalog; this agent's own services and checks if empty.
    pub node: String,
    /// The id of a service on that node; the node alone if empty.
    pub service: String,
}

/// The request of an HTTP check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpRequest {
    /// Where to.
    pub url: String,
    /// The method, GET if empty.
    pub method: String,
    /// Headers; several values each.
    pub header: BTreeMap<String, Vec<String>>,
    /// The body.
    pub body: String,
    /// Whether a redirect is an answer rather than a way to one.
    pub disable_redirects: bool,
    /// The name that the certificate must carry; that of the URL if empty.
    pub tls_server_name: String,
    /// Whether any certificate will do.
    pub tls_skip_verify: bool,
}

/// A check as it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckDefinition {
    /// Its id on this node; made from the service's or the name if empty.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub notes: String,
    /// The service it speaks for; the node if empty.
    pub service_id: String,
    /// Its health until the first result.
    pub status: Option<Health>,
    /// What runs or feeds it.
    pub kind: CheckKind,
    /// Nanoseconds between two runs.
    pub interval: i64,
    /// Nanoseconds that a run may take, 0 for the default.
    pub timeout: i64,
    /// Good results in a row before it counts as passing.
    pub success_before_passing: u32,
    /// Bad results in a row before it counts as warning.
    pub failures_before_warning: u32,
    /// Bad results in a row before it counts as critical.
    pub failures_before_critical: u32,
    /// Nanoseconds of being critical after which its service is removed, 0 for never.
    pub deregister_critical_service_after: i64,
    /// How much output is kept, in bytes; 0 for the default.
    pub output_max_size: usize,
}

impl Health {
    /// Reads `passing`, `warning` or `critical`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "passing" => Some(Self::Passing),
            "warning" => Some(Self::Warning),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }

    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Why a JSON document is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It does not decode.
    #[error("Request decode failed: {0}")]
    Decode(#[from] DecodeError),
    /// It decodes to something that cannot be.
    #[error("{0}")]
    Invalid(#[from] InvalidDefinition),
}

impl ServiceDefinition {
    /// Reads the JSON of a registration or of a `service` block of a configuration file, and fills in the defaults.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn from_json(value: Value) -> Result<Self, ReadError> {
        let mut object = Object::new(value, "service")?;
        let mut service = Self {
            id: object.text("ID")?,
            name: object.text("Name")?,
            tags: object.texts("Tags")?.unwrap_or_default(),
            address: object.text("Address")?,
            port: object.number("Port")?,
            socket_path: object.text("SocketPath")?,
            meta: object.text_map("Meta")?.unwrap_or_default(),
            tagged_addresses: object.map("TaggedAddresses", tagged_address)?.unwrap_or_default(),
            weights: object.take("Weights").map(weights).transpose()?,
            enable_tag_override: object.flag("EnableTagOverride")?,
            kind: object.text("Kind")?,
            proxy: object.take("Proxy").map(|value| value.to_string()),
            connect: object.take("Connect").map(|value| value.to_string()),
            ports: object.take("Ports").map(|value| value.to_string()),
            locality: object.take("Locality").map(|value| value.to_string()),
            checks: Vec::new(),
        };
        let single = Object::new(object.take("Check").unwrap_or_default(), "Check")?;
        let several = object.objects("Checks")?;
        object.skip(&["Token"]);
        object.finish()?;
        let checks = std::iter::once(single)
            .filter(|check| !check.is_empty())
            .chain(several);
        let of_service = |error| match error {
            ReadError::Invalid(InvalidDefinition::BadStatus) => {
                InvalidDefinition::BadServiceCheckStatus.into()
            }
            other => other,
        };
        let read = |check| CheckDefinition::read(check).map_err(of_service);
        service.checks = checks.map(read).collect::<Result<_, _>>()?;
        service.complete()?;
        let faults = mesh::faults(&service)?;
        if !faults.is_empty() {
            return Err(InvalidDefinition::Mesh(faults).into());
        }
        Ok(service)
    }

    /// Fills in ids and names of the service and its checks, and checks them all.
    ///
    /// # Errors
    /// See [`InvalidDefinition`].
    fn complete(&mut self) -> Result<(), InvalidDefinition> {
        if self.name.is_empty() {
            return Err(InvalidDefinition::NoServiceName);
        }
        if self.id.is_empty() {
            self.id.clone_from(&self.name);
        }
        if is_no_address(&self.address) {
            return Err(InvalidDefinition::BadAddress);
        }
        match self.weights {
            Some((..1, _)) => return Err(InvalidDefinition::Weights("Passing must be greater than 0")),
            Some((_, ..0)) => {
                return Err(InvalidDefinition::Weights(
                    "Warning must be greater or equal than 0",
                ));
            }
            _ => {}
        }
        check_meta(&self.meta).map_err(InvalidDefinition::Meta)?;
        let several = self.checks.len() > 1;
        for (at, check) in self.checks.iter_mut().enumerate() {
            check.validate()?;
            check.service_id.clone_from(&self.id);
            if check.id.is_empty() {
                check.id = if several {
                    format!("service:{}:{}", self.id, at + 1)
                } else {
                    format!("service:{}", self.id)
                };
            }
            if check.name.is_empty() {
                check.name = format!("Service '{}' check", self.name);
            }
        }
        Ok(())
    }

    /// The catalog row of this service on a node.
    pub fn to_row(&self, node: &str) -> ServiceRow {
        let (weight_passing, weight_warning) = self.weights.unwrap_or((1, 1));
        ServiceRow {
            node: node.to_owned(),
            id: self.id.clone(),
            service: self.name.clone(),
            tags: self.tags.clone(),
            address: self.address.clone(),
            tagged_addresses: self.all_tagged_addresses(),
            meta: self.meta.clone(),
            meta_null: self.meta.is_empty(),
            port: self.port,
            weight_passing,
            weight_warning,
            enable_tag_override: self.enable_tag_override,
            kind: self.kind.clone(),
            socket_path: self.socket_path.clone(),
            proxy_json: self.proxy.clone().unwrap_or_default(),
            connect_json: self.connect.clone().unwrap_or_default(),
            ports_json: self.ports.clone().unwrap_or_default(),
            locality_json: self.locality.clone().unwrap_or_default(),
            ..ServiceRow::default()
        }
    }

    /// The given tagged addresses, and those that follow from the address.
    fn all_tagged_addresses(&self) -> BTreeMap<String, ServiceAddress> {
        let mut all: BTreeMap<String, ServiceAddress> = self
            .tagged_addresses
            .iter()
            .map(|(name, (address, port))| {
                (
                    name.clone(),
                    ServiceAddress {
                        address: address.clone(),
                        port: *port,
                    },
                )
            })
            .collect();
        let names = match self.address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => ["lan_ipv4", "wan_ipv4"],
            Ok(std::net::IpAddr::V6(_)) => ["lan_ipv6", "wan_ipv6"],
            Err(_) => return all,
        };
        for name in names {
            let own = || ServiceAddress {
                address: self.address.clone(),
                port: self.port,
            };
            all.entry(name.to_owned()).or_insert_with(own);
        }
        all
    }
}

/// Whether an address is one to listen on and not to connect to.
pub fn is_no_address(address: &str) -> bool {
    matches!(address, "0.0.0.0" | "::" | "[::]")
}

/// The bounds of metadata (Consul: at most 64 entries, keys of 128 and values of 512 characters).
///
/// # Errors
/// Why it is over them, in Consul's words.
pub fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), String> {
    if meta.len() > 64 {
        return Err("Node metadata cannot contain more than 64 key/value pairs".to_owned());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    for (key, value) in meta {
        let fault = if key.is_empty() {
            "Key cannot be blank"
        } else if !key.chars().all(is_name) {
            "Key contains invalid characters"
        } else if key.len() > 128 {
            "Key is too long (limit: 128 characters)"
        } else if key.starts_with("consul-") {
            "Key prefix 'consul-' is reserved for internal use"
        } else if value.len() > 512 {
            "Value is too long (limit: 512 characters)"
        } else {
            continue;
        };
        return Err(format!(
            "Couldn't load metadata pair ('{key}', '{value}'): {fault}"
        ));
    }
    Ok(())
}

fn tagged_address(value: Value, field: &str) -> Result<(String, u32), DecodeError> {
    let mut object = Object::new(value, field)?;
    let read = (object.text("Address")?, object.number::<u16>("Port")?.into());
    object.finish()?;
    Ok(read)
}

fn weights(value: Value) -> Result<(i64, i64), DecodeError> {
    let mut object = Object::new(value, "Weights")?;
    let read = (object.number("Passing")?, object.number("Warning")?);
    object.finish()?;
    Ok(read)
}

impl CheckDefinition {
    /// Reads the JSON of a registration or of a `check` block of a configuration file, and fills in the defaults.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn from_json(value: Value) -> Result<Self, ReadError> {
        let mut check = Self::read(Object::new(value, "check")?)?;
        if check.name.is_empty() {
            return Err(InvalidDefinition::NoCheckName.into());
        }
        check.validate()?;
        if check.id.is_empty() {
            check.id.clone_from(&check.name);
        }
        Ok(check)
    }

    fn read(mut object: Object) -> Result<Self, ReadError> {
        let http = object.text("HTTP")?;
        let request = HttpRequest {
            url: http,
            method: object.text("Method")?,
            header: object.map("Header", decode::texts)?.unwrap_or_default(),
            body: object.text("Body")?,
            disable_redirects: object.flag("DisableRedirects")?,
            tls_server_name: object.text("TLSServerName")?,
            tls_skip_verify: object.flag("TLSSkipVerify")?,
        };
        let ttl = object.duration("TTL")?;
        let kind = kind(&mut object, request, ttl)?;
        let unavailable = unavailable_kind(&mut object)?;
        let status = object.text("Status")?;
        let output_max_size = object.number::<i64>("OutputMaxSize")?;
        let check = Self {
            id: object.text_of(&["CheckID", "ID"])?,
            name: object.text("Name")?,
            notes: object.text("Notes")?,
            service_id: object.text("ServiceID")?,
            status: Health::parse(&status),
            interval: object.duration("Interval")?,
            timeout: object.duration("Timeout")?,
            success_before_passing: object.number("SuccessBeforePassing")?,
            failures_before_warning: object.number("FailuresBeforeWarning")?,
            failures_before_critical: object.number("FailuresBeforeCritical")?,
            deregister_critical_service_after: object.duration("DeregisterCriticalServiceAfter")?,
            output_max_size: usize::try_from(output_max_size).unwrap_or(0),
            kind,
        };
        object.skip(&["Token", "Shell", "ProxyHTTP", "ProxyGRPC"]);
        object.finish()?;
        if !status.is_empty() && check.status.is_none() {
            return Err(InvalidDefinition::BadStatus.into());
        }
        if ttl > 0 && check.interval > 0 {
            return Err(InvalidDefinition::Check("Interval and TTL cannot both be specified").into());
        }
        if ttl > 0 && matches!(check.kind, CheckKind::Alias(_)) {
            return Err(InvalidDefinition::Check("TTL must be not be set for Alias checks").into());
        }
        if output_max_size < 0 {
            return Err(InvalidDefinition::Check("MaxOutputMaxSize must be positive").into());
        }
        unavailable.map_or(Ok(check), |why| Err(why.into()))
    }

    fn validate(&self) -> Result<(), InvalidDefinition> {
        let fault = match &self.kind {
            CheckKind::Ttl(ttl) if *ttl <= 0 => Some("TTL must be > 0 for TTL checks"),
            kind if kind.has_interval() && self.interval <= 0 => {
                Some("Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks")
            }
            _ if self.failures_before_warning > self.failures_before_critical => {
                Some("FailuresBeforeWarning can't be higher than FailuresBeforeCritical")
            }
            _ => None,
        };
        fault.map_or(Ok(()), |fault| Err(InvalidDefinition::Check(fault)))
    }

    /// The catalog row of this check on a node, for the service it speaks for.
    pub fn to_row(&self, node: &str, service: Option<&ServiceRow>, health: Health, output: &str) -> CheckRow {
        // Checks of services show what was given, others zero durations too.
        let shown = |nanos: i64| match (service, &self.kind) {
            (_, CheckKind::Fixed) => String::new(),
            (Some(_), _) if nanos == 0 => String::new(),
            _ => lictor_proto::go::format_duration(nanos),
        };
        CheckRow {
            node: node.to_owned(),
            check_id: self.id.clone(),
            name: self.name.clone(),
            status: health.as_str().to_owned(),
            notes: self.notes.clone(),
            output: output.to_owned(),
            service_id: service.map(|service| service.id.clone()).unwrap_or_default(),
            service_name: service.map(|service| service.service.clone()).unwrap_or_default(),
            service_tags: service.map(|service| service.tags.clone()).unwrap_or_default(),
            r#type: self.kind.name().to_owned(),
            interval: shown(self.interval),
            timeout: shown(self.timeout),
            ..CheckRow::default()
        }
    }

    /// How often it runs.
    pub fn run_interval(&self) -> Duration {
        nanos(self.interval).max(INTERVAL_MIN)
    }

    /// How long a run may take.
    pub fn run_timeout(&self) -> Duration {
        match (&self.kind, self.timeout) {
            (_, 1..) => nanos(self.timeout),
            (CheckKind::Script(_), _) => SCRIPT_TIMEOUT_DEFAULT,
            _ => TIMEOUT_DEFAULT,
        }
    }

    /// How long it may be critical before its service goes.
    pub fn deregister_after(&self) -> Option<Duration> {
        (self.deregister_critical_service_after > 0)
            .then(|| nanos(self.deregister_critical_service_after).max(DEREGISTER_AFTER_MIN))
    }

    /// How much output is kept, in bytes, of at most `most`.
    pub fn output_max_bytes(&self, most: usize) -> usize {
        if self.output_max_size > 0 {
            self.output_max_size.min(most)
        } else {
            most
        }
    }
}

impl CheckKind {
    /// The word in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fixed => "maintenance",
            Self::Ttl(_) => "ttl",
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Grpc(_) => "grpc",
            Self::H2ping(_) => "h2ping",
            Self::Script(_) => "script",
            Self::Alias(_) => "alias",
        }
    }

    /// Whether it runs by itself, now and then.
    pub fn runs(&self) -> bool {
        !matches!(self, Self::Fixed | Self::Ttl(_))
    }

    /// Whether whoever registers it must say how often it runs.
    fn has_interval(&self) -> bool {
        self.runs() && !matches!(self, Self::Alias(_))
    }
}

/// The kind of check that the fields of a definition ask for. Of several, the first in this order.
fn kind(object: &mut Object, http: HttpRequest, ttl: i64) -> Result<CheckKind, DecodeError> {
    let target = |address: String, use_tls: bool| Target {
        address,
        use_tls,
        tls_server_name: http.tls_server_name.clone(),
        tls_skip_verify: http.tls_skip_verify,
    };
    let tcp = target(object.text("TCP")?, object.flag("TCPUseTLS")?);
    let udp = object.text("UDP")?;
    let grpc = target(object.text("GRPC")?, object.flag("GRPCUseTLS")?);
    // Secured unless told otherwise.
    let h2ping_tls = object.take("H2PingUseTLS") != Some(Value::Bool(false));
    let h2ping = target(object.text("H2PING")?, h2ping_tls);
    let mut args = object.texts("ScriptArgs")?.unwrap_or_default();
    let short = object.texts("Args")?.unwrap_or_default();
    if args.is_empty() {
        args = short;
    }
    let alias = Alias {
        node: object.text("AliasNode")?,
        service: object.text("AliasService")?,
    };
    Ok(if !http.url.is_empty() {
        CheckKind::Http(http)
    } else if !tcp.address.is_empty() {
        CheckKind::Tcp(tcp)
    } else if !udp.is_empty() {
        CheckKind::Udp(udp)
    } else if !grpc.address.is_empty() {
        CheckKind::Grpc(grpc)
    } else if !h2ping.address.is_empty() {
        CheckKind::H2ping(h2ping)
    } else if !args.is_empty() {
        CheckKind::Script(args)
    } else if alias != Alias::default() {
        CheckKind::Alias(alias)
    } else {
        CheckKind::Ttl(ttl)
    })
}

/// Reads the fields of kinds of checks that this agent does not run; the answer says which was asked for.
fn unavailable_kind(object: &mut Object) -> Result<Option<InvalidDefinition>, DecodeError> {
    let mut found = None;
    for (name, why) in [
        ("OSService", "OSService checks are not supported by this agent"),
        (
            "DockerContainerID",
            "Docker checks are not supported by this agent",
        ),
    ] {
        if !object.text(name)?.is_empty() {
            found = found.or(Some(InvalidDefinition::Check(why)));
        }
    }
    Ok(found)
}

/// A duration of a definition; negative ones are none.
pub(crate) fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(value: Value) -> String {
        ServiceDefinition::from_json(value).unwrap_err().to_string()
    }

    #[test]
    fn a_name_is_enough() {
        let service = ServiceDefinition::from_json(json!({"Name": "web"})).unwrap();

        assert_eq!(service.id, "web");
        let row = service.to_row("n1");
        assert_eq!((row.weight_passing, row.weight_warning), (1, 1));
        assert!(row.tagged_addresses.is_empty());
    }

    #[test]
    fn an_ip_address_becomes_tagged_addresses_unless_they_are_given() {
        let service = ServiceDefinition::from_json(json!({
            "Name": "web", "Port": 80, "Address": "192.0.2.3",
            "TaggedAddresses": {"wan_ipv4": {"Address": "198.51.100.1", "Port": 8080}}
        }));

        let tagged = service.unwrap().to_row("n1").tagged_addresses;

        assert_eq!(
            tagged["lan_ipv4"],
            ServiceAddress {
                address: "192.0.2.3".into(),
                port: 80
            }
        );
        assert_eq!(
            tagged["wan_ipv4"],
            ServiceAddress {
                address: "198.51.100.1".into(),
                port: 8080
            }
        );
    }

    #[test]
    fn what_several_clients_send_means_the_same() {
        let check = json!({"CheckID": null, "Args": null, "Interval": null, "TTL": "60s"});
        for body in [
            json!({"name": "web", "id": "w1", "port": 1, "tags": ["t"], "checks": [{"ttl": "60s"}]}),
            json!({"Name": "web", "Id": "w1", "Port": 1, "Tags": ["t"], "Address": null, "Check": check}),
            json!({"Name": "web", "ID": "w1", "Port": 1, "Tags": ["t"], "Check": {"TTL": 60_000_000_000_i64}}),
        ] {
            let service = ServiceDefinition::from_json(body).unwrap();

            assert_eq!((service.id.as_str(), service.port), ("w1", 1));
            assert_eq!(service.checks[0].kind, CheckKind::Ttl(60_000_000_000));
            assert_eq!(service.checks[0].id, "service:w1");
            assert_eq!(service.checks[0].name, "Service 'web' check");
        }
    }

    #[test]
    fn several_checks_are_numbered() {
        let checks = json!([{"TTL": "30s"}, {"TTL": "40s", "Name": "second"}]);
        let service = ServiceDefinition::from_json(json!({"Name": "web", "Checks": checks})).unwrap();

        let names: Vec<_> = service
            .checks
            .iter()
            .map(|c| (c.id.as_str(), c.name.as_str()))
            .collect();

        assert_eq!(
            names,
            [
                ("service:web:1", "Service 'web' check"),
                ("service:web:2", "second")
            ]
        );
    }

    #[test]
    fn services_are_refused_with_consuls_words() {
        assert_eq!(refusal(json!({})), "Missing service name");
        assert_eq!(
            refusal(json!({"Name": "w", "Foo": 1})),
            "Request decode failed: json: unknown field \"Foo\""
        );
        let ttl = "Invalid check: TTL must be > 0 for TTL checks";
        assert_eq!(refusal(json!({"Name": "w", "Check": {"Name": "x"}})), ttl);
        let duration = "Request decode failed: time: invalid duration \"junk\"";
        assert_eq!(refusal(json!({"Name": "w", "Check": {"TTL": "junk"}})), duration);
        assert!(refusal(json!({"Name": "w", "Port": "x"})).starts_with("Request decode failed: "));
        assert!(refusal(json!({"Name": "w", "Port": -1})).starts_with("Request decode failed: "));
        assert_eq!(
            refusal(json!({"Name": "w", "Address": "0.0.0.0"})),
            "Invalid service address"
        );
        let weights = "Invalid Weights: Passing must be greater than 0";
        assert_eq!(
            refusal(json!({"Name": "w", "Weights": {"Passing": 0, "Warning": 1}})),
            weights
        );
        let meta =
            "Invalid Service Meta: Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters";
        assert_eq!(refusal(json!({"Name": "w", "Meta": {"a b": "c"}})), meta);
        let reserved = "Invalid Service Meta: Couldn't load metadata pair ('consul-a', 'c'): \
                        Key prefix 'consul-' is reserved for internal use";
        assert_eq!(refusal(json!({"Name": "w", "Meta": {"consul-a": "c"}})), reserved);
    }

    #[test]
    fn checks_are_refused_with_consuls_words() {
        for (body, text) in [
            (json!({}), "Missing check name"),
            (
                json!({"Name": "c"}),
                "Invalid check: TTL must be > 0 for TTL checks",
            ),
            (
                json!({"Name": "c", "TTL": "10s", "Status": "junk"}),
                "Bad check status",
            ),
            (
                json!({"Name": "c", "TTL": "10s", "Interval": "5s"}),
                "Invalid check: Interval and TTL cannot both be specified",
            ),
            (
                json!({"Name": "c", "HTTP": "http://127.0.0.1:1/"}),
                "Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
            ),
            (
                json!({"Name": "c", "Script": "true", "Interval": "5s"}),
                "Request decode failed: json: unknown field \"Script\"",
            ),
        ] {
            assert_eq!(CheckDefinition::from_json(body).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn every_kind_of_check_is_told_by_its_fields() {
        let target = |address: &str, use_tls| Target {
            address: address.to_owned(),
            use_tls,
            tls_server_name: "n".to_owned(),
            tls_skip_verify: true,
        };
        let alias = |node: &str, service: &str| {
            CheckKind::Alias(Alias {
                node: node.to_owned(),
                service: service.to_owned(),
            })
        };
        let script = CheckKind::Script(vec!["sh".to_owned(), "-c".to_owned()]);
        for (fields, kind, name) in [
            (json!({"TCP": "a:1"}), CheckKind::Tcp(target("a:1", false)), "tcp"),
            (
                json!({"TCP": "a:1", "TCPUseTLS": true}),
                CheckKind::Tcp(target("a:1", true)),
                "tcp",
            ),
            (json!({"UDP": "a:1"}), CheckKind::Udp("a:1".to_owned()), "udp"),
            (
                json!({"GRPC": "a:1/s", "grpc_use_tls": true}),
                CheckKind::Grpc(target("a:1/s", true)),
                "grpc",
            ),
            (
                json!({"H2PING": "a:1"}),
                CheckKind::H2ping(target("a:1", true)),
                "h2ping",
            ),
            (
                json!({"H2PING": "a:1", "H2PingUseTLS": false}),
                CheckKind::H2ping(target("a:1", false)),
                "h2ping",
            ),
            (json!({"Args": ["sh", "-c"]}), script.clone(), "script"),
            (
                json!({"ScriptArgs": ["sh", "-c"], "Args": ["x"]}),
                script,
                "script",
            ),
            (json!({"AliasNode": "n"}), alias("n", ""), "alias"),
            (json!({"alias_service": "s"}), alias("", "s"), "alias"),
        ] {
            let mut body =
                json!({"Name": "c", "Interval": "1s", "TLSServerName": "n", "TLSSkipVerify": true});
            for (key, value) in fields.as_object().unwrap() {
                body[key] = value.clone();
            }

            let check = CheckDefinition::from_json(body).unwrap();

            assert_eq!((check.kind.name(), check.kind), (name, kind), "{fields}");
        }
        let text = |body| CheckDefinition::from_json(body).unwrap_err().to_string();
        assert_eq!(
            text(json!({"Name": "c", "AliasNode": "n", "TTL": "1s"})),
            "Invalid check: TTL must be not be set for Alias checks"
        );
        assert!(
            text(json!({"Name": "c", "Args": ["true"]})).starts_with("Invalid check: Interval must be > 0")
        );
        assert!(CheckDefinition::from_json(json!({"Name": "c", "AliasNode": "n"})).is_ok());
    }
}
