//! The keys as they come out of the merge, before defaults and validation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// All keys of the table that Lictor acts on. Kinds were checked before.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Merged {
    pub(crate) acl: MergedAcl,
    pub(crate) addr: Vec<String>,
    pub(crate) addresses: MergedAddresses,
    pub(crate) advertise_addr: Option<String>,
    pub(crate) autopilot: MergedAutopilot,
    pub(crate) bind_addr: Option<String>,
    pub(crate) bootstrap: Option<bool>,
    pub(crate) bootstrap_expect: Option<i64>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) check_output_max_size: Option<i64>,
    pub(crate) checks: Vec<Value>,
    pub(crate) client_addr: Option<String>,
    pub(crate) cors: Vec<String>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) datacenter: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) default_query_time: Option<String>,
    pub(crate) enable_local_script_checks: Option<bool>,
    pub(crate) enable_script_checks: Option<bool>,
    pub(crate) encrypt: Option<String>,
    pub(crate) http_config: MergedHttp,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) leave_on_terminate: Option<bool>,
    pub(crate) limits: MergedLimits,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) log_json: Option<bool>,
    pub(crate) log_level: Option<String>,
    pub(crate) max_query_time: Option<String>,
    pub(crate) node_id: Option<String>,
    pub(crate) node_meta: BTreeMap<String, String>,
    pub(crate) node_name: Option<String>,
    pub(crate) performance: MergedPerformance,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) ports: MergedPorts,
    pub(crate) primary_datacenter: Option<String>,
    pub(crate) retry_interval: Option<String>,
    pub(crate) retry_join: Vec<String>,
    pub(crate) retry_max: Option<i64>,
    pub(crate) server: Option<bool>,
    pub(crate) services: Vec<Value>,
    pub(crate) session_ttl_min: Option<String>,
    pub(crate) skip_leave_on_interrupt: Option<bool>,
    pub(crate) slow_operation_threshold: Option<String>,
    pub(crate) start_join: Vec<String>,
    pub(crate) tls: MergedTls,
    pub(crate) ui: Option<bool>,
    pub(crate) ui_config: MergedUi,
    pub(crate) unix_sockets: MergedUnixSockets,
    pub(crate) verify_incoming: Option<bool>,
    pub(crate) verify_incoming_https: Option<bool>,
    pub(crate) verify_incoming_rpc: Option<bool>,
    pub(crate) verify_outgoing: Option<bool>,
    pub(crate) verify_server_hostname: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedAcl {
    pub(crate) default_policy: Option<String>,
    pub(crate) down_policy: Option<String>,
    pub(crate) enabled: Option<bool>,
    pub(crate) policy_ttl: Option<String>,
    pub(crate) role_ttl: Option<String>,
    pub(crate) token_ttl: Option<String>,
    pub(crate) tokens: MergedTokens,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedTokens {
    pub(crate) agent: Option<String>,
    pub(crate) agent_master: Option<String>,
    pub(crate) agent_recovery: Option<String>,
    pub(crate) default: Option<String>,
    pub(crate) initial_management: Option<String>,
    pub(crate) master: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedAddresses {
    pub(crate) http: Option<String>,
    pub(crate) https: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedAutopilot {
    pub(crate) cleanup_dead_servers: Option<bool>,
    pub(crate) last_contact_threshold: Option<String>,
    pub(crate) max_trailing_logs: Option<i64>,
    pub(crate) min_quorum: Option<i64>,
    pub(crate) server_stabilization_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedHttp {
    pub(crate) allow_write_http_from: Vec<String>,
    pub(crate) block_endpoints: Vec<String>,
    pub(crate) max_header_bytes: Option<i64>,
    pub(crate) response_headers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedLimits {
    pub(crate) http_max_conns_per_client: Option<i64>,
    pub(crate) https_handshake_timeout: Option<String>,
    pub(crate) kv_max_value_size: Option<i64>,
    pub(crate) txn_max_ops: Option<i64>,
    pub(crate) txn_max_req_len: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedPerformance {
    pub(crate) leave_drain_time: Option<String>,
    pub(crate) raft_multiplier: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedPorts {
    pub(crate) http: Option<i64>,
    pub(crate) https: Option<i64>,
    pub(crate) serf_lan: Option<i64>,
    pub(crate) serf_wan: Option<i64>,
    pub(crate) server: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedTls {
    pub(crate) defaults: MergedTlsListener,
    pub(crate) https: MergedTlsListener,
    pub(crate) internal_rpc: MergedTlsListener,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedTlsListener {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) verify_incoming: Option<bool>,
    pub(crate) verify_outgoing: Option<bool>,
    pub(crate) verify_server_hostname: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedUnixSockets {
    pub(crate) mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MergedUi {
    pub(crate) enabled: Option<bool>,
}
