//! Certificates: of the HTTPS listener, and between servers.
//!
//! Both take their files from their own section, what that leaves out from `tls.defaults`, and the rest from the older
//! names at the top level.

use std::path::PathBuf;

use super::merged::{Merged, MergedTlsListener};
use super::resolve::{Result, invalid};
use super::runtime::{PeerTls, TlsFiles};

/// What the certificates of `lictor tls` are for unless they are told otherwise.
const DOMAIN: &str = "lictor";

/// The files of one section.
struct Files {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Files {
    fn of(section: &MergedTlsListener, raw: &Merged) -> Self {
        let defaults = &raw.tls.defaults;
        let first = |files: [&Option<PathBuf>; 3]| {
            let mut given = files.into_iter().flatten();
            given.find(|file| !file.as_os_str().is_empty()).cloned()
        };
        Self {
            ca: first([&section.ca_file, &defaults.ca_file, &raw.ca_file]),
            cert: first([&section.cert_file, &defaults.cert_file, &raw.cert_file]),
            key: first([&section.key_file, &defaults.key_file, &raw.key_file]),
        }
    }
}

/// The HTTPS listener's, if there is a certificate.
pub(super) fn https(raw: &Merged) -> Result<Option<TlsFiles>> {
    let section = &raw.tls.https;
    let files = Files::of(section, raw);
    let verify_incoming = section
        .verify_incoming
        .or(raw.tls.defaults.verify_incoming)
        .or(raw.verify_incoming_https)
        .or(raw.verify_incoming)
        .unwrap_or(false);
    match (files.cert, files.key) {
        (Some(cert_file), Some(key_file)) => {
            if verify_incoming && files.ca.is_none() {
                return invalid(
                    "verify_incoming needs ca_file, the authorities that clients' certificates come from",
                );
            }
            Ok(Some(TlsFiles {
                cert_file,
                key_file,
                ca_file: files.ca,
                verify_incoming,
            }))
        }
        // A key alone proves nothing; Consul overlooks it as well.
        (None, _) => Ok(None),
        (Some(_), None) => invalid("cert_file is given without key_file"),
    }
}

/// Those between servers, if any kind of verification is asked for. There is only all of it: both sides show a
/// certificate, and those of servers must have a server's name. So a client agent needs a certificate too, which Consul's
/// may leave out or fetch from a server.
pub(super) fn between_servers(raw: &Merged, server: bool) -> Result<Option<PeerTls>> {
    let (section, defaults) = (&raw.tls.internal_rpc, &raw.tls.defaults);
    let asked = [
        // The general `verify_incoming` is for clients: their certificates need not have the names of servers.
        section.verify_incoming.or(raw.verify_incoming_rpc),
        section
            .verify_outgoing
            .or(defaults.verify_outgoing)
            .or(raw.verify_outgoing),
        section
            .verify_server_hostname
            .or(defaults.verify_server_hostname)
            .or(raw.verify_server_hostname),
    ];
    if !asked.contains(&Some(true)) {
        return Ok(None);
    }
    let files = Files::of(section, raw);
    let (Some(ca_file), Some(cert_file), Some(key_file)) = (files.ca, files.cert, files.key) else {
        if !server {
            return invalid(
                "verifying servers (verify_outgoing, verify_server_hostname) needs ca_file, cert_file and key_file of a \
                 client agent too: servers admit nobody without a certificate, and give none out (auto_encrypt); make \
                 one with \"lictor tls cert create -client\"",
            );
        }
        return invalid(
            "verifying other servers (verify_incoming_rpc, verify_outgoing, verify_server_hostname) needs ca_file, \
             cert_file and key_file",
        );
    };
    let domain = raw.domain.as_deref().unwrap_or(DOMAIN).trim_end_matches('.');
    Ok(Some(PeerTls {
        ca_file,
        cert_file,
        key_file,
        domain: domain.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn merged(value: Value) -> Merged {
        serde_json::from_value(value).expect("valid")
    }

    #[test]
    fn servers_verify_each_other_when_any_verification_is_asked_for() {
        let files = json!({"ca_file": "ca.pem", "cert_file": "c.pem", "key_file": "k.pem"});
        for (key, value) in [
            ("verify_incoming_rpc", json!(true)),
            ("verify_outgoing", json!(true)),
            ("verify_server_hostname", json!(true)),
            ("tls", json!({"internal_rpc": {"verify_server_hostname": true}})),
            ("tls", json!({"defaults": {"verify_outgoing": true}})),
        ] {
            let mut given = files.clone();
            given[key] = value;

            let tls = between_servers(&merged(given), true).expect("valid");

            assert_eq!(tls.map(|tls| tls.domain).as_deref(), Some("lictor"), "{key}");
        }
        let mut clients_alone = files.clone();
        clients_alone["verify_incoming"] = json!(true);
        for open in [files, clients_alone] {
            assert_eq!(between_servers(&merged(open), true).expect("valid"), None);
        }
    }

    #[test]
    fn the_files_between_servers_may_be_others_than_those_of_https() {
        let raw = merged(json!({
            "domain": "example.", "key_file": "old.key",
            "tls": {
                "defaults": {"ca_file": "ca.pem", "cert_file": "c.pem", "verify_incoming": true},
                "internal_rpc": {"cert_file": "server.pem", "verify_incoming": true},
                "https": {"verify_incoming": false},
            },
        }));

        let tls = between_servers(&raw, true).expect("valid").expect("asked for");

        assert_eq!(tls.ca_file, PathBuf::from("ca.pem"));
        assert_eq!(tls.cert_file, PathBuf::from("server.pem"));
        assert_eq!(tls.key_file, PathBuf::from("old.key"));
        assert_eq!(tls.domain, "example");
        let https = https(&raw).expect("valid").expect("there is a certificate");
        assert_eq!(
            (https.cert_file, https.verify_incoming),
            (PathBuf::from("c.pem"), false)
        );
    }

    #[test]
    fn verification_between_servers_needs_all_files() {
        let raw = merged(json!({"verify_outgoing": true, "ca_file": "ca.pem"}));

        let error = between_servers(&raw, true).expect_err("files are missing");

        assert!(
            error
                .to_string()
                .contains("needs ca_file, cert_file and key_file"),
            "{error}"
        );
    }

    #[test]
    fn a_client_agent_is_told_to_bring_a_certificate_of_its_own() {
        let raw = merged(json!({
            "tls": {
                "defaults": {"ca_file": "ca.pem", "verify_incoming": true, "verify_outgoing": true},
                "internal_rpc": {"verify_server_hostname": true},
            },
        }));

        let error = between_servers(&raw, false)
            .expect_err("files are missing")
            .to_string();

        assert!(error.contains("of a client agent too"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_key_without_a_certificate_is_overlooked() {
        let raw = merged(json!({"key_file": "k.pem"}));

        assert_eq!(https(&raw).expect("valid"), None);
    }
}
