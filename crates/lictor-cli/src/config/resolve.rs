//! From merged keys to a configuration with every default filled in and every value validated.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;

use lictor_proto::limits;

use super::addr::{Listen, find, outward_ip, parse_host_port, parse_ip, parse_listen};
use super::cors;
use super::duration::parse_duration;
use super::error::ConfigError;
use super::merged::{Merged, MergedAcl, MergedAutopilot, MergedPorts};
use super::runtime::{Acl, Autopilot, DataDir, Limits, LogSettings, Ports, RetryJoin, RuntimeConfig};
use super::tls;

const HTTP_PORT: u16 = 8500;
const SERVER_PORT: u16 = 8300;
const SERF_LAN_PORT: u16 = 8301;
/// `performance.raft_multiplier`: default and greatest. Consul's default is 5.
const RAFT_MULTIPLIER: (u32, u32) = (1, 10);
/// Consul: `limits.http_max_conns_per_client`.
const HTTP_CONNS_PER_CLIENT: usize = 200;
/// Consul: `check_output_max_size`.
const CHECK_OUTPUT_MAX_SIZE: usize = 4096;
/// Consul: `limits.https_handshake_timeout`.
const HTTPS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Consul: `performance.leave_drain_time`.
const LEAVE_DRAIN_TIME: Duration = Duration::from_secs(5);
/// `slow_operation_threshold`: far above what healthy disks and networks need, far below what clients wait for.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Bounds an operator may not leave, so that one setting cannot make every request a threat to memory. A value goes
/// into a log entry, which has a bound of its own.
const VALUE_MAX_BYTES: usize = limits::ENTRY_MAX_BYTES / 2;
/// The same for the operations of a transaction, all of which are one step of the state.
const TXN_OPS_MOST: usize = 8192;
const NODE_META_MAX: usize = 64;

pub(super) type Result<T> = std::result::Result<T, ConfigError>;

pub(super) fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(ConfigError::Invalid(text.into()))
}

fn plain<T>(result: std::result::Result<T, String>) -> Result<T> {
    result.map_err(ConfigError::Invalid)
}

/// Fills in defaults and validates.
pub(crate) fn resolve(
    merged: Map<String, Value>,
    absent_keys: Vec<String>,
    dev: bool,
) -> Result<RuntimeConfig> {
    let raw: Merged = serde_json::from_value(Value::Object(merged))
        .map_err(|error| ConfigError::Invalid(format!("configuration: {error}")))?;
    let server = raw.server.unwrap_or(dev);
    let (bootstrap, bootstrap_expect) = bootstrap(&raw, server, dev)?;
    let (bind_addr, advertise_addr) = own_addresses(&raw, dev)?;
    let (ports, limits) = (ports(&raw.ports)?, limits(&raw)?);
    let (mut http, https) = (
        listeners(&raw, "http", ports.http)?,
        listeners(&raw, "https", ports.https)?,
    );
    http.extend(more_listeners(&raw.addr)?);
    let (tls, peer_tls) = (tls::https(&raw)?, tls::between_servers(&raw, server)?);
    // Consul's test suites name a port for HTTPS and no certificate; the port then stays closed.
    let https = if tls.is_some() { https } else { Vec::new() };
    let datacenter = datacenter("datacenter", raw.datacenter.as_deref().unwrap_or("dc1"))?;
    let scripts = raw.enable_script_checks.unwrap_or(false);
    Ok(RuntimeConfig {
        dev,
        server,
        bootstrap,
        bootstrap_expect,
        node_name: node_name(raw.node_name)?,
        node_id: raw.node_id.as_deref().map(node_id).transpose()?,
        node_meta: checked_meta(raw.node_meta)?,
        primary_datacenter: match raw.primary_datacenter.as_deref() {
            Some("") | None => datacenter.clone(),
            Some(name) => self::datacenter("primary_datacenter", name)?,
        },
        peer_tls,
        datacenter,
        data_dir: data_dir(raw.data_dir, dev)?,
        bind_addr,
        advertise_addr,
        http,
        https,
        ports,
        unix_socket_mode: raw.unix_sockets.mode.as_deref().map(socket_mode).transpose()?,
        tls,
        response_headers: response_headers(&raw.http_config.response_headers)?,
        block_endpoints: block_endpoints(raw.http_config.block_endpoints)?,
        allow_write_http_from: networks(&raw.http_config.allow_write_http_from)?,
        cors: plain(cors::origins(&raw.cors))?,
        // Consul serves its page when asked to; ours costs nothing until it is looked at.
        ui: raw.ui_config.enabled.or(raw.ui).unwrap_or(true),
        demo: None,
        limits,
        acl: acl(raw.acl)?,
        raft_multiplier: raft_multiplier(raw.performance.raft_multiplier)?,
        autopilot: autopilot(&raw.autopilot)?,
        retry_join: retry_join(
            raw.retry_join,
            raw.start_join,
            raw.retry_interval.as_deref(),
            raw.retry_max,
        )?,
        encrypt: raw.encrypt.filter(|key| !key.is_empty()),
        enable_script_checks: scripts,
        enable_local_script_checks: scripts || raw.enable_local_script_checks.unwrap_or(false),
        skip_leave_on_interrupt: raw.skip_leave_on_interrupt.unwrap_or(server),
        leave_on_terminate: raw.leave_on_terminate.unwrap_or(!server),
        services: raw.services,
        checks: raw.checks,
        log: LogSettings {
            level: log_level(raw.log_level.as_deref().unwrap_or("info"))?,
            json: raw.log_json.unwrap_or(false),
            file: raw.log_file,
            slow_after: slow_after(raw.slow_operation_threshold.as_deref())?,
        },
        pid_file: raw.pid_file,
        absent_keys,
    })
}

fn slow_after(given: Option<&str>) -> Result<Duration> {
    duration("slow_operation_threshold", given, SLOW_AFTER)
}

fn bootstrap(raw: &Merged, server: bool, dev: bool) -> Result<(bool, u32)> {
    let asked = raw.bootstrap.unwrap_or(false);
    let expect: u32 = number("bootstrap_expect", raw.bootstrap_expect, 0, (0, 99))?;
    if asked && expect > 1 {
        return invalid("bootstrap and a bootstrap_expect above 1 exclude each other: give one of them");
    }
    if !server && (asked || expect > 0) {
        return invalid("bootstrap and bootstrap_expect are for servers: add -server, or leave them out");
    }
    let bootstrap = asked || expect == 1 || (dev && server && expect == 0);
    Ok((bootstrap, if bootstrap { 1 } else { expect }))
}

fn own_addresses(raw: &Merged, dev: bool) -> Result<(IpAddr, IpAddr)> {
    let bind = match raw.bind_addr.as_deref() {
        Some(text) => plain(parse_ip("bind_addr", text))?,
        None if dev => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let advertise = match raw.advertise_addr.as_deref() {
        Some(text) => plain(parse_ip("advertise_addr", text))?,
        None if bind.is_unspecified() => outward_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        None => bind,
    };
    if advertise.is_unspecified() {
        return invalid(format!(
            "advertise_addr: {advertise} stands for every address; name the one to be reached at"
        ));
    }
    Ok((bind, advertise))
}

fn ports(raw: &MergedPorts) -> Result<Ports> {
    Ok(Ports {
        http: port("ports.http", raw.http, Some(HTTP_PORT))?,
        https: port("ports.https", raw.https, None)?,
        server: port("ports.server", raw.server, Some(SERVER_PORT))?.unwrap_or(SERVER_PORT),
        serf_lan: port("ports.serf_lan", raw.serf_lan, Some(SERF_LAN_PORT))?,
        serf_wan: port("ports.serf_wan", raw.serf_wan, None)?,
    })
}

/// Where one protocol is served: its own addresses, else those of all clients.
fn listeners(raw: &Merged, protocol: &str, port: Option<u16>) -> Result<Vec<Listen>> {
    let Some(port) = port else { return Ok(Vec::new()) };
    let own = if protocol == "https" {
        &raw.addresses.https
    } else {
        &raw.addresses.http
    };
    match own.as_deref() {
        Some(text) => plain(parse_listen(&format!("addresses.{protocol}"), text, port)),
        None => plain(parse_listen(
            "client_addr",
            raw.client_addr.as_deref().unwrap_or("127.0.0.1"),
            port,
        )),
    }
}

/// Where plain HTTP is served beside that.
fn more_listeners(texts: &[String]) -> Result<Vec<Listen>> {
    let texts = texts.iter().filter(|text| !text.is_empty());
    let listen = texts.map(|text| {
        let place = parse_host_port("addr", text)?;
        Ok(Listen::Tcp(find("addr", &place)?))
    });
    plain(listen.collect())
}

fn raft_multiplier(given: Option<i64>) -> Result<u32> {
    let (default, most) = RAFT_MULTIPLIER;
    number("performance.raft_multiplier", given, default, (1, most))
}

fn retry_join(
    mut addresses: Vec<String>,
    mut more: Vec<String>,
    interval: Option<&str>,
    max: Option<i64>,
) -> Result<RetryJoin> {
    addresses.append(&mut more);
    // What Consul asks a cloud for its servers with; taken for a name, it would be looked up for ever.
    if let Some(asked) = addresses.iter().find(|address| address.contains("provider=")) {
        return invalid(format!(
            "retry_join: {asked:?}: servers cannot be looked up at a cloud provider; list their addresses, or a DNS \
             name that stands for all of them"
        ));
    }
    Ok(RetryJoin {
        addresses,
        interval: interval
            .map(|text| duration("retry_interval", Some(text), Duration::ZERO))
            .transpose()?
            .filter(|interval| !interval.is_zero()),
        max: number("retry_max", max, 0, (0, u32::MAX))?,
    })
}

/// Zero and below is off, as in Consul.
fn port(key: &str, value: Option<i64>, default: Option<u16>) -> Result<Option<u16>> {
    match value {
        None => Ok(default),
        Some(..=0) => Ok(None),
        Some(port) => match u16::try_from(port) {
            Ok(port) => Ok(Some(port)),
            Err(_) => invalid(format!(
                "{key}: {port} is not a port (1 to 65535, or -1 for none)"
            )),
        },
    }
}

fn limits(merged: &Merged) -> Result<Limits> {
    let raw = &merged.limits;
    let session_ttl_min = match duration(
        "session_ttl_min",
        merged.session_ttl_min.as_deref(),
        limits::SESSION_TTL_MIN,
    )? {
        Duration::ZERO => limits::SESSION_TTL_MIN,
        given => given,
    };
    if session_ttl_min > limits::SESSION_TTL_MAX {
        return invalid("session_ttl_min: sessions live 24h at most");
    }
    let bytes =
        |name: &str, value, default| number(&format!("limits.{name}"), value, default, (1, VALUE_MAX_BYTES));
    let kv_max_value_size = bytes(
        "kv_max_value_size",
        raw.kv_max_value_size,
        limits::KV_VALUE_MAX_BYTES,
    )?;
    let txn_default = limits::TXN_BODY_MAX_BYTES.max(kv_max_value_size);
    Ok(Limits {
        http_max_conns_per_client: match raw.http_max_conns_per_client {
            None => HTTP_CONNS_PER_CLIENT,
            // Nothing and less than nothing mean no limit, as in Consul.
            Some(given) => usize::try_from(given).unwrap_or(0),
        },
        https_handshake_timeout: match duration(
            "limits.https_handshake_timeout",
            raw.https_handshake_timeout.as_deref(),
            HTTPS_HANDSHAKE_TIMEOUT,
        )? {
            Duration::ZERO => return invalid("limits.https_handshake_timeout: must be longer than 0s"),
            given => given,
        },
        kv_max_value_size,
        txn_max_ops: number(
            "limits.txn_max_ops",
            raw.txn_max_ops,
            limits::TXN_OPS_MAX,
            (1, TXN_OPS_MOST),
        )?,
        txn_max_req_len: bytes("txn_max_req_len", raw.txn_max_req_len, txn_default)?,
        leave_drain_time: duration(
            "performance.leave_drain_time",
            merged.performance.leave_drain_time.as_deref(),
            LEAVE_DRAIN_TIME,
        )?,
        max_header_bytes: match merged.http_config.max_header_bytes {
            None | Some(0) => None,
            given => Some(number("http_config.max_header_bytes", given, 0, (1024, 1 << 20))?),
        },
        session_ttl_min,
        default_query_time: duration(
            "default_query_time",
            merged.default_query_time.as_deref(),
            limits::WAIT_DEFAULT,
        )?,
        max_query_time: duration(
            "max_query_time",
            merged.max_query_time.as_deref(),
            limits::WAIT_MAX,
        )?,
        check_output_max_size: number(
            "check_output_max_size",
            merged.check_output_max_size,
            CHECK_OUTPUT_MAX_SIZE,
            (1, VALUE_MAX_BYTES),
        )?,
    })
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>> {
    let parsed = texts.iter().map(|text| match text.parse() {
        Ok(network) => Ok(network),
        Err(_) => invalid(format!(
            "http_config.allow_write_http_from: {text:?} is no network such as \"10.0.0.0/8\""
        )),
    });
    parsed.collect()
}

/// Headers that frame a message are not the operator's to set.
fn response_headers(raw: &BTreeMap<String, String>) -> Result<HeaderMap> {
    const OF_THE_MESSAGE: [HeaderName; 5] = [
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in raw {
        let key = format!("http_config.response_headers: {name:?}");
        let Ok(parsed) = HeaderName::try_from(name) else {
            return invalid(format!("{key} is no name of a header"));
        };
        if OF_THE_MESSAGE.contains(&parsed) {
            return invalid(format!("{key} is set by the server itself"));
        }
        match HeaderValue::try_from(value) {
            Ok(value) => headers.insert(parsed, value),
            Err(_) => return invalid(format!("{key}: {value:?} is no value of a header")),
        };
    }
    Ok(headers)
}

/// An empty prefix would block everything, which nobody means.
fn block_endpoints(prefixes: Vec<String>) -> Result<Vec<String>> {
    match prefixes.iter().find(|prefix| !prefix.starts_with('/')) {
        Some(odd) => invalid(format!(
            "http_config.block_endpoints: {odd:?} is no path such as \"/v1/agent\""
        )),
        None => Ok(prefixes),
    }
}

fn acl(raw: MergedAcl) -> Result<Acl> {
    let default_allow = match raw.default_policy.as_deref() {
        None | Some("allow") => true,
        Some("deny") => false,
        Some(other) => {
            return invalid(format!(
                "acl.default_policy: {other:?} is neither \"allow\" nor \"deny\""
            ));
        }
    };
    let down_policy = raw.down_policy.unwrap_or_else(|| "extend-cache".to_owned());
    if !["allow", "deny", "extend-cache", "async-cache"].contains(&down_policy.as_str()) {
        return invalid(format!("acl.down_policy: {down_policy:?} is not a policy"));
    }
    let shortest = |names: [(&str, Option<String>); 3]| -> Result<Duration> {
        let mut ttl = Duration::from_secs(30);
        for (name, text) in names {
            ttl = ttl.min(duration(name, text.as_deref(), ttl)?);
        }
        Ok(ttl)
    };
    let token = |token: Option<String>| token.filter(|token| !token.is_empty());
    Ok(Acl {
        enabled: raw.enabled.unwrap_or(false),
        default_allow,
        down_policy,
        ttl: shortest([
            ("acl.token_ttl", raw.token_ttl),
            ("acl.policy_ttl", raw.policy_ttl),
            ("acl.role_ttl", raw.role_ttl),
        ])?,
        initial_management: token(raw.tokens.initial_management.or(raw.tokens.master)),
        default: token(raw.tokens.default),
        agent: token(raw.tokens.agent),
        agent_recovery: token(raw.tokens.agent_recovery.or(raw.tokens.agent_master)),
    })
}

fn autopilot(raw: &MergedAutopilot) -> Result<Autopilot> {
    let time = |name: &str, text: &Option<String>, default_ms| {
        duration(
            &format!("autopilot.{name}"),
            text.as_deref(),
            Duration::from_millis(default_ms),
        )
    };
    Ok(Autopilot {
        cleanup_dead_servers: raw.cleanup_dead_servers.unwrap_or(true),
        last_contact_threshold: time("last_contact_threshold", &raw.last_contact_threshold, 200)?,
        max_trailing_logs: number(
            "autopilot.max_trailing_logs",
            raw.max_trailing_logs,
            250,
            (0, u64::MAX),
        )?,
        min_quorum: number("autopilot.min_quorum", raw.min_quorum, 0, (0, 99))?,
        server_stabilization_time: time(
            "server_stabilization_time",
            &raw.server_stabilization_time,
            10_000,
        )?,
    })
}

fn data_dir(given: Option<PathBuf>, dev: bool) -> Result<DataDir> {
    match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Ok(DataDir::Kept(path)),
        None if dev => Ok(DataDir::Temporary),
        None => invalid(
            "data_dir cannot be empty: give -data-dir DIR, or -dev for a server that forgets everything",
        ),
    }
}

fn node_name(given: Option<String>) -> Result<String> {
    if let Some(name) = given.filter(|name| !name.is_empty()) {
        if name.chars().any(char::is_control) {
            return invalid("node_name has a control character in it");
        }
        return Ok(name);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => invalid("node_name: this host has no name; give -node NAME"),
        name => Ok(name.to_owned()),
    }
}

fn node_id(text: &str) -> Result<String> {
    match uuid::Uuid::try_parse(text) {
        Ok(id) => Ok(id.hyphenated().to_string()),
        Err(_) => invalid(format!(
            "node_id: {text:?} is not a uuid (8-4-4-4-12 hexadecimal digits)"
        )),
    }
}

fn datacenter(key: &str, name: &str) -> Result<String> {
    let name = name.to_ascii_lowercase();
    if !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        return Ok(name);
    }
    invalid(format!("{key}: {name:?} must be letters, digits, - and _ only"))
}

fn checked_meta(meta: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if meta.len() > NODE_META_MAX {
        return invalid(format!(
            "node_meta: {} pairs are more than {NODE_META_MAX}",
            meta.len()
        ));
    }
    for (name, value) in &meta {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 128 || value.len() > 512 || !name.chars().all(plain) {
            return invalid(format!(
                "node_meta: {name:?}: names are 1 to 128 letters, digits, - and _; values 512 bytes at most"
            ));
        }
    }
    Ok(meta)
}

fn socket_mode(text: &str) -> Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => invalid(format!(
            "unix_sockets.mode: {text:?} is not an octal mode such as \"0660\""
        )),
    }
}

/// Consul's level names, and what Rust programmers would write.
fn log_level(text: &str) -> Result<LevelFilter> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "err" | "error" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        _ => {
            return invalid(format!(
                "log_level: {text:?} is not one of trace, debug, info, warn, err, off"
            ));
        }
    })
}

fn duration(key: &str, text: Option<&str>, default: Duration) -> Result<Duration> {
    text.map_or(Ok(default), |text| {
        parse_duration(text).map_err(|why| ConfigError::Invalid(format!("{key}: {why}")))
    })
}

/// A number within bounds, both included.
fn number<N>(key: &str, value: Option<i64>, default: N, (least, most): (N, N)) -> Result<N>
where
    N: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
{
    let Some(value) = value else { return Ok(default) };
    match N::try_from(value) {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => invalid(format!("{key}: {value} is not within {least} to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dev(value: &Value) -> std::result::Result<RuntimeConfig, String> {
        let map = value.as_object().expect("an object").clone();
        resolve(map, Vec::new(), true).map_err(|error| error.to_string())
    }

    fn durable(value: &Value) -> std::result::Result<RuntimeConfig, String> {
        let mut map = value.as_object().expect("an object").clone();
        map.entry("data_dir").or_insert_with(|| json!("d"));
        map.entry("server").or_insert_with(|| json!(true));
        map.entry("bind_addr").or_insert_with(|| json!("127.0.0.1"));
        resolve(map, Vec::new(), false).map_err(|error| error.to_string())
    }

    #[test]
    fn development_mode_is_one_server_on_loopback_that_keeps_nothing() {
        let config = dev(&json!({})).expect("valid");

        assert!(config.server && config.bootstrap);
        assert_eq!(config.data_dir, DataDir::Temporary);
        assert_eq!(
            config.http,
            [Listen::Tcp("127.0.0.1:8500".parse().expect("an address"))]
        );
        assert!(config.https.is_empty());
        assert_eq!(config.advertise_addr.to_string(), "127.0.0.1");
        assert!(!config.node_name.is_empty());
    }

    /// Mistakes, and how the line on each begins.
    fn are_one_line_that_names_the_key(mistakes: &[(Value, &str)]) {
        for (value, wanted) in mistakes {
            let error = durable(value).expect_err(wanted);
            assert!(error.starts_with(wanted), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn every_mistake_is_one_line_that_names_the_key() {
        are_one_line_that_names_the_key(&[
            (
                json!({"bootstrap": true, "server": true, "bootstrap_expect": 3}),
                "bootstrap and a bootstrap_expect above 1",
            ),
            (json!({"datacenter": "a b"}), "datacenter: \"a b\""),
            (json!({"node_id": "x"}), "node_id: \"x\" is not a uuid"),
            (
                json!({"ports": {"http": 70_000}}),
                "ports.http: 70000 is not a port",
            ),
            (
                json!({"performance": {"raft_multiplier": 11}}),
                "performance.raft_multiplier: 11",
            ),
            (json!({"log_level": "loud"}), "log_level: \"loud\""),
            (json!({"cert_file": "c"}), "cert_file is given without key_file"),
            (
                json!({"cert_file": "c", "key_file": "k", "verify_incoming": true}),
                "verify_incoming needs ca_file",
            ),
            (
                json!({"acl": {"default_policy": "maybe"}}),
                "acl.default_policy: \"maybe\"",
            ),
            (
                json!({"limits": {"kv_max_value_size": 0}}),
                "limits.kv_max_value_size: 0",
            ),
            (
                json!({"limits": {"txn_max_ops": 8193}}),
                "limits.txn_max_ops: 8193",
            ),
            (json!({"check_output_max_size": 0}), "check_output_max_size: 0"),
        ]);
    }

    #[test]
    fn every_mistake_about_http_and_names_is_one_line_that_names_the_key() {
        are_one_line_that_names_the_key(&[
            (
                json!({"http_config": {"allow_write_http_from": ["127.0.0.1"]}}),
                "http_config.allow_write_http_from: \"127.0.0.1\" is no network",
            ),
            (
                json!({"session_ttl_min": "48h"}),
                "session_ttl_min: sessions live",
            ),
            (
                json!({"limits": {"https_handshake_timeout": "0s"}}),
                "limits.https_handshake_timeout: must",
            ),
            (
                json!({"http_config": {"response_headers": {"b ad": "x"}}}),
                "http_config.response_headers: \"b ad\" is no name",
            ),
            (
                json!({"http_config": {"response_headers": {"A": "x\ny"}}}),
                "http_config.response_headers: \"A\": \"x\\ny\" is no value",
            ),
            (
                json!({"http_config": {"response_headers": {"content-length": "1"}}}),
                "http_config.response_headers: \"content-length\" is set by",
            ),
            (
                json!({"http_config": {"block_endpoints": [""]}}),
                "http_config.block_endpoints: \"\" is no path",
            ),
            (
                json!({"cors": ["http://a.example", "a b"]}),
                "cors: \"a b\" is not an origin",
            ),
            (
                json!({"retry_join": ["10.0.0.1", "provider=aws tag_key=a tag_value=b"]}),
                "retry_join: \"provider=aws tag_key=a tag_value=b\": servers cannot be looked up",
            ),
            (json!({"addr": ["4001"]}), "addr: \"4001\" is not of the form"),
            (
                json!({"unix_sockets": {"mode": "rw"}}),
                "unix_sockets.mode: \"rw\"",
            ),
            (json!({"node_meta": {"a b": "c"}}), "node_meta: \"a b\""),
            (json!({"advertise_addr": "0.0.0.0"}), "advertise_addr: 0.0.0.0"),
            (json!({"data_dir": ""}), "data_dir cannot be empty"),
        ]);
    }

    #[test]
    fn bootstrap_expect_of_one_is_bootstrap() {
        for keys in [
            json!({"bootstrap_expect": 1}),
            json!({"bootstrap_expect": 1, "bootstrap": true}),
        ] {
            let config = durable(&keys).expect("valid");

            assert_eq!((config.bootstrap, config.bootstrap_expect), (true, 1), "{keys}");
        }
    }

    #[test]
    fn an_agent_without_a_server_founds_nothing_and_leaves_when_it_is_stopped() {
        let config = durable(&json!({"server": false, "retry_join": ["127.0.0.1"]})).expect("valid");

        assert!(!config.server && !config.bootstrap);
        assert!(config.leave_on_terminate && !config.skip_leave_on_interrupt);
        assert!(durable(&json!({"server": false, "bootstrap": true})).is_err());
        assert!(durable(&json!({"server": false, "bootstrap_expect": 3})).is_err());
    }

    #[test]
    fn a_negative_port_closes_the_listener() {
        assert!(
            dev(&json!({"ports": {"http": -1}}))
                .expect("valid")
                .http
                .is_empty()
        );
    }

    #[test]
    fn addresses_win_over_client_addr_for_their_protocol() {
        let value =
            json!({"client_addr": "127.0.0.2", "addresses": {"http": "unix:///run/l.sock 127.0.0.3"}});

        let config = dev(&value).expect("valid");

        let shown: Vec<_> = config.http.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["unix:///run/l.sock", "127.0.0.3:8500"]);
    }

    #[test]
    fn further_listeners_serve_the_same() {
        let config = dev(&json!({"addr": ["127.0.0.1:4001", "localhost:4002"]})).expect("valid");

        let shown: Vec<_> = config.http.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:8500", "127.0.0.1:4001", "127.0.0.1:4002"]);
    }

    #[test]
    fn https_is_served_when_there_is_a_certificate_and_closed_when_not() {
        let port = json!({"ports": {"https": 8501}});
        assert!(dev(&port).expect("valid").https.is_empty());

        let config = dev(&json!({
            "ports": {"https": 8501}, "cert_file": "old.pem", "key_file": "k.pem",
            "tls": {"defaults": {"ca_file": "ca.pem"}, "https": {"cert_file": "c.pem", "verify_incoming": true}},
        }))
        .expect("valid");

        assert_eq!(config.https.len(), 1);
        let tls = config.tls.expect("given");
        assert_eq!(
            (tls.cert_file, tls.verify_incoming),
            (PathBuf::from("c.pem"), true)
        );
    }

    #[test]
    fn the_page_is_served_unless_told_otherwise() {
        for (keys, served) in [
            (json!({}), true),
            (json!({"ui": false}), false),
            (json!({"ui_config": {"enabled": false}}), false),
            (json!({"ui": false, "ui_config": {"enabled": true}}), true),
        ] {
            assert_eq!(dev(&keys).expect("valid").ui, served, "{keys}");
        }
    }

    #[test]
    fn what_http_is_told_is_taken_over() {
        let config = dev(&json!({
            "session_ttl_min": "0s",
            "slow_operation_threshold": "250ms",
            "http_config": {
                "response_headers": {"X-A": "b"}, "block_endpoints": ["/v1/agent"],
                "allow_write_http_from": ["127.0.0.5/8", "::1/128"],
            },
            "default_query_time": "1s",
            "max_query_time": "2s",
            "check_output_max_size": 10,
            "limits": {"https_handshake_timeout": "7s", "http_max_conns_per_client": -1},
            "performance": {"leave_drain_time": "3s"},
        }))
        .expect("valid");

        assert_eq!(config.limits.session_ttl_min, limits::SESSION_TTL_MIN);
        assert_eq!(config.log.slow_after, Duration::from_millis(250));
        assert_eq!(config.response_headers["x-a"], "b");
        assert_eq!(config.block_endpoints, ["/v1/agent"]);
        assert_eq!(config.limits.https_handshake_timeout, Duration::from_secs(7));
        assert_eq!(config.limits.leave_drain_time, Duration::from_secs(3));
        assert_eq!(config.limits.http_max_conns_per_client, 0);
        assert_eq!(config.limits.default_query_time, Duration::from_secs(1));
        assert_eq!(config.limits.max_query_time, Duration::from_secs(2));
        assert_eq!(config.limits.check_output_max_size, 10);
        assert_eq!(config.allow_write_http_from.len(), 2);
    }

    #[test]
    fn larger_values_make_room_for_larger_transactions() {
        let config = dev(&json!({"limits": {"kv_max_value_size": 1_048_576}})).expect("valid");

        assert_eq!(config.limits.txn_max_req_len, 1_048_576);
    }

    #[test]
    fn the_old_names_of_tokens_are_understood() {
        let config = dev(&json!({"acl": {"enabled": true, "default_policy": "deny",
            "tokens": {"master": "root", "agent_master": "r"}}}))
        .expect("valid");

        assert_eq!(config.acl.initial_management.as_deref(), Some("root"));
        assert_eq!(config.acl.agent_recovery.as_deref(), Some("r"));
        assert!(!config.acl.default_allow);
    }
}
