//! The table of configuration keys: names, kinds, and whether Lictor acts on them.
//!
//! Files and flags are checked against this table before they are merged, so that a mistake is reported with the
//! file and the dotted name of the key. `docs/configuration.md` lists what is [`Use::Acted`] here; a test holds
//! the two together.

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// Text.
    Text,
    /// Text in Go's duration form, such as `1m30s`.
    Duration,
    /// A list of texts; one text stands for a list of one. Lists of several files are joined.
    Texts,
    /// A map of texts. Maps of several files are merged.
    TextMap,
    /// One object or a list of them, kept as they are under the given plural name. Lists of several files are
    /// joined.
    Definitions(&'static str),
    /// An object with keys of its own.
    Object(&'static [Key]),
    /// Not looked into.
    Any,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Lictor acts on it.
    Acted,
    /// It belongs to a part that Lictor does not have: accepted, and named in the log when it is set.
    Absent,
    /// It changes nothing here and is not worth a word in the log.
    Silent,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) usage: Use,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        usage: Use::Acted,
    }
}

const fn absent(name: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Any,
        usage: Use::Absent,
    }
}

const fn silent(name: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Any,
        usage: Use::Silent,
    }
}

use Kind::{Bool, Definitions, Duration, Int, Object, Text, TextMap, Texts};

/// The keys of the top level.
pub(crate) const ROOT: &[Key] = &[
    key("acl", Object(ACL)),
    key("addr", Texts),
    key("addresses", Object(ADDRESSES)),
    key("advertise_addr", Text),
    key("autopilot", Object(AUTOPILOT)),
    key("bind_addr", Text),
    key("bootstrap", Bool),
    key("bootstrap_expect", Int),
    key("ca_file", Text),
    key("cert_file", Text),
    key("check", Definitions("checks")),
    key("check_output_max_size", Int),
    key("checks", Definitions("checks")),
    key("client_addr", Text),
    key("cors", Texts),
    key("data_dir", Text),
    key("datacenter", Text),
    key("default_query_time", Duration),
    key("domain", Text),
    key("enable_local_script_checks", Bool),
    key("enable_script_checks", Bool),
    key("encrypt", Text),
    key("http_config", Object(HTTP_CONFIG)),
    key("key_file", Text),
    key("leave_on_terminate", Bool),
    key("limits", Object(LIMITS)),
    key("log_file", Text),
    key("log_json", Bool),
    key("log_level", Text),
    key("max_query_time", Duration),
    key("node_id", Text),
    key("node_meta", TextMap),
    key("node_name", Text),
    key("performance", Object(PERFORMANCE)),
    key("pid_file", Text),
    key("ports", Object(PORTS)),
    key("primary_datacenter", Text),
    key("retry_interval", Duration),
    key("retry_join", Texts),
    key("retry_max", Int),
    key("server", Bool),
    key("service", Definitions("services")),
    key("services", Definitions("services")),
    key("session_ttl_min", Duration),
    key("skip_leave_on_interrupt", Bool),
    key("slow_operation_threshold", Duration),
    key("start_join", Texts),
    key("tls", Object(TLS)),
    key("ui", Bool),
    key("ui_config", Object(UI_CONFIG)),
    key("unix_sockets", Object(UNIX_SOCKETS)),
    key("verify_incoming", Bool),
    key("verify_incoming_https", Bool),
    key("verify_incoming_rpc", Bool),
    key("verify_outgoing", Bool),
    key("verify_server_hostname", Bool),
    absent("acl_agent_master_token"),
    absent("acl_agent_token"),
    absent("acl_datacenter"),
    absent("acl_default_policy"),
    absent("acl_down_policy"),
    absent("acl_enable_key_list_policy"),
    absent("acl_enforce_version_8"),
    absent("acl_master_token"),
    absent("acl_replication_token"),
    absent("acl_token"),
    absent("acl_ttl"),
    absent("advertise_addr_ipv4"),
    absent("advertise_addr_ipv6"),
    absent("advertise_addr_wan"),
    absent("advertise_addr_wan_ipv4"),
    absent("advertise_addr_wan_ipv6"),
    absent("advertise_reconnect_timeout"),
    absent("alt_domain"),
    absent("audit"),
    absent("auto_config"),
    absent("auto_encrypt"),
    absent("auto_reload_config"),
    absent("ca_path"),
    absent("cache"),
    absent("check_update_interval"),
    absent("cloud"),
    absent("config_entries"),
    absent("connect"),
    absent("default_intention_policy"),
    absent("disable_coordinates"),
    absent("disable_http_unprintable_char_filter"),
    absent("disable_remote_exec"),
    absent("discard_check_output"),
    absent("discovery_max_stale"),
    absent("dns_config"),
    absent("enable_acl_replication"),
    absent("enable_agent_tls_for_checks"),
    absent("enable_central_service_config"),
    absent("enable_debug"),
    absent("enable_syslog"),
    absent("encrypt_verify_incoming"),
    absent("encrypt_verify_outgoing"),
    absent("experiments"),
    absent("gossip_lan"),
    absent("gossip_wan"),
    absent("license_path"),
    absent("locality"),
    absent("log_rotate_bytes"),
    absent("log_rotate_duration"),
    absent("log_rotate_max_files"),
    absent("non_voting_server"),
    absent("partition"),
    absent("peering"),
    absent("primary_gateways"),
    absent("primary_gateways_interval"),
    absent("protocol"),
    absent("raft_boltdb"),
    absent("raft_logstore"),
    absent("raft_protocol"),
    absent("raft_snapshot_interval"),
    absent("raft_snapshot_threshold"),
    absent("raft_trailing_logs"),
    absent("read_replica"),
    absent("reap"),
    absent("reconnect_timeout"),
    absent("reconnect_timeout_wan"),
    absent("recursors"),
    absent("rejoin_after_leave"),
    absent("retry_interval_wan"),
    absent("retry_join_wan"),
    absent("retry_max_wan"),
    absent("rpc"),
    absent("segment"),
    absent("segments"),
    absent("serf_lan"),
    absent("serf_lan_allowed_cidrs"),
    absent("serf_wan"),
    absent("serf_wan_allowed_cidrs"),
    absent("server_name"),
    absent("snapshot_agent"),
    absent("start_join_wan"),
    absent("syslog_facility"),
    absent("telemetry"),
    absent("tls_cipher_suites"),
    absent("tls_min_version"),
    absent("tls_prefer_server_cipher_suites"),
    absent("translate_wan_addrs"),
    absent("ui_content_path"),
    absent("ui_dir"),
    absent("use_streaming_backend"),
    absent("watches"),
    absent("xds"),
    // Of no effect by their nature: Consul's update check, host id and the mark of a configuration's age.
    silent("disable_anonymous_signature"),
    silent("disable_host_node_id"),
    silent("disable_keyring_file"),
    silent("disable_update_check"),
    silent("reporting"),
    silent("revision"),
    silent("version"),
    silent("version_metadata"),
    silent("version_prerelease"),
];

const ACL: &[Key] = &[
    key("default_policy", Text),
    key("down_policy", Text),
    key("enabled", Bool),
    key("policy_ttl", Duration),
    key("role_ttl", Duration),
    key("token_ttl", Duration),
    key("tokens", Object(ACL_TOKENS)),
    absent("enable_key_list_policy"),
    absent("enable_token_persistence"),
    absent("enable_token_replication"),
    absent("msp_disable_bootstrap"),
];

const ACL_TOKENS: &[Key] = &[
    key("agent", Text),
    key("agent_master", Text),
    key("agent_recovery", Text),
    key("default", Text),
    key("initial_management", Text),
    key("master", Text),
    absent("config_file_service_registration"),
    absent("dns"),
    absent("managed_service_provider"),
    absent("replication"),
];

const ADDRESSES: &[Key] = &[
    key("http", Text),
    key("https", Text),
    absent("dns"),
    absent("grpc"),
    absent("grpc_tls"),
];

const AUTOPILOT: &[Key] = &[
    key("cleanup_dead_servers", Bool),
    key("last_contact_threshold", Duration),
    key("max_trailing_logs", Int),
    key("min_quorum", Int),
    key("server_stabilization_time", Duration),
    absent("disable_upgrade_migration"),
    absent("redundancy_zone_tag"),
    absent("upgrade_version_tag"),
];

const HTTP_CONFIG: &[Key] = &[
    key("allow_write_http_from", Texts),
    key("block_endpoints", Texts),
    key("max_header_bytes", Int),
    key("response_headers", TextMap),
    absent("use_cache"),
];

const LIMITS: &[Key] = &[
    key("http_max_conns_per_client", Int),
    key("https_handshake_timeout", Duration),
    key("kv_max_value_size", Int),
    key("txn_max_ops", Int),
    key("txn_max_req_len", Int),
    absent("request_limits"),
    absent("rpc_client_timeout"),
    absent("rpc_handshake_timeout"),
    absent("rpc_max_burst"),
    absent("rpc_max_conns_per_client"),
    absent("rpc_rate"),
];

const PERFORMANCE: &[Key] = &[
    key("leave_drain_time", Duration),
    key("raft_multiplier", Int),
    absent("grpc_keepalive_interval"),
    absent("grpc_keepalive_timeout"),
    absent("rpc_hold_timeout"),
];

const PORTS: &[Key] = &[
    key("http", Int),
    key("https", Int),
    key("serf_lan", Int),
    key("serf_wan", Int),
    key("server", Int),
    absent("dns"),
    absent("expose_max_port"),
    absent("expose_min_port"),
    absent("grpc"),
    absent("grpc_tls"),
    absent("sidecar_max_port"),
    absent("sidecar_min_port"),
];

const TLS: &[Key] = &[
    key("defaults", Object(TLS_LISTENER)),
    key("https", Object(TLS_LISTENER)),
    key("internal_rpc", Object(TLS_LISTENER)),
    absent("grpc"),
];

const TLS_LISTENER: &[Key] = &[
    key("ca_file", Text),
    key("cert_file", Text),
    key("key_file", Text),
    key("verify_incoming", Bool),
    key("verify_outgoing", Bool),
    key("verify_server_hostname", Bool),
    absent("ca_path"),
    absent("tls_cipher_suites"),
    absent("tls_min_version"),
];

const UI_CONFIG: &[Key] = &[
    key("enabled", Bool),
    absent("content_path"),
    absent("dashboard_url_templates"),
    absent("dir"),
    absent("metrics_provider"),
    absent("metrics_provider_files"),
    absent("metrics_provider_options_json"),
    absent("metrics_proxy"),
];

const UNIX_SOCKETS: &[Key] = &[key("mode", Text), absent("group"), absent("user")];

/// Names close enough to a wrong one to be what was meant.
pub(crate) fn closest(keys: &[Key], wrong: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.85;
    keys.iter()
        .map(|key| (strsim::jaro_winkler(key.name, wrong), key.name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dotted names of all keys that Lictor acts on.
    fn acted(keys: &'static [Key], prefix: &str, out: &mut Vec<String>) {
        for key in keys.iter().filter(|key| key.usage == Use::Acted) {
            let name = format!("{prefix}{}", key.name);
            match key.kind {
                Kind::Object(inner) => acted(inner, &format!("{name}."), out),
                _ => out.push(name),
            }
        }
    }

    #[test]
    fn every_key_that_is_acted_on_is_documented() {
        let page = include_str!("../../../../docs/configuration.md");
        let mut names = Vec::new();
        acted(ROOT, "", &mut names);

        let missing: Vec<_> = names
            .iter()
            .filter(|name| !page.contains(&format!("`{name}`")))
            .collect();

        assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
    }

    #[test]
    fn no_key_is_listed_twice() {
        let mut names: Vec<_> = ROOT.iter().map(|key| key.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();

        assert_eq!(names.len(), before);
    }

    #[test]
    fn a_slip_of_the_finger_is_met_with_the_right_name() {
        assert_eq!(closest(ROOT, "datacentre"), Some("datacenter"));
        assert_eq!(closest(ROOT, "quux"), None);
    }
}
