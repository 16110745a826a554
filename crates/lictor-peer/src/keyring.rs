//! The keys that the servers of a cluster share, so that one can be changed for another while they run.
//!
//! A server shows the public half of its **primary** key to all, and accepts whoever shows that of any key in its ring.
//! So a cluster gets another key without a stop: it is installed on all servers, then made the primary of all, and only
//! then the old one is removed. What was connected with the old primary connects anew in good order when the primary
//! changes, and what still uses a removed key is cut.
//!
//! Why it is correct: after a removal nobody is accepted who shows the removed key, since what is accepted is decided by
//! the ring of the moment; and each connection that was accepted before holds a token of the key that it was accepted
//! by, which the removal cancels.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    version,
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::error::SecurityError;
use crate::security::{Tls, provider, server_name};

/// Fewest bytes of a cluster key, Consul's shortest for `encrypt`.
pub const CLUSTER_KEY_MIN_BYTES: usize = 16;
/// Most keys of a ring: while one is changed for another there are two.
pub const KEYS_MAX: usize = 16;
/// Names the use of the derived key, so that it serves no other.
const DERIVATION: &[u8] = b"lictor peer transport, ed25519 seed, 1";
/// What comes before the seed in the PKCS #8 form of an Ed25519 key (RFC 8410).
const PKCS8_ED25519: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

type Save = dyn Fn(&[Vec<u8>]) -> io::Result<()> + Send + Sync;

/// The keys of now, and where they are kept.
pub(crate) struct Keyring {
    ring: RwLock<Arc<Ring>>,
    save: Box<Save>,
    /// Held while the ring is changed.
    changing: Mutex<()>,
    /// Counts the primary keys there were.
    era: AtomicU64,
}

/// The keys at one moment, the primary first.
pub(crate) struct Ring {
    keys: Vec<Key>,
    pub(crate) tls: Tls,
    /// Cancelled when another key has become the primary.
    pub(crate) retired: CancellationToken,
}

#[derive(Clone)]
struct Key {
    secret: Vec<u8>,
    pair: Arc<CertifiedKey>,
    public: SubjectPublicKeyInfoDer<'static>,
    removed: CancellationToken,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.ring.read().keys.len())
    }
}

impl Keyring {
    pub(crate) fn new(secrets: &[Vec<u8>], save: Box<Save>) -> Result<Self, SecurityError> {
        let keys = keys(secrets, &[])?;
        Ok(Self {
            ring: RwLock::new(Arc::new(Ring::new(keys, CancellationToken::new())?)),
            save,
            changing: Mutex::new(()),
            era: AtomicU64::new(0),
        })
    }

    /// What is in force now.
    pub(crate) fn now(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read())
    }

    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Changes the keys as `change` says, unless that fails: first where they are kept, then in force.
    pub(crate) fn change<E: From<SecurityError>>(
        &self,
        change: impl FnOnce(&mut Vec<Vec<u8>>) -> Result<(), E>,
    ) -> Result<(), E> {
        let _alone = self.changing.lock();
        let before = self.now();
        let mut secrets = before.secrets();
        change(&mut secrets)?;
        if secrets == before.secrets() {
            return Ok(());
        }
        let keys = keys(&secrets, &before.keys)?;
        let has_same_primary = keys[0].secret == before.keys[0].secret;
        let retired = if has_same_primary {
            before.retired.clone()
        } else {
            CancellationToken::new()
        };
        let ring = Arc::new(Ring::new(keys, retired)?);
        (self.save)(&secrets).map_err(SecurityError::NotKept)?;
        *self.ring.write() = Arc::clone(&ring);
        if !has_same_primary {
            self.era.fetch_add(1, Ordering::AcqRel);
            before.retired.cancel();
        }
        for key in &before.keys {
            if !ring.keys.iter().any(|kept| kept.secret == key.secret) {
                key.removed.cancel();
            }
        }
        Ok(())
    }
}

impl Ring {
    fn new(keys: Vec<Key>, retired: CancellationToken) -> Result<Self, SecurityError> {
        let pair = &keys[0].pair;
        let verifier = Arc::new(AnyOf {
            publics: keys.iter().map(|key| key.public.clone()).collect(),
            algorithms: provider().signature_verification_algorithms,
        });
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(pair))));
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(pair))));
        // TLS wants a name to ask for; nobody looks at it.
        let name = server_name("cluster.lictor")?;
        Ok(Self {
            keys,
            tls: Tls::new(client, server, name),
            retired,
        })
    }

    /// The keys themselves, the primary first.
    pub(crate) fn secrets(&self) -> Vec<Vec<u8>> {
        self.keys.iter().map(|key| key.secret.clone()).collect()
    }

    /// Of all keys in their order.
    pub(crate) fn digest(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        for key in &self.keys {
            digest.update(key.public.as_ref());
        }
        digest.finalize().to_vec()
    }

    /// Cancelled when the key whose public half was shown is removed; none for a key that is not here.
    pub(crate) fn removal_of(&self, shown: &[u8]) -> Option<CancellationToken> {
        let key = self.keys.iter().find(|key| key.public.as_ref() == shown)?;
        Some(key.removed.clone())
    }
}

/// The keys of these secrets; those of `known` stay what they are.
fn keys(secrets: &[Vec<u8>], known: &[Key]) -> Result<Vec<Key>, SecurityError> {
    if secrets.is_empty() || secrets.len() > KEYS_MAX {
        return Err(SecurityError::KeyCount { max: KEYS_MAX });
    }
    let key = |secret: &Vec<u8>| match known.iter().find(|key| key.secret == *secret) {
        Some(key) => Ok(key.clone()),
        None => Key::derive(secret),
    };
    secrets.iter().map(key).collect()
}

impl Key {
    fn derive(secret: &[u8]) -> Result<Self, SecurityError> {
        if secret.len() < CLUSTER_KEY_MIN_BYTES {
            return Err(SecurityError::ShortKey {
                len_bytes: secret.len(),
                min_bytes: CLUSTER_KEY_MIN_BYTES,
            });
        }
        let seed = Sha256::new()
            .chain_update(DERIVATION)
            .chain_update(secret)
            .finalize();
        let key = PrivatePkcs8KeyDer::from([&PKCS8_ED25519[..], &seed].concat());
        let key = crypto::ring::sign::any_eddsa_type(&key)?;
        let public = key
            .public_key()
            .ok_or(rustls::Error::General(
                "an Ed25519 key has a public half".to_owned(),
            ))?
            .into_owned();
        let shown = CertificateDer::from(public.as_ref().to_vec());
        Ok(Self {
            secret: secret.to_vec(),
            pair: Arc::new(CertifiedKey::new(vec![shown], key)),
            public,
            removed: CancellationToken::new(),
        })
    }
}

/// Accepts the public halves of the keys of a ring, and nothing else.
#[derive(Debug)]
struct AnyOf {
    publics: Vec<SubjectPublicKeyInfoDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyOf {
    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        // All are public, so the time this takes tells nothing.
        if self
            .publics
            .iter()
            .any(|public| public.as_ref() == presented.as_ref())
        {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(presented)?;
        let public = SubjectPublicKeyInfoDer::from(presented.as_ref());
        crypto::verify_tls13_signature_with_raw_key(message, &public, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for AnyOf {
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
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyOf {
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
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
