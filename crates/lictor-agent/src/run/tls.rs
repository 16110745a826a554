//! TLS to checked servers: the system's certificate authorities, or on request none at all.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where Linux systems keep their certificate authorities.
const ROOT_FILES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// What is spoken over a connection, as the handshake says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, or something that has no name.
    Unnamed,
    /// HTTP/2.
    Http2,
}

/// Shakes hands as a client of the server of this name.
pub(super) async fn connect(
    stream: TcpStream,
    name: &str,
    skip_verify: bool,
    protocol: Protocol,
) -> Result<TlsStream<TcpStream>, String> {
    let name =
        ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(|error| error.to_string())?;
    let config = config(skip_verify, protocol)?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| format!("tls: {error}"))
}

/// The settings, made once for each of the four ways.
fn config(skip_verify: bool, protocol: Protocol) -> Result<Arc<ClientConfig>, String> {
    static CONFIGS: [OnceLock<Result<Arc<ClientConfig>, String>>; 4] = [const { OnceLock::new() }; 4];
    let way = usize::from(skip_verify) + 2 * usize::from(protocol == Protocol::Http2);
    CONFIGS[way].get_or_init(|| make(skip_verify, protocol)).clone()
}

fn make(skip_verify: bool, protocol: Protocol) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = if skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth()
    } else {
        builder
            .with_root_certificates(system_roots())
            .with_no_client_auth()
    };
    if protocol == Protocol::Http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(Arc::new(config))
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let chosen = std::env::var("SSL_CERT_FILE").ok();
    let files = chosen.as_deref().into_iter().chain(ROOT_FILES);
    let found = files
        .into_iter()
        .find_map(|path| CertificateDer::pem_file_iter(path).ok());
    roots.add_parsable_certificates(found.into_iter().flatten().filter_map(Result::ok));
    roots
}

/// Takes any certificate, for checks that say so; signatures are verified all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
