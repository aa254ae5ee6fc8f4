//! `CertificateValidationContext`: which certificates of peers are acceptable.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::{Message, SourceData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::CertificateFacts;
use crate::failure::NameMismatch;
use crate::listed::ListedCertificate;
use crate::names::{NameMatcher, dns_name_covers};
use crate::overlooked::Faults;
use crate::pb::CertificateValidationContext;
use crate::pb::certificate_validation_context::TrustChainVerification;
use crate::source;

/// The name that statistics give to authorities which are no secret.
const UNNAMED_AUTHORITY: &str = "unnamed_ca_cert_e3b0c442";

/// The name that statistics give to an authority that is not there.
const NO_AUTHORITY: &str = "unnamed_ca_cert";

/// What must hold of a peer's certificate.
#[derive(Debug, Default)]
pub(crate) struct Validation {
    /// There is a context, however little it demands.
    is_configured: bool,
    /// Trust anchors; without them chains are not verified.
    pub roots: Option<Arc<RootCertStore>>,
    /// The certificates that the anchors were made of.
    pub root_certificates: Vec<CertificateDer<'static>>,
    /// Where they were read from.
    pub root_source: String,
    /// When the first of them expires, in seconds since 1970.
    pub roots_expire: Option<i64>,
    /// The secret that this is, unless the context has it itself.
    pub secret: Option<String>,
    /// Digest of all that is demanded.
    pub digest: [u8; 32],
    /// `max_verify_depth`: certificates that may stand between that of the peer and a trusted one.
    max_intermediates: Option<usize>,
    pub revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    pub only_leaf_revocation: bool,
    /// `allow_expired_certificate`: the time does not matter.
    pub accept_expired: bool,
    /// `ACCEPT_UNTRUSTED`: what does not lead to an anchor, or has not the names or pins, is accepted all the same.
    pub accept_untrusted: bool,
    /// What was accepted although it is untrusted.
    pub faults: Faults,
    /// `suppress_client_ca_list`.
    pub hide_authorities: bool,
    names: Vec<NameMatcher>,
    /// Hexadecimal digests of certificates and base64 digests of keys; one of them must fit, if there is any.
    pins: Vec<Pin>,
}

#[derive(Debug)]
enum Pin {
    Certificate(String),
    Key(String),
}

/// What one connection asks of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct OtherNames {
    /// The certificate must be for one of these too, if there are any (`auto_san_validation`).
    pub one_of: Vec<String>,
    /// The name of the server that was asked for, in place of the names of the context (`auto_sni_san_validation`); not
    /// together with `one_of`.
    pub server: Option<String>,
}

impl Validation {
    pub(crate) fn lower(
        message: &CertificateValidationContext,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        #[allow(deprecated, reason = "the older list of names is still in use")]
        let CertificateValidationContext {
            trusted_ca,
            ca_certificate_provider_instance,
            system_root_certs,
            watched_directory,
            verify_certificate_spki,
            verify_certificate_hash,
            match_typed_subject_alt_names,
            match_subject_alt_names,
            require_signed_certificate_timestamp,
            crl,
            allow_expired_certificate,
            trust_chain_verification,
            custom_validator_config,
            only_verify_leaf_cert_crl,
            max_verify_depth,
            suppress_client_ca_list,
        } = message;
        let refuse = |is_set: bool, name: &str| ConfigError::refuse_if(is_set, path, name);
        refuse(ca_certificate_provider_instance.is_some(), "ca_certificate_provider_instance")?;
        refuse(system_root_certs.is_some(), "system_root_certs")?;
        refuse(
            require_signed_certificate_timestamp.as_ref().is_some_and(|required| required.value),
            "require_signed_certificate_timestamp",
        )?;
        refuse(custom_validator_config.is_some(), "custom_validator_config")?;
        if watched_directory.is_some() {
            warnings.push(source::unwatched(path.field("watched_directory")));
        }
        if *allow_expired_certificate && trusted_ca.is_none() {
            let reason = "Certificate validity period is always ignored without trusted CA";
            return Err(ConfigError::new(path.field("allow_expired_certificate"), reason));
        }
        let mut validation = Self {
            is_configured: true,
            only_leaf_revocation: *only_verify_leaf_cert_crl,
            hide_authorities: *suppress_client_ca_list,
            accept_expired: *allow_expired_certificate,
            accept_untrusted: *trust_chain_verification == TrustChainVerification::AcceptUntrusted as i32,
            // BoringSSL counts the trusted certificate, unless it is the issuer of the first.
            max_intermediates: max_verify_depth.as_ref().map(|depth| depth.value.saturating_sub(1) as usize),
            ..Self::default()
        };
        if let Some(trusted) = trusted_ca {
            let path = path.field("trusted_ca");
            let trusted = source::read_filled(trusted, &path, warnings)?;
            let (roots, certificates) = read_roots(&trusted, &path)?;
            validation.roots = Some(Arc::new(roots));
            let first = certificates.first().and_then(CertificateFacts::of);
            validation.roots_expire = first.map(|facts| facts.not_after);
            validation.root_certificates = certificates;
            validation.root_source = trusted.name;
        }
        if let Some(crl) = crl {
            let path = path.field("crl");
            let crl = source::read(crl, &path, warnings)?;
            if validation.roots.is_none() && !crl.bytes.is_empty() {
                let reason = format!("Failed to load CRL from {} without trusted CA", crl.name);
                return Err(ConfigError::new(path, reason));
            }
            let lists = CertificateRevocationListDer::pem_slice_iter(&crl.bytes).collect::<Result<_, _>>();
            let failed = || ConfigError::new(path, format!("Failed to load CRL from {}", crl.name));
            validation.revocation_lists = lists.map_err(|_| failed())?;
        }
        for (index, matcher) in match_typed_subject_alt_names.iter().enumerate() {
            let path = path.field("match_typed_subject_alt_names").index(index);
            validation.names.push(NameMatcher::compile(matcher, &path)?);
        }
        for (index, matcher) in match_subject_alt_names.iter().enumerate() {
            let path = path.field("match_subject_alt_names").index(index);
            validation.names.push(NameMatcher::of_kind(None, matcher, &path)?);
        }
        if !validation.names.is_empty() && validation.roots.is_none() && !validation.accept_untrusted {
            let reason =
                "SAN-based verification of peer certificates without trusted CA is insecure and not allowed";
            return Err(ConfigError::new(path.clone(), reason));
        }
        for (index, hash) in verify_certificate_hash.iter().enumerate() {
            let path = path.field("verify_certificate_hash").index(index);
            validation.pins.push(Pin::Certificate(certificate_hash(hash, &path)?));
        }
        validation.pins.extend(verify_certificate_spki.iter().cloned().map(Pin::Key));
        validation.digest = validation.digest_of(message);
        Ok(validation)
    }

    /// The digest of the message with what the files that it names hold.
    fn digest_of(&self, message: &CertificateValidationContext) -> [u8; 32] {
        let mut digest = digest::Context::new(&digest::SHA256);
        let message = message.encode_to_vec();
        let roots = self.root_certificates.iter().map(|root| root.as_ref());
        let lists = self.revocation_lists.iter().map(|list| list.as_ref());
        for part in std::iter::once(message.as_slice()).chain(roots).chain(lists) {
            digest.update(&part.len().to_be_bytes());
            digest.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        bytes
    }

    /// When the first trusted authority expires, by the name that statistics give it. A context without one has one that
    /// never expires.
    pub(crate) fn expiry(&self) -> Option<(String, i64)> {
        let unnamed = match self.roots_expire {
            Some(_) => UNNAMED_AUTHORITY,
            None => NO_AUTHORITY,
        };
        let end = self.roots_expire.or_else(|| self.is_configured.then_some(i64::MAX))?;
        Some((self.secret.clone().unwrap_or_else(|| unnamed.to_owned()), end))
    }

    /// The certificates that may lead from the peer's to a trusted one: those that it sent, or as many of them as the chain may have.
    pub(crate) fn within_depth<'a>(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &'a [CertificateDer<'a>],
    ) -> Cow<'a, [CertificateDer<'a>]> {
        match self.max_intermediates {
            Some(max) if intermediates.len() > max => Cow::Owned(first_of_chain(leaf, intermediates, max)),
            _ => Cow::Borrowed(intermediates),
        }
    }

    /// The time for which a chain is verified: `now`, or one at which all of it is valid where the time does not matter.
    pub(crate) fn time_of(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> UnixTime {
        if !self.accept_expired {
            return now;
        }
        let chain = std::iter::once(leaf).chain(intermediates).filter_map(CertificateFacts::of);
        let (begin, end) = chain.fold((0, i64::MAX), |(begin, end), facts| {
            (facts.not_before.max(begin), facts.not_after.min(end))
        });
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let at = now.min(end).max(begin).max(0);
        UnixTime::since_unix_epoch(Duration::from_secs(at.unsigned_abs()))
    }

    /// The first authority as `/certs` shows it.
    pub(crate) fn listed(&self) -> Option<ListedCertificate> {
        let facts = CertificateFacts::of(self.root_certificates.first()?)?;
        Some(ListedCertificate { path: self.root_source.clone(), facts: Arc::new(facts) })
    }

    /// Whether anything is verified at all.
    pub(crate) fn is_active(&self) -> bool {
        self.roots.is_some() || !self.pins.is_empty()
    }

    /// Whether a client without a certificate is refused, required or not: there is something that its certificate has to have.
    pub(crate) fn demands_certificate(&self) -> bool {
        !self.accept_untrusted && (!self.names.is_empty() || !self.pins.is_empty())
    }

    /// Checks names and pins; the chain is somebody else's business. `also_for` is what the connection asks. What is
    /// untrusted and accepted is noted.
    pub(crate) fn check(
        &self,
        certificate: &CertificateDer<'_>,
        also_for: &OtherNames,
    ) -> Result<(), CertificateError> {
        if self.names.is_empty() && self.pins.is_empty() && *also_for == OtherNames::default() {
            return Ok(());
        }
        match self.check_leaf(certificate, also_for) {
            Err(error) if self.accept_untrusted => {
                match NameMismatch::is(&error) {
                    true => self.faults.name(),
                    false => self.faults.pin(),
                }
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn check_leaf(
        &self,
        certificate: &CertificateDer<'_>,
        also_for: &OtherNames,
    ) -> Result<(), CertificateError> {
        let facts = CertificateFacts::of(certificate).ok_or(CertificateError::BadEncoding)?;
        let OtherNames { one_of, server } = also_for;
        if !one_of.is_empty() && !one_of.iter().any(|name| is_for(&facts, name)) {
            return Err(NameMismatch::expected(one_of, &facts).into());
        }
        let fits = match server {
            Some(server) => is_for(&facts, server),
            None => self.names.is_empty() || self.names.iter().any(|matcher| matcher.fits(&facts)),
        };
        if !fits {
            return Err(NameMismatch::unmatched(&facts).into());
        }
        if !self.pins.is_empty() && !self.pins.iter().any(|pin| pin.fits(&facts)) {
            return Err(CertificateError::ApplicationVerificationFailure);
        }
        Ok(())
    }
}

/// The first certificates of the chain that begins with `leaf`, each the issuer of the one before.
fn first_of_chain<'a>(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'a>],
    max: usize,
) -> Vec<CertificateDer<'a>> {
    let parsed: Vec<_> =
        intermediates.iter().filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1))).collect();
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let mut issuer = leaf.issuer().as_raw();
    let mut chain = Vec::with_capacity(max);
    while chain.len() < max
        && let Some((der, next)) = parsed.iter().find(|(_, next)| next.subject().as_raw() == issuer)
    {
        chain.push((*der).clone());
        issuer = next.issuer().as_raw();
    }
    chain
}

fn read_roots(
    source: &SourceData,
    path: &FieldPath,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), ConfigError> {
    let failed = || {
        ConfigError::new(path.clone(), format!("Failed to load trusted CA certificates from {}", source.name))
    };
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&source.bytes) {
        let certificate = certificate.map_err(|_| failed())?;
        roots.add(certificate.clone()).map_err(|_| failed())?;
        certificates.push(certificate);
    }
    if roots.is_empty() { Err(failed()) } else { Ok((roots, certificates)) }
}

/// A SHA-256 digest in hexadecimal digits, with or without colons between the bytes.
fn certificate_hash(text: &str, path: &FieldPath) -> Result<String, ConfigError> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err(ConfigError::new(path.clone(), format!("Invalid hex-encoded SHA-256 {text}")))
}

impl Pin {
    fn fits(&self, facts: &CertificateFacts) -> bool {
        match self {
            Self::Certificate(hash) => facts.fingerprint == *hash,
            Self::Key(hash) => facts.spki_hash == *hash,
        }
    }
}

fn is_for(facts: &CertificateFacts, name: &str) -> bool {
    match name.parse::<IpAddr>() {
        Ok(address) => facts.addresses.contains(&address),
        Err(_) => {
            facts.dns_names.iter().any(|dns| dns_name_covers(dns, name))
                || facts.uris.iter().any(|uri| uri == name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_one_label() {
        assert!(dns_name_covers("a.example", "A.example"));
        assert!(dns_name_covers("*.example", "b.example"));
        assert!(!dns_name_covers("*.example", "c.b.example"));
        assert!(!dns_name_covers("*.example", "example"));
        assert!(!dns_name_covers("*.example", ".example"));
    }

    #[test]
    fn hashes_may_have_colons() {
        let path = FieldPath::root();
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(certificate_hash(&colons, &path), Ok(plain.clone()));
        assert!(certificate_hash(&plain[1..], &path).is_err());
    }
}
