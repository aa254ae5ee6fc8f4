//! Certificates that OpenSSL and BoringSSL, and so Envoy, accept and webpki does not: a certificate that is itself in the
//! list of trusted ones, and certificates of version 1. Both are what the usual `openssl` command lines make.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::validation::Validation;

/// Accepts a certificate whose chain webpki refused, if it is within its time, nothing is to be looked up in revocation
/// lists, and it is one of those that are trusted, or of version 1 and issued by one of them directly.
pub(crate) fn accept_as_openssl(
    leaf: &CertificateDer<'_>,
    validation: &Validation,
    provider: &CryptoProvider,
    now: UnixTime,
) -> Option<()> {
    let parsed = parse(leaf)?;
    let now = i64::try_from(now.as_secs()).ok()?;
    let validity = parsed.validity();
    let in_time = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
    if !in_time || !validation.revocation_lists.is_empty() {
        return None;
    }
    let is_trusted = validation.root_certificates.iter().any(|root| root.as_ref() == leaf.as_ref());
    let algorithms = &provider.signature_verification_algorithms;
    let is_issued = || {
        parsed.version() == X509Version::V1
            && validation
                .root_certificates
                .iter()
                .filter_map(parse)
                .any(|root| is_issued_by(&parsed, &root, algorithms))
    };
    (is_trusted || is_issued()).then_some(())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

fn is_issued_by(
    leaf: &X509Certificate<'_>,
    root: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let constrained = root.name_constraints().ok().flatten().is_some();
    if constrained || leaf.issuer().as_raw() != root.subject().as_raw() {
        return false;
    }
    // An algorithm identifier begins with its object identifier.
    let oid = leaf.signature_algorithm.algorithm.as_bytes();
    let Ok(length) = u8::try_from(oid.len()) else { return false };
    let start = [&[6, length], oid].concat();
    let key = &root.public_key().subject_public_key.data;
    algorithms.all.iter().filter(|algorithm| algorithm.signature_alg_id().starts_with(&start)).any(
        |algorithm| is_signed(*algorithm, key, leaf.tbs_certificate.as_ref(), &leaf.signature_value.data),
    )
}

fn is_signed(
    algorithm: &dyn SignatureVerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    algorithm.verify_signature(key, message, signature).is_ok()
}

/// [`rustls::crypto::verify_tls12_signature`], with the bare key where webpki does not read the certificate.
pub(crate) fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    let Some(parsed) = parse_version_1(certificate) else {
        return verify_tls12_signature(message, certificate, signed, algorithms);
    };
    let key = &parsed.public_key().subject_public_key.data;
    let candidates = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    // A key of another kind, or on another curve, does not decode as what the algorithm takes.
    let valid = candidates
        .flat_map(|(_, algorithms)| algorithms.iter())
        .any(|algorithm| is_signed(*algorithm, key, message, signed.signature()));
    if valid {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }
}

/// [`rustls::crypto::verify_tls13_signature`], with the bare key where webpki does not read the certificate.
pub(crate) fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    let Some(parsed) = parse_version_1(certificate) else {
        return verify_tls13_signature(message, certificate, signed, algorithms);
    };
    let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}

fn parse_version_1<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    parse(certificate).filter(|parsed| parsed.version() == X509Version::V1)
}
