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

use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig, version};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::Role;
use crate::error::{HandshakeError, SecurityError};
use crate::keyring::{Keyring, Ring};
use crate::stream::{Hold, Stream};

/// How the connections between servers are protected. All servers of a cluster are protected in one way.
#[derive(Clone)]
pub struct Security(Arc<Protection>);

enum Protection {
    Open,
    Keys(Keyring),
    Certificates(Tls, Names),
}

/// The names that certificates have.
#[derive(Debug, Clone)]
struct Names {
    server: ServerName<'static>,
    agent: ServerName<'static>,
}

impl Names {
    fn of(datacenter: &str, domain: &str) -> Result<Self, SecurityError> {
        let name = |role: &str| server_name(&format!("{role}.{datacenter}.{domain}"));
        Ok(Self {
            server: name("server")?,
            agent: name("client")?,
        })
    }

    /// What a certificate makes of who holds it.
    fn role(&self, certificate: &CertificateDer<'_>) -> Result<Role, rustls::Error> {
        match names(certificate, &self.server) {
            Ok(()) => Ok(Role::Server),
            Err(error) => names(certificate, &self.agent)
                .map(|()| Role::Agent)
                .map_err(|_| error),
        }
    }
}

pub(crate) struct Tls {
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
        write!(f, "Security({})", self.mode())
    }
}

impl Security {
    /// None: whoever reaches the port can take part. [`Peers::new`](crate::Peers::new) says so in the log.
    pub fn open() -> Self {
        Self(Arc::new(Protection::Open))
    }

    /// A key that all servers share, of random bytes.
    ///
    /// # Errors
    /// A key of less than [`CLUSTER_KEY_MIN_BYTES`](crate::CLUSTER_KEY_MIN_BYTES).
    pub fn cluster_key(key: &[u8]) -> Result<Self, SecurityError> {
        Self::keyring(&[key.to_vec()], |_| Ok(()))
    }

    /// Keys that all servers share, the primary first; see [`Peers::change_keys`](crate::Peers::change_keys) for how they change.
    /// `save` keeps what they become, and is called before they are in force.
    ///
    /// # Errors
    /// A key of less than [`CLUSTER_KEY_MIN_BYTES`](crate::CLUSTER_KEY_MIN_BYTES); none, or more than
    /// [`KEYS_MAX`](crate::KEYS_MAX).
    pub fn keyring(
        keys: &[Vec<u8>],
        save: impl Fn(&[Vec<u8>]) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self, SecurityError> {
        let keyring = Keyring::new(keys, Box::new(save))?;
        Ok(Self(Arc::new(Protection::Keys(keyring))))
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
        Self::certified(
            authorities,
            certificate,
            key,
            &Names::of(datacenter, domain)?,
            Role::Server,
        )
    }

    /// The same for a client agent, which only connects to servers: the name `client.<datacenter>.<domain>` will do.
    ///
    /// # Errors
    /// As for [`certificates`](Self::certificates).
    pub fn agent_certificates(
        authorities: &[u8],
        certificate: &[u8],
        key: &[u8],
        datacenter: &str,
        domain: &str,
    ) -> Result<Self, SecurityError> {
        Self::certified(
            authorities,
            certificate,
            key,
            &Names::of(datacenter, domain)?,
            Role::Agent,
        )
    }

    fn certified(
        authorities: &[u8],
        certificate: &[u8],
        key: &[u8],
        wanted: &Names,
        own: Role,
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
        let role = wanted.role(&chain[0]);
        let role = role.map_err(|error| SecurityError::Certificate(error.to_string()))?;
        if (role, own) == (Role::Agent, Role::Server) {
            let text = "it is one of a client agent".to_owned();
            return Err(SecurityError::Certificate(text));
        }
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
        let tls = Tls::new(client, server, wanted.server.clone());
        Ok(Self(Arc::new(Protection::Certificates(tls, wanted.clone()))))
    }

    pub(crate) fn mode(&self) -> Mode {
        match &*self.0 {
            Protection::Open => Mode::Open,
            Protection::Keys(_) => Mode::Key,
            Protection::Certificates(..) => Mode::Certificates,
        }
    }

    /// The keys that are shared, where there are any.
    pub(crate) fn keys(&self) -> Option<&Keyring> {
        match &*self.0 {
            Protection::Keys(keyring) => Some(keyring),
            _ => None,
        }
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> Result<Stream, HandshakeError> {
        let connect = async |tls: &Tls, socket| {
            let connected = tls.connector.connect(tls.name.clone(), socket).await;
            connected.map_err(|error| self.explain(error))
        };
        match &*self.0 {
            Protection::Open => Ok(Stream::Plain(socket)),
            Protection::Certificates(tls, _) => {
                let stream = connect(tls, socket).await?;
                Ok(Stream::Tls(Box::new(stream.into()), Hold::default()))
            }
            Protection::Keys(keyring) => {
                let ring = keyring.now();
                let stream = connect(&ring.tls, socket).await?;
                let hold = hold(keyring, &ring, stream.get_ref().1.peer_certificates())?;
                Ok(Stream::Tls(Box::new(stream.into()), hold))
            }
        }
    }

    /// A connection of somebody else, and what that one has proved to be.
    pub(crate) async fn accept(&self, socket: TcpStream) -> Result<(Stream, Role), HandshakeError> {
        let accept = async |tls: &Tls, socket| {
            let accepted = tls.acceptor.accept(socket).await;
            accepted.map_err(|error| self.explain(error))
        };
        match &*self.0 {
            Protection::Open => Ok((Stream::Plain(socket), Role::Server)),
            Protection::Certificates(tls, wanted) => {
                let stream = accept(tls, socket).await?;
                let presented = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let presented = presented.ok_or_else(|| HandshakeError::Tls("no certificate".to_owned()))?;
                let role = wanted.role(presented).map_err(|error| {
                    HandshakeError::Tls(format!("its certificate is not one of a server: {error}"))
                })?;
                Ok((Stream::Tls(Box::new(stream.into()), Hold::default()), role))
            }
            Protection::Keys(keyring) => {
                let ring = keyring.now();
                let stream = accept(&ring.tls, socket).await?;
                let hold = hold(keyring, &ring, stream.get_ref().1.peer_certificates())?;
                Ok((Stream::Tls(Box::new(stream.into()), hold), Role::Server))
            }
        }
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
        let what = match self.mode() {
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
    pub(crate) fn new(mut client: ClientConfig, mut server: ServerConfig, name: ServerName<'static>) -> Self {
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

/// What a connection rests on that was made with these keys.
fn hold(
    keyring: &Keyring,
    ring: &Ring,
    shown: Option<&[CertificateDer<'_>]>,
) -> Result<Hold, HandshakeError> {
    let shown = shown.and_then(<[_]>::first);
    // The keys may have changed meanwhile.
    let removed = shown.and_then(|shown| keyring.now().removal_of(shown));
    let removed =
        removed.ok_or_else(|| HandshakeError::Tls("the other side's cluster key was removed".to_owned()))?;
    Ok(Hold {
        retired: ring.retired.clone(),
        removed,
    })
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

pub(crate) fn server_name(text: &str) -> Result<ServerName<'static>, SecurityError> {
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
