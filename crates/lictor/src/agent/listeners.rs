//! Binds the sockets that HTTP is served on.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lictor_cli::config::{Listen, RuntimeConfig, TlsFiles};
use lictor_http::Listener;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, UnixListener};

/// Binds all sockets of the configuration.
///
/// # Errors
/// One line for the operator: a port that is taken, a certificate that cannot be read.
pub(super) async fn bind(config: &RuntimeConfig) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for listen in &config.http {
        listeners.push(match listen {
            Listen::Tcp(address) => Listener::Plain(bind_tcp(address).await?),
            Listen::Unix(path) => Listener::Unix(bind_unix(path, config.unix_socket_mode)?),
        });
    }
    if let Some(files) = &config.tls
        && !config.https.is_empty()
    {
        let tls = Arc::new(tls(files)?);
        for listen in &config.https {
            match listen {
                Listen::Tcp(address) => {
                    listeners.push(Listener::Tls(bind_tcp(address).await?, Arc::clone(&tls)));
                }
                Listen::Unix(path) => bail!("addresses.https: {} is no TCP address", path.display()),
            }
        }
    }
    Ok(listeners)
}

async fn bind_tcp(address: &std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; choose another address or port"))
}

/// A socket that a process which is gone has left behind is replaced; any other file is not.
fn bind_unix(path: &Path, mode: Option<u32>) -> anyhow::Result<UnixListener> {
    let what = || format!("cannot listen on {}", path.display());
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                bail!("cannot listen on {}: another process does", path.display());
            }
            fs::remove_file(path).with_context(what)?;
        }
        Ok(_) => bail!("cannot listen on {}: it exists and is no socket", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(what),
    }
    let listener = UnixListener::bind(path).with_context(what)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(what)?;
    }
    Ok(listener)
}

fn tls(files: &TlsFiles) -> anyhow::Result<rustls::ServerConfig> {
    let chain = certificates(&files.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .with_context(|| format!("key_file: cannot read {}", files.key_file.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("TLS")?;
    let builder = match &files.ca_file {
        None => builder.with_no_client_auth(),
        Some(ca_file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca_file)? {
                roots
                    .add(certificate)
                    .with_context(|| format!("ca_file: {}", ca_file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.verify_incoming {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier
                .build()
                .with_context(|| format!("ca_file: {}", ca_file.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("cert_file: {} and its key", files.cert_file.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read().with_context(|| format!("cannot read certificates from {}", path.display()))?;
    if found.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(found)
}
