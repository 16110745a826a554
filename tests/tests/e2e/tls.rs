//! The HTTPS listener, with and without client certificates.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use lictor_tests::{Options, Response, Server, exchange, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// A certificate and its key, as PEM.
struct Identity {
    cert: String,
    key: String,
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "server.dc1.consul".to_owned(),
        ])?;
        let cert = params.signed_by(&key, &self.0)?;
        Ok(Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}

struct Secure {
    server: Server,
    port: u16,
    authority: Authority,
    _files: TempDir,
}

fn start(verify_incoming: bool) -> Result<Secure> {
    let authority = Authority::new()?;
    let identity = authority.issue()?;
    let files = tempfile::tempdir()?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = files.path().join(name);
        fs::write(&path, text)?;
        Ok(Path::to_str(&path).context("odd path")?.to_owned())
    };
    let port = free_port()?;
    let hcl = format!(
        "ports {{\n https = {port}\n}}\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\nverify_incoming = {verify_incoming}\n",
        write("ca.pem", &authority.pem())?,
        write("cert.pem", &identity.cert)?,
        write("key.pem", &identity.key)?,
    );
    let server = Server::with(Options {
        hcl,
        ..Options::default()
    })?;
    Ok(Secure {
        server,
        port,
        authority,
        _files: files,
    })
}

impl Secure {
    /// A GET of a client that trusts the server's authority, and shows this certificate if any.
    fn get(&self, target: &str, own: Option<&Identity>) -> Result<Response> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match own {
            Some(identity) => config.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.cert.as_bytes())?],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
            )?,
            None => config.with_no_client_auth(),
        };
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        exchange(&mut StreamOwned::new(connection, socket), request.as_bytes())
    }
}

#[test]
fn https_serves_what_http_serves() -> Result<()> {
    let secure = start(false)?;
    secure.server.put("/v1/kv/k", "v")?;

    let response = secure.get("/v1/kv/k?raw", None)?;

    assert_eq!((response.status, response.text().as_str()), (200, "v"));
    assert_eq!(response.index()?, secure.server.get("/v1/kv/k")?.index()?);
    Ok(())
}

#[test]
fn with_verify_incoming_only_certificates_of_the_authority_get_in() -> Result<()> {
    let secure = start(true)?;
    secure.server.put("/v1/kv/k", "v")?;

    let known = secure.get("/v1/kv/k?raw", Some(&secure.authority.issue()?))?;
    assert_eq!(known.text(), "v");
    assert!(secure.get("/v1/kv/k?raw", None).is_err(), "no certificate");
    assert!(
        secure
            .get("/v1/kv/k?raw", Some(&Authority::new()?.issue()?))
            .is_err(),
        "of another authority"
    );

    assert_eq!(
        secure
            .get("/v1/kv/k?raw", Some(&secure.authority.issue()?))?
            .text(),
        "v",
        "it still serves"
    );
    Ok(())
}

#[test]
fn plain_http_on_the_https_port_is_no_way_in() -> Result<()> {
    let secure = start(true)?;

    let mut socket = TcpStream::connect(("127.0.0.1", secure.port))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let answer = exchange(&mut socket, b"GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n");

    assert!(answer.is_err() || answer.is_ok_and(|response| response.status == 400));
    Ok(())
}
