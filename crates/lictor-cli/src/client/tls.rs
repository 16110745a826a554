//! TLS towards the server.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ClientError;
use super::endpoint::TlsSettings;

/// Builds the settings into what rustls takes.
///
/// # Errors
/// When a file cannot be read or does not hold what it should.
pub(crate) fn config(settings: &TlsSettings) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Setup(error.to_string()))?;
    let builder = if settings.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(roots(settings)?)
    };
    match (&settings.client_cert, &settings.client_key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|error| ClientError::Setup(format!("{}: {error}", cert.display())))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(ClientError::Setup(
            "a client certificate and its key go together: give both".to_owned(),
        )),
    }
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, ClientError> {
    let mut store = RootCertStore::empty();
    let mut files: Vec<_> = settings.ca_file.iter().cloned().collect();
    if let Some(folder) = &settings.ca_path {
        let unreadable = |error| ClientError::Setup(format!("cannot read {}: {error}", folder.display()));
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            files.push(entry.map_err(unreadable)?.path());
        }
    }
    if files.is_empty() {
        // Certificates of the system that cannot be read are left out, as every client does.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    }
    for file in files {
        for certificate in certificates(&file)? {
            store
                .add(certificate)
                .map_err(|error| ClientError::Setup(format!("{}: {error}", file.display())))?;
        }
    }
    Ok(store)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(file, &error))
}

fn unusable(file: &Path, error: &rustls::pki_types::pem::Error) -> ClientError {
    ClientError::Setup(format!("cannot use {}: {error}", file.display()))
}

/// Takes any certificate; only when the operator said so with `CONSUL_HTTP_SSL_VERIFY=false`. Signatures are still
/// checked, so that the session is with whoever holds the certificate's key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::client::endpoint::{Address, Endpoint};
    use crate::client::{Call, Client};

    /// A certificate for `localhost` that vouches for itself, and its PEM file.
    fn certificate(folder: &TempDir) -> (rustls::ServerConfig, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, made.cert.pem()).expect("writable");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("key and certificate belong together");
        (config, file)
    }

    /// Asks a TLS server that answers one request; the answer's body, or the error's text.
    fn ask(server: rustls::ServerConfig, settings: TlsSettings) -> Result<String, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.expect("a client");
                // A client that does not trust the certificate breaks off here.
                let Ok(mut stream) = TlsAcceptor::from(Arc::new(server)).accept(stream).await else {
                    return;
                };
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.expect("a request") > 0);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
                    .await
                    .expect("a reader");
            });
            let address = Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port,
                tls: true,
            };
            let (base_path, token, datacenter) = (String::new(), None, None);
            let endpoint = Endpoint {
                address,
                base_path,
                token,
                basic_auth: None,
                datacenter,
                namespace: None,
                partition: None,
                stale: false,
                tls: settings,
                warnings: Vec::new(),
            };
            let mut client = Client::new(endpoint).map_err(|error| error.to_string())?;
            let answer = client
                .send(Call::put("kv/a", "b"))
                .await
                .map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&answer.body).into_owned())
        })
    }

    #[test]
    fn a_server_is_trusted_through_a_file_or_a_folder_of_authorities() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (server, ca_file) = certificate(&folder);
        let name = Some("localhost".to_owned());

        let by_file = TlsSettings {
            ca_file: Some(ca_file),
            server_name: name.clone(),
            ..TlsSettings::default()
        };
        assert_eq!(ask(server.clone(), by_file), Ok("true".to_owned()));
        let ca_path = Some(folder.path().to_owned());
        let by_folder = TlsSettings {
            ca_path,
            server_name: name,
            ..TlsSettings::default()
        };
        assert_eq!(ask(server, by_folder), Ok("true".to_owned()));
    }

    #[test]
    fn a_wrong_name_or_an_unknown_authority_is_refused_unless_verification_is_off() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (server, ca_file) = certificate(&folder);

        let wrong_name = TlsSettings {
            ca_file: Some(ca_file),
            ..TlsSettings::default()
        };
        assert!(
            ask(server.clone(), wrong_name)
                .expect_err("127.0.0.1 is not localhost")
                .contains("tls: ")
        );
        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        let (_, other) = certificate(&elsewhere);
        assert!(
            ask(
                server.clone(),
                TlsSettings {
                    ca_file: Some(other),
                    ..TlsSettings::default()
                }
            )
            .is_err()
        );
        let unverified = TlsSettings {
            skip_verify: true,
            ..TlsSettings::default()
        };
        assert_eq!(ask(server, unverified), Ok("true".to_owned()));
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let settings = TlsSettings {
            client_cert: Some("c.pem".into()),
            skip_verify: true,
            ..TlsSettings::default()
        };

        assert!(
            config(&settings)
                .expect_err("no key")
                .to_string()
                .contains("give both")
        );
    }
}
