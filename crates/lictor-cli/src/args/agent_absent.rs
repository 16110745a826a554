//! Flags of Consul's agent for parts that Lictor does not have. They are accepted, and the log names their keys.

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use serde_json::{Map, Value, json};

/// What a flag is followed by.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    Number,
    Text,
    /// Text, and the flag may be repeated.
    Texts,
}

use Takes::{Nothing, Number, Text, Texts};

/// Each flag with the configuration key that says the same.
const FLAGS: &[(&str, &str, Takes)] = &[
    ("advertise-wan", "advertise_addr_wan", Text),
    ("alt-domain", "alt_domain", Text),
    ("auto-reload-config", "auto_reload_config", Nothing),
    ("disable-host-node-id", "disable_host_node_id", Nothing),
    ("disable-keyring-file", "disable_keyring_file", Nothing),
    ("join-wan", "start_join_wan", Texts),
    ("log-rotate-bytes", "log_rotate_bytes", Number),
    ("log-rotate-duration", "log_rotate_duration", Text),
    ("log-rotate-max-files", "log_rotate_max_files", Number),
    ("non-voting-server", "non_voting_server", Nothing),
    ("primary-gateway", "primary_gateways", Texts),
    ("protocol", "protocol", Number),
    ("raft-protocol", "raft_protocol", Number),
    ("read-replica", "read_replica", Nothing),
    ("recursor", "recursors", Texts),
    ("rejoin", "rejoin_after_leave", Nothing),
    ("retry-interval-wan", "retry_interval_wan", Text),
    ("retry-join-wan", "retry_join_wan", Texts),
    ("retry-max-wan", "retry_max_wan", Number),
    ("segment", "segment", Text),
    ("serf-lan-allowed-cidrs", "serf_lan_allowed_cidrs", Texts),
    ("serf-lan-bind", "serf_lan", Text),
    ("serf-wan-allowed-cidrs", "serf_wan_allowed_cidrs", Texts),
    ("serf-wan-bind", "serf_wan", Text),
    ("syslog", "enable_syslog", Nothing),
    ("ui-content-path", "ui_content_path", Text),
    ("ui-dir", "ui_dir", Text),
];

/// The flags for the parser.
pub(super) fn args() -> impl Iterator<Item = Arg> {
    FLAGS.iter().map(|&(flag, _, takes)| {
        let arg = Arg::new(flag).long(flag).help("Accepted, and without effect");
        match takes {
            Nothing => arg.value_parser(value_parser!(bool)),
            Number => arg
                .value_parser(value_parser!(i64))
                .allow_negative_numbers(true)
                .value_name("NUMBER"),
            Text => arg.value_name("TEXT"),
            Texts => arg.value_name("TEXT").action(ArgAction::Append),
        }
    })
}

/// Those that were given, under the names of their keys.
pub(super) fn given(matches: &ArgMatches) -> Map<String, Value> {
    let value = |&(flag, key, takes): &(&str, &str, Takes)| {
        let value = match takes {
            Nothing => json!(matches.get_one::<bool>(flag)?),
            Number => json!(matches.get_one::<i64>(flag)?),
            Text => json!(matches.get_one::<String>(flag)?),
            Texts => json!(matches.get_many::<String>(flag)?.collect::<Vec<_>>()),
        };
        Some((key.to_owned(), value))
    };
    FLAGS.iter().filter_map(value).collect()
}
