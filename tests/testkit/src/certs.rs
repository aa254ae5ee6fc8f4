//! Certificates made at run time, and TLS endpoints that use them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
pub use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::tempdir::TempDir;

/// A certificate with its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key (PKCS#8).
    pub key_pem: String,
}

/// A certificate authority that exists for one test.
#[derive(Debug)]
pub struct TestCa {
    /// The authority's own certificate, PEM.
    pub cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Something about the certificates did not work; the text says what.
#[derive(Debug, thiserror::Error)]
#[error("test certificate: {0}")]
pub struct CertError(String);

fn err(error: impl std::fmt::Display) -> CertError {
    CertError(error.to_string())
}

impl TestCa {
    /// Makes an authority with the given common name.
    pub fn new(name: &str) -> Result<Self, CertError> {
        let key = KeyPair::generate().map_err(err)?;
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(err)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = common_name(name);
        let cert = params.self_signed(&key).map_err(err)?;
        Ok(Self { cert_pem: cert.pem(), issuer: Issuer::new(params, key) })
    }

    /// Issues a certificate for `name` whose subject alternative names are `sans`: IP addresses, URIs (anything with `://`),
    /// DNS names otherwise.
    pub fn issue(&self, name: &str, sans: &[&str]) -> Result<Identity, CertError> {
        let key = KeyPair::generate().map_err(err)?;
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(err)?;
        params.distinguished_name = common_name(name);
        for san in sans {
            params.subject_alt_names.push(match san.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) if san.contains("://") => SanType::URI((*san).try_into().map_err(err)?),
                Err(_) => SanType::DnsName((*san).try_into().map_err(err)?),
            });
        }
        let cert = params.signed_by(&key, &self.issuer).map_err(err)?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key` into `dir` and returns the two paths.
    pub fn write(&self, dir: &TempDir, name: &str) -> io::Result<(PathBuf, PathBuf)> {
        Ok((
            dir.write(&format!("{name}.pem"), &self.cert_pem)?,
            dir.write(&format!("{name}.key"), &self.key_pem)?,
        ))
    }

    /// A TLS server with this certificate that agrees to the first of its own `alpn` protocols that the client offers, and
    /// that demands a client certificate of `client_ca` (PEM) where that is given.
    pub fn server_config(
        &self,
        alpn: &[&str],
        client_ca: Option<&str>,
    ) -> Result<Arc<ServerConfig>, CertError> {
        let (chain, key) = self.parsed()?;
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(err)?;
        let builder = match client_ca {
            Some(pem) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
                    .build()
                    .map_err(err)?,
            ),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(err)?;
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn parsed(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertError> {
        let cert = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).map_err(err)?;
        Ok((vec![cert], PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(err)?))
    }
}

/// Versions of TLS that a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientVersions {
    /// 1.2 and 1.3.
    All,
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

/// A TLS client that trusts `ca` (PEM), offers `alpn` in that order and presents `identity` where it is given. Clones of it share their
/// sessions.
pub fn client_config(
    ca: &str,
    alpn: &[&str],
    identity: Option<&Identity>,
    versions: ClientVersions,
) -> Result<Arc<ClientConfig>, CertError> {
    let versions: &[&rustls::SupportedProtocolVersion] = match versions {
        ClientVersions::All => rustls::DEFAULT_VERSIONS,
        ClientVersions::Tls12 => &[&rustls::version::TLS12],
        ClientVersions::Tls13 => &[&rustls::version::TLS13],
    };
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| versions.contains(&suite.version()));
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .map_err(err)?
        .with_root_certificates(roots(ca)?);
    let mut config = match identity {
        Some(identity) => {
            let (chain, key) = identity.parsed()?;
            builder.with_client_auth_cert(chain, key).map_err(err)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// How a client of [`handshake_config`] agrees on the keys of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyExchange {
    /// X25519 alone.
    Classic,
    /// The hybrid of X25519 and ML-KEM-768, and nothing else.
    PostQuantum,
}

/// A TLS 1.3 client that trusts `ca` (PEM), offers exactly one group for the key exchange, and never resumes a session: every
/// connection makes a full handshake.
pub fn handshake_config(
    ca: &str,
    alpn: &[&str],
    key_exchange: KeyExchange,
) -> Result<Arc<ClientConfig>, CertError> {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    let mut provider = default_provider();
    provider.kx_groups = vec![match key_exchange {
        KeyExchange::Classic => kx_group::X25519,
        KeyExchange::PostQuantum => kx_group::X25519MLKEM768,
    }];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(err)?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(pem: &str) -> Result<RootCertStore, CertError> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(pem.as_bytes()).map_err(err)?).map_err(err)?;
    Ok(store)
}
