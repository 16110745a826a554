//! `tls`: an authority and certificates as files, with Consul's names. Nothing here talks to a server.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lictor_peer::certs::{self, Authority, Pair, Request, Use};

use super::{Failure, Outcome, Ui};
use crate::args::tls::{CaArgs, CaCommand, CertArgs, CertCommand, TlsCommand};
use crate::client::os_error;

/// Files are made, and looked for, in `folder`.
pub(crate) fn run(command: TlsCommand, folder: &Path, ui: &mut Ui<'_>) -> Outcome {
    match command {
        TlsCommand::Ca(CaCommand::Create(args)) => create_authority(args, folder, ui),
        TlsCommand::Cert(CertCommand::Create(args)) => create_certificate(&args, folder, ui),
    }
}

fn create_authority(args: CaArgs, folder: &Path, ui: &mut Ui<'_>) -> Outcome {
    let mut permitted = Vec::new();
    if args.name_constraint == Some(true) {
        permitted = args.additional_name_constraint;
        permitted.extend([args.domain.clone(), "localhost".to_owned()]);
    }
    let wanted = Authority {
        common_name: &args.common_name,
        days: args.days,
        permitted_domains: &permitted,
    };
    let made = certs::create_authority(&wanted)
        .map_err(|error| Failure(format!("Error making the authority: {error}")))?;
    save(folder, &format!("{}-agent-ca", args.domain), &made, ui)
}

fn create_certificate(args: &CertArgs, folder: &Path, ui: &mut Ui<'_>) -> Outcome {
    let given = |switch: Option<bool>| switch == Some(true);
    let (purpose, role) = match (given(args.server), given(args.client), given(args.cli)) {
        (true, false, false) => (Use::Server, "server"),
        (false, true, false) => (Use::Client, "client"),
        (false, false, true) => (Use::Client, "cli"),
        _ => return Err(Failure("Please give one of -server, -client and -cli".to_owned())),
    };
    if args.node.is_some() && purpose != Use::Server {
        return Err(Failure("-node is for -server only".to_owned()));
    }
    let (dc, domain) = (&args.dc, &args.domain);
    let authority_file = |file: &Option<PathBuf>, end: &str| {
        file.clone()
            .unwrap_or_else(|| PathBuf::from(format!("{domain}-agent-{end}.pem")))
    };
    let (ca, key) = (
        authority_file(&args.ca, "ca"),
        authority_file(&args.key, "ca-key"),
    );
    if purpose == Use::Server {
        ui.line(
            "==> WARNING: Whoever has the key of a server certificate can be a server of the cluster\n    \
             and read and change everything. Leave it on no other machine than the server's, and\n    \
             keep it as well as the key of the authority.",
        )?;
    }
    let authority = Pair {
        certificate: read(folder, &ca, "CA")?,
        key: read(folder, &key, "CA key")?,
    };
    ui.line(format_args!("==> Using {} and {}", ca.display(), key.display()))?;

    let mut names = vec![format!("{role}.{dc}.{domain}")];
    names.extend(
        args.node
            .iter()
            .map(|node| format!("{node}.server.{dc}.{domain}")),
    );
    names.push("localhost".to_owned());
    names.extend_from_slice(&args.additional_dnsname);
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    addresses.extend_from_slice(&args.additional_ipaddress);
    let request = Request {
        purpose,
        names: &names,
        addresses: &addresses,
        days: args.days,
    };
    let made = certs::issue(&authority, &request)
        .map_err(|error| Failure(format!("Error issuing the certificate: {error}")))?;
    let free = |number: &u32| {
        let name = format!("{dc}-{role}-{domain}-{number}");
        let [certificate, key] = files(&name);
        !folder.join(certificate).exists() && !folder.join(key).exists()
    };
    let number = (0..u32::MAX).find(free).unwrap_or(u32::MAX);
    save(folder, &format!("{dc}-{role}-{domain}-{number}"), &made, ui)
}

fn read(folder: &Path, file: &Path, what: &str) -> Result<String, Failure> {
    std::fs::read_to_string(folder.join(file)).map_err(|error| {
        Failure(format!(
            "Error reading {what}: open {}: {}",
            file.display(),
            os_error(&error)
        ))
    })
}

/// The names of a certificate's file and of its key's.
fn files(name: &str) -> [String; 2] {
    [format!("{name}.pem"), format!("{name}-key.pem")]
}

/// Writes both files; neither may be there. Only their owner may read the key.
fn save(folder: &Path, name: &str, pair: &Pair, ui: &mut Ui<'_>) -> Outcome {
    let [certificate, key] = files(name);
    // Looked at first, so that nothing is written when one of the two cannot be.
    if let Some(there) = [&certificate, &key]
        .into_iter()
        .find(|file| folder.join(file).exists())
    {
        return Err(Failure(format!("{there} already exists.")));
    }
    for (file, text, mode) in [(&certificate, &pair.certificate, 0o644), (&key, &pair.key, 0o600)] {
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(folder.join(file))
            .and_then(|mut opened| opened.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Failure(format!("{file} already exists.")),
            _ => Failure(format!("Error writing {file}: {}", os_error(&error))),
        })?;
        ui.line(format_args!("==> Saved {file}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::{BufWriter, Cursor};
    use std::os::unix::fs::PermissionsExt as _;

    use lictor_peer::Security;

    use super::*;
    use crate::args::Command;

    /// Runs a command line in `folder`; its output, or its error.
    fn tls(folder: &Path, line: &str) -> Result<String, String> {
        let words = line.split(' ').map(OsString::from);
        let Command::Tls(command) = crate::parse(words).expect("a valid command line").command else {
            panic!("not a tls command: {line}");
        };
        let mut out = Vec::new();
        let mut ui = Ui {
            out: BufWriter::new(&mut out),
            err: &mut std::io::sink(),
            input: &mut Cursor::new(Vec::new()),
            env: &|_| None,
            interactive: false,
            definitions: None,
        };
        run(command, folder, &mut ui).map_err(|failure| failure.0)?;
        drop(ui);
        Ok(String::from_utf8(out).expect("text"))
    }

    fn servers(folder: &Path, name: &str, datacenter: &str) -> Result<Security, lictor_peer::SecurityError> {
        let read = |file: &str| std::fs::read(folder.join(file)).expect("a file that was made");
        let [certificate, key] = files(name);
        let (ca, certificate, key) = (read("lictor-agent-ca.pem"), read(&certificate), read(&key));
        Security::certificates(&ca, &certificate, &key, datacenter, "lictor")
    }

    #[test]
    fn what_is_made_is_what_servers_take() {
        let folder = tempfile::tempdir().expect("a folder");

        let ca = tls(folder.path(), "lictor tls ca create").expect("made");
        let first = tls(folder.path(), "lictor tls cert create -server").expect("issued");
        let line = "lictor tls cert create -server -dc=dc2 -node n1 -additional-ipaddress=10.0.0.1";
        let other = tls(folder.path(), line).expect("issued");

        assert_eq!(
            ca,
            "==> Saved lictor-agent-ca.pem\n==> Saved lictor-agent-ca-key.pem\n"
        );
        let end = "==> Using lictor-agent-ca.pem and lictor-agent-ca-key.pem\n\
                   ==> Saved dc1-server-lictor-0.pem\n==> Saved dc1-server-lictor-0-key.pem\n";
        assert!(
            first.starts_with("==> WARNING: ") && first.ends_with(end),
            "{first}"
        );
        assert!(
            other.ends_with("==> Saved dc2-server-lictor-0-key.pem\n"),
            "{other}"
        );
        assert!(servers(folder.path(), "dc1-server-lictor-0", "dc1").is_ok());
        assert!(servers(folder.path(), "dc2-server-lictor-0", "dc2").is_ok());
        assert!(servers(folder.path(), "dc1-server-lictor-0", "dc2").is_err());
    }

    #[test]
    fn a_clients_certificate_makes_no_server() {
        let folder = tempfile::tempdir().expect("a folder");
        tls(folder.path(), "lictor tls ca create").expect("made");

        let client = tls(folder.path(), "lictor tls cert create -client").expect("issued");
        tls(folder.path(), "lictor tls cert create -cli").expect("issued");

        assert!(client.starts_with("==> Using"), "{client}");
        for name in ["dc1-client-lictor-0", "dc1-cli-lictor-0"] {
            assert!(servers(folder.path(), name, "dc1").is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_keys_are_private() {
        let folder = tempfile::tempdir().expect("a folder");
        tls(folder.path(), "lictor tls ca create").expect("made");
        tls(folder.path(), "lictor tls cert create -server").expect("issued");

        let again = tls(folder.path(), "lictor tls ca create");
        let second = tls(folder.path(), "lictor tls cert create -server").expect("issued");

        assert_eq!(again, Err("lictor-agent-ca.pem already exists.".to_owned()));
        assert!(
            second.ends_with("==> Saved dc1-server-lictor-1-key.pem\n"),
            "{second}"
        );
        let key = folder.path().join("dc1-server-lictor-0-key.pem");
        let mode = std::fs::metadata(key).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }

    #[test]
    fn one_purpose_is_to_be_given() {
        let folder = tempfile::tempdir().expect("a folder");

        for line in ["", " -server -client", " -client -cli"] {
            let error = tls(folder.path(), &format!("lictor tls cert create{line}")).expect_err("no purpose");
            assert_eq!(error, "Please give one of -server, -client and -cli");
        }
        let error = tls(folder.path(), "lictor tls cert create -client -node=x").expect_err("no server");
        assert_eq!(error, "-node is for -server only");
    }

    #[test]
    fn a_missing_authority_is_named() {
        let folder = tempfile::tempdir().expect("a folder");

        let error = tls(folder.path(), "lictor tls cert create -server -domain=x").expect_err("no authority");

        assert_eq!(
            error,
            "Error reading CA: open x-agent-ca.pem: no such file or directory"
        );
    }
}
