//! How connections are protected: by certificates, by a key that the cluster shares, or not at all.
//!
//! Both ways of protection are mutual TLS 1.3. With a **cluster key** each side derives the same Ed25519 key pair from
//! it, presents the public half (RFC 7250, no certificate around it), and accepts nothing but that half.
//!
//! Why it is correct: TLS proves to each side that the other holds the private half, which only who knows the cluster
//! key can derive. The proof covers the nonces of both sides and its role (RFC 8446, 4.4.3), so it cannot be replayed
//! or reflected; the traffic keys come from an ephemeral exchange inside the same transcript. Identities are told only
//! after that, inside. What an outsider can do is guess keys, against the public half that a server shows to who
//! connects; so keys must be random, and have at least 16 bytes.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, verify_server_name};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    RootCertStore, ServerConfig, SignatureScheme, version,
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::{HandshakeError, SecurityError};
use crate::stream::Stream;

/// Fewest bytes of a cluster key, Consul's shortest for `encrypt`.
pub const CLUSTER_KEY_MIN_BYTES: usize = 16;
/// Names the use of the derived key, so that it serves no other.
const DERIVATION: &[u8] = b"lictor peer transport, ed25519 seed, 1";
/// What comes before the seed in the PKCS #8 form of an Ed25519 key (RFC 8410).
const PKCS8_ED25519: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// How the connections between servers are protected. All servers of a cluster are protected in one way.
#[derive(Clone)]
pub struct Security(Arc<Inner>);

struct Inner {
    mode: Mode,
    tls: Option<Tls>,
}

struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    name: ServerName<'static>,
}

/// The way of protection, as it is told in the preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Open = 0,
    Key = 1,
    Certificates = 2,
}

impl Mode {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Open, Self::Key, Self::Certificates]
            .into_iter()
            .find(|mode| *mode as u8 == byte)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "no protection",
            Self::Key => "a cluster key",
            Self::Certificates => "certificates",
        })
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Security({})", self.0.mode)
    }
}

impl Security {
    /// None: whoever reaches the port can take part. [`Peers::new`](crate::Peers::new) says so in the log.
    pub fn open() -> Self {
        Self::with(Mode::Open, None)
    }

    /// A key that all servers share, of random bytes.
    ///
    /// # Errors
    /// A key of less than [`CLUSTER_KEY_MIN_BYTES`].
    pub fn cluster_key(key: &[u8]) -> Result<Self, SecurityError> {
        if key.len() < CLUSTER_KEY_MIN_BYTES {
            return Err(SecurityError::ShortKey {
                len_bytes: key.len(),
                min_bytes: CLUSTER_KEY_MIN_BYTES,
            });
        }
        let seed = Sha256::new()
            .chain_update(DERIVATION)
            .chain_update(key)
            .finalize();
        let key = PrivatePkcs8KeyDer::from([&PKCS8_ED25519[..], &seed].concat());
        let key = crypto::ring::sign::any_eddsa_type(&key)?;
        let public = key
            .public_key()
            .ok_or(rustls::Error::General(
                "an Ed25519 key has a public half".to_owned(),
            ))?
            .into_owned();
        let pair = Arc::new(CertifiedKey::new(
            vec![CertificateDer::from(public.as_ref().to_vec())],
            key,
        ));
        let provider = provider();
        let verifier = Arc::new(SameKey {
            public,
            algorithms: provider.signature_verification_algorithms,
        });
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
                &pair,
            ))));
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(pair)));
        // TLS wants a name to ask for; nobody looks at it.
        let name = server_name("cluster.lictor")?;
        Ok(Self::with(Mode::Key, Some(Tls::new(client, server, name))))
    }

    /// Certificates, as PEM: those of the authorities, this server's own with what leads up to the authority, and its
    /// key. Each side must hold one for the name `server.<datacenter>.<domain>`.
    ///
    /// # Errors
    /// A text without what it should hold, and a certificate that would be refused by the other servers for its name.
    pub fn certificates(
        authorities: &[u8],
        certificate: &[u8],
        key: &[u8],
        datacenter: &str,
        domain: &str,
    ) -> Result<Self, SecurityError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates_of(authorities, "the file of authorities")? {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates_of(certificate, "the certificate file")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| SecurityError::Pem {
            wanted: "private key",
            place: "the key file",
        })?;
        let name = server_name(&format!("server.{datacenter}.{domain}"))?;
        names(&chain[0], &name).map_err(|error| SecurityError::Certificate(error.to_string()))?;
        let provider = provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| SecurityError::Certificate(error.to_string()))?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        Ok(Self::with(
            Mode::Certificates,
            Some(Tls::new(client, server, name)),
        ))
    }

    fn with(mode: Mode, tls: Option<Tls>) -> Self {
        Self(Arc::new(Inner { mode, tls }))
    }

    pub(crate) fn mode(&self) -> Mode {
        self.0.mode
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> Result<Stream, HandshakeError> {
        let Some(tls) = &self.0.tls else {
            return Ok(Stream::Plain(socket));
        };
        let stream = tls
            .connector
            .connect(tls.name.clone(), socket)
            .await
            .map_err(|error| self.explain(error))?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    pub(crate) async fn accept(&self, socket: TcpStream) -> Result<Stream, HandshakeError> {
        let Some(tls) = &self.0.tls else {
            return Ok(Stream::Plain(socket));
        };
        let stream = tls
            .acceptor
            .accept(socket)
            .await
            .map_err(|error| self.explain(error))?;
        if self.0.mode == Mode::Certificates {
            let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let presented = presented.ok_or_else(|| HandshakeError::Tls("no certificate".to_owned()))?;
            names(presented, &tls.name).map_err(|error| {
                HandshakeError::Tls(format!("its certificate is not one of a server: {error}"))
            })?;
        }
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// An error of TLS in words that name the cause. Also for errors that come with the first bytes after the handshake,
    /// since a client is told only then that its certificate is refused.
    pub(crate) fn explain(&self, error: std::io::Error) -> HandshakeError {
        let Some(inner) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        else {
            return HandshakeError::Io(error);
        };
        let what = match self.0.mode {
            Mode::Key => "cluster key",
            _ => "certificate",
        };
        let text = match inner {
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                "the other side has another cluster key".to_owned()
            }
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "the other side's certificate is of another authority".to_owned()
            }
            rustls::Error::NoCertificatesPresented => format!("the other side shows no {what}"),
            rustls::Error::AlertReceived(
                AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::DecryptError,
            ) => format!("the other side does not accept this server's {what} ({inner})"),
            other => other.to_string(),
        };
        HandshakeError::Tls(text)
    }
}

impl Tls {
    /// Without resumption: connections live long, and each is to prove anew what it is.
    fn new(mut client: ClientConfig, mut server: ServerConfig, name: ServerName<'static>) -> Self {
        client.resumption = Resumption::disabled();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Self {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            name,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

fn server_name(text: &str) -> Result<ServerName<'static>, SecurityError> {
    ServerName::try_from(text.to_owned()).map_err(|error| SecurityError::Certificate(error.to_string()))
}

fn certificates_of(pem: &[u8], place: &'static str) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let missing = SecurityError::Pem {
        wanted: "certificate",
        place,
    };
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(missing),
    }
}

fn names(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

/// Accepts the public half of the cluster's own key pair, and nothing else.
#[derive(Debug)]
struct SameKey {
    public: SubjectPublicKeyInfoDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SameKey {
    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        // Both are public, so the time this takes tells nothing.
        if presented.as_ref() == self.public.as_ref() {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature_with_raw_key(message, &self.public, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for SameKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for SameKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
