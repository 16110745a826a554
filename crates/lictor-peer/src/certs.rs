//! An authority for the certificates of servers, and the certificates that it issues, as PEM.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CertificateError(#[from] rcgen::Error);

/// A certificate and its private key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate as PEM.
    pub certificate: String,
    /// The private key as PEM.
    pub key: String,
}

/// What a new authority is to be.
#[derive(Debug, Clone)]
pub struct Authority<'a> {
    /// The common name; a number is appended, so that no two authorities have one name.
    pub common_name: &'a str,
    /// How long it is valid.
    pub days: u32,
    /// The domains below which it can issue names; any if there is none.
    pub permitted_domains: &'a [String],
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To be connected to and to connect.
    Server,
    /// To connect, or to be connected to by other than servers.
    Client,
}

/// What a new certificate is to be.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What it is for.
    pub purpose: Use,
    /// The names it stands for, the common name first.
    pub names: &'a [String],
    /// The addresses it stands for.
    pub addresses: &'a [IpAddr],
    /// How long it is valid.
    pub days: u32,
}

/// Makes an authority.
///
/// # Errors
/// A domain that is no name.
pub fn create_authority(authority: &Authority<'_>) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate()?;
    let (serial, mut params) = params(authority.days);
    params.distinguished_name.push(
        DnType::CommonName,
        format!("{} {}", authority.common_name, serial.simple()),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    if !authority.permitted_domains.is_empty() {
        let permitted = authority.permitted_domains.iter().cloned();
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: permitted.map(rcgen::GeneralSubtree::DnsName).collect(),
            excluded_subtrees: Vec::new(),
        });
    }
    let made = CertifiedIssuer::self_signed(params, key)?;
    Ok(Pair {
        certificate: made.pem(),
        key: made.key().serialize_pem(),
    })
}

/// Issues a certificate of the authority whose certificate and key are given as PEM.
///
/// # Errors
/// A certificate or key that cannot be read, or a name that is none.
pub fn issue(authority: &Pair, request: &Request<'_>) -> Result<Pair, CertificateError> {
    let authority_key = KeyPair::from_pem(&authority.key)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, authority_key)?;
    let key = KeyPair::generate()?;
    let (_, mut params) = params(request.days);
    if let Some(name) = request.names.first() {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = match request.purpose {
        Use::Server => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        Use::Client => vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ],
    };
    params.use_authority_key_identifier_extension = true;
    for name in request.names {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    params
        .subject_alt_names
        .extend(request.addresses.iter().copied().map(SanType::IpAddress));
    let made = params.signed_by(&key, &issuer)?;
    Ok(Pair {
        certificate: made.pem(),
        key: key.serialize_pem(),
    })
}

/// What all certificates have: a serial number of their own, and a time. Valid a little before now, since clocks differ.
fn params(days: u32) -> (Uuid, CertificateParams) {
    let serial = Uuid::new_v4();
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.not_before = now - Duration::minutes(1);
    params.not_after = now + Duration::days(days.into());
    params.distinguished_name = rcgen::DistinguishedName::new();
    (serial, params)
}
