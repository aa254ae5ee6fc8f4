//! `TlsCertificate`: certificates with their keys, and which one a client gets.

use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::{CertificateFacts, server_names};
use crate::listed::ListedCertificate;
use crate::pb::{TlsCertificate, data_source};
use crate::source;

/// The name that statistics give to certificates which are no secret: Envoy takes the digest of the name that they do not have, so
/// that several of one context are one, of which the last counts.
const UNNAMED: &str = "unnamed_cert_e3b0c442";

/// A certificate chain with its key.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub key: Arc<CertifiedKey>,
    pub facts: Arc<CertificateFacts>,
    /// Where the certificates were read from.
    pub source: String,
    /// The secret that holds the certificate, unless the context does so itself.
    pub secret: Option<String>,
    /// Lower-case names of the certificate, `*.` first for wildcards.
    names: Vec<String>,
}

impl Identity {
    pub(crate) fn lower(
        message: &TlsCertificate,
        provider: &CryptoProvider,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let TlsCertificate {
            certificate_chain,
            private_key,
            pkcs12,
            watched_directory,
            private_key_provider,
            password,
            ocsp_staple,
            signed_certificate_timestamp,
            tls_params,
        } = message;
        ConfigError::refuse_if(pkcs12.is_some(), path, "pkcs12")?;
        ConfigError::refuse_if(private_key_provider.is_some(), path, "private_key_provider")?;
        ConfigError::refuse_if(password.is_some(), path, "password")?;
        ConfigError::refuse_if(
            !signed_certificate_timestamp.is_empty(),
            path,
            "signed_certificate_timestamp",
        )?;
        ConfigError::refuse_if(tls_params.is_some(), path, "tls_params")?;
        if watched_directory.is_some() {
            warnings.push(source::unwatched(path.field("watched_directory")));
        }
        let key_path = path.field("private_key");
        let key = source::read_part(private_key.as_ref(), &key_path, warnings).map_err(|missing| {
            let reason = format!("Failed to load incomplete private key from path: {}", missing.name);
            missing.error(&key_path, reason)
        })?;
        let chain_path = path.field("certificate_chain");
        let chain = source::read_part(certificate_chain.as_ref(), &chain_path, warnings);
        let chain = chain.map_err(|missing| {
            let from = &missing.name;
            let reason =
                format!("Failed to load incomplete certificate from {from}: certificate chain not set");
            missing.error(&chain_path, reason)
        })?;

        let bad_chain = || {
            let reason = format!("Failed to load certificate chain from {}", chain.name);
            ConfigError::new(chain_path.clone(), reason)
        };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain.bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| bad_chain())?;
        let leaf = certificates.first().ok_or_else(bad_chain)?;
        let facts = CertificateFacts::of(leaf).ok_or_else(bad_chain)?;
        let names = server_names(leaf).into_iter().map(|name| name.to_ascii_lowercase()).collect();

        let bad_key = |cause: &str| {
            let reason = format!("Failed to load private key from {}, Cause: {cause}", key.name);
            ConfigError::new(key_path.clone(), reason)
        };
        let der = PrivateKeyDer::from_pem_slice(&key.bytes).map_err(|error| bad_key(&error.to_string()))?;
        let signing =
            provider.key_provider.load_private_key(der).map_err(|error| bad_key(&error.to_string()))?;
        // Compared here because rustls' own comparison refuses certificates of version 1.
        if signing.public_key().is_some_and(|key| facts.public_key() != Some(key.as_ref())) {
            return Err(bad_key("KEY_VALUES_MISMATCH"));
        }
        let mut certified = CertifiedKey::new(certificates, signing);
        if let Some(staple) = ocsp_staple {
            if matches!(staple.specifier, Some(data_source::Specifier::InlineString(_))) {
                let reason = "OCSP staple cannot be provided via inline_string";
                return Err(ConfigError::new(path.field("ocsp_staple"), reason));
            }
            certified.ocsp = Some(source::read(staple, &path.field("ocsp_staple"), warnings)?.bytes);
        }
        Ok(Self { key: Arc::new(certified), facts: Arc::new(facts), source: chain.name, secret: None, names })
    }

    /// Lower-case names of the certificate.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// When the certificate expires, by the name that statistics give it.
    pub(crate) fn expiry(&self) -> (String, i64) {
        (self.secret.clone().unwrap_or_else(|| UNNAMED.to_owned()), self.facts.not_after)
    }

    /// The certificate as `/certs` shows it.
    pub(crate) fn listed(&self) -> ListedCertificate {
        ListedCertificate { path: self.source.clone(), facts: self.facts.clone() }
    }

    fn is_named(&self, server_name: &str) -> bool {
        self.names.iter().any(|name| name == server_name)
    }

    fn is_wildcard_for(&self, server_name: &str) -> bool {
        let Some((_, parent)) = server_name.split_once('.') else { return false };
        self.names.iter().any(|name| name.strip_prefix("*.") == Some(parent))
    }
}

/// Chooses among certificates: exact name, then wildcard, then the first, each with a key that the client can verify.
#[derive(Debug)]
pub(crate) struct Selection {
    identities: Vec<Identity>,
}

impl Selection {
    /// The certificates to choose from.
    pub(crate) fn listed(&self) -> Vec<ListedCertificate> {
        self.identities.iter().map(Identity::listed).collect()
    }

    /// When each of them expires.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = (String, i64)> {
        self.identities.iter().map(Identity::expiry)
    }

    pub(crate) fn new(identities: Vec<Identity>) -> Self {
        Self { identities }
    }

    fn select(&self, server_name: Option<&str>, usable: impl Fn(&Identity) -> bool) -> Option<&Identity> {
        let name = server_name.map(str::to_ascii_lowercase).unwrap_or_default();
        let usable = || self.identities.iter().filter(|identity| usable(identity));
        usable()
            .find(|identity| identity.is_named(&name))
            .or_else(|| usable().find(|identity| identity.is_wildcard_for(&name)))
            .or_else(|| usable().next())
            .or_else(|| self.identities.first())
    }

    /// Facts of the certificate that a client with this name got, as far as the name alone tells.
    pub(crate) fn facts(&self, server_name: Option<&str>) -> Option<Arc<CertificateFacts>> {
        self.select(server_name, |_| true).map(|identity| identity.facts.clone())
    }
}

impl ResolvesServerCert for Selection {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let usable = |identity: &Identity| identity.key.key.choose_scheme(schemes).is_some();
        self.select(hello.server_name(), usable).map(|identity| identity.key.clone())
    }
}
