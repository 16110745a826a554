//! The certificate authority of a server, made at its first start.
//!
//! `<data-dir>/agent/ca.json` holds the certificate, its key and what clients are told of it; only its owner may read
//! the file.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::store;

/// How long the root certificate is valid.
const VALID_FOR: Duration = Duration::days(3650);

/// A certificate authority. Its times are in RFC 3339, its ids hexadecimal with colons.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateAuthority {
    /// The fingerprint of the certificate.
    pub id: String,
    /// The serial number.
    pub serial: u64,
    /// The identifier of its key.
    pub signing_key_id: String,
    /// The domain of the identities that it vouches for.
    pub trust_domain: String,
    /// From when it is valid.
    pub not_before: String,
    /// Until when it is valid.
    pub not_after: String,
    /// The certificate as PEM.
    pub certificate: String,
    /// The private key as PEM.
    key: String,
}

impl CertificateAuthority {
    /// Opens the authority of a data directory, or makes one there; without a directory it lives in memory.
    ///
    /// # Errors
    /// The disk's, and damage to the file.
    pub fn open(data_dir: Option<&Path>) -> io::Result<Self> {
        let Some(data_dir) = data_dir else {
            return Self::make();
        };
        let path = data_dir.join("agent").join("ca.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let text = format!(
                    "{} is damaged ({error}); move it away to have a new one made",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Self::make()?;
                fs::create_dir_all(data_dir.join("agent"))?;
                store::write_whole(&path, &serde_json::to_vec_pretty(&made)?)?;
                Ok(made)
            }
            Err(error) => Err(error),
        }
    }

    fn make() -> io::Result<Self> {
        let cluster = Uuid::new_v4();
        let trust_domain = format!("{cluster}.consul");
        let now = OffsetDateTime::now_utc().truncate_to_second();
        // Positive, so that it needs no more bytes than a signed number.
        let serial = Uuid::new_v4().as_u64_pair().0 >> 1;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Lictor CA {}", cluster.simple()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = now - Duration::minutes(1);
        params.not_after = now + VALID_FOR;
        let identity = format!("spiffe://{trust_domain}")
            .try_into()
            .map_err(io::Error::other)?;
        params.subject_alt_names = vec![SanType::URI(identity)];
        let key_id = params.key_identifier(&key);
        let (not_before, not_after) = (params.not_before, params.not_after);
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self {
            id: colons(&Sha256::digest(certificate.der())[..20]),
            serial,
            signing_key_id: colons(&key_id),
            trust_domain,
            not_before: not_before.format(&Rfc3339).map_err(io::Error::other)?,
            not_after: not_after.format(&Rfc3339).map_err(io::Error::other)?,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn colons(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_made_once_and_kept_from_others() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();

        let first = CertificateAuthority::open(Some(dir.path())).unwrap();
        let again = CertificateAuthority::open(Some(dir.path())).unwrap();

        assert_eq!(first.id, again.id);
        assert!(KeyPair::from_pem(&again.key).is_ok());
        assert!(first.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let mode = fs::metadata(dir.path().join("agent/ca.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0);
    }

    #[test]
    fn a_damaged_file_is_said_to_be_one_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("agent")).unwrap();
        fs::write(dir.path().join("agent/ca.json"), "{").unwrap();

        let error = CertificateAuthority::open(Some(dir.path())).unwrap_err();

        assert!(error.to_string().contains("is damaged"), "{error}");
        assert_eq!(fs::read(dir.path().join("agent/ca.json")).unwrap(), b"{");
    }
}
