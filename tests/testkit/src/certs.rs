//! Certificates made at run time, and TLS endpoints that use them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
pub use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::tempdir::TempDir;

/// A certificate with its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate. What leads from it to the authority may follow.
    pub cert_pem: String,
    /// Its private key (PKCS#8).
    pub key_pem: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Vec<u8>,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key_fingerprint: Vec<u8>,
}

/// What is wrong with a certificate that is issued, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// It was valid until 2020.
    Expired,
    /// It is in [`TestCa::revocation_list`].
    Revoked,
}

/// The serial number of certificates that are revoked.
const REVOKED: [u8; 8] = [0x42; 8];

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

    /// An authority that this one vouches for. Who trusts only this one needs its certificate to verify what it issues.
    pub fn intermediate(&self, name: &str) -> Result<Self, CertError> {
        let key = KeyPair::generate().map_err(err)?;
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(err)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = common_name(name);
        let cert = params.signed_by(&key, &self.issuer).map_err(err)?;
        Ok(Self { cert_pem: cert.pem(), issuer: Issuer::new(params, key) })
    }

    /// The revocation list of this authority, PEM: every certificate with [`Flaw::Revoked`] is in it.
    pub fn revocation_list(&self) -> Result<String, CertError> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(&REVOKED),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 2),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).map_err(err)?.pem().map_err(err)
    }

    /// Issues a certificate for `name` whose subject alternative names are `sans`: IP addresses, URIs (anything with `://`),
    /// DNS names otherwise.
    pub fn issue(&self, name: &str, sans: &[&str]) -> Result<Identity, CertError> {
        self.issue_flawed(name, sans, Flaw::None)
    }

    /// Issues a certificate as [`TestCa::issue`] does, with something wrong about it.
    pub fn issue_flawed(&self, name: &str, sans: &[&str], flaw: Flaw) -> Result<Identity, CertError> {
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
        match flaw {
            Flaw::None => {}
            Flaw::Expired => params.not_after = date_time_ymd(2020, 1, 1),
            Flaw::Revoked => params.serial_number = Some(SerialNumber::from_slice(&REVOKED)),
        }
        let cert = params.signed_by(&key, &self.issuer).map_err(err)?;
        Ok(Identity {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            fingerprint: fingerprint(cert.der()),
            key_fingerprint: fingerprint(&key.subject_public_key_info()),
        })
    }
}

/// SHA-256 of a certificate (DER), or of anything else.
pub fn fingerprint(bytes: &[u8]) -> Vec<u8> {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().map(|suite| suite.common.hash_provider.hash(bytes));
    hash.map(|hash| hash.as_ref().to_vec()).unwrap_or_default()
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
        self.server_config_of(alpn, client_ca, TlsVersions::All)
    }

    /// A TLS server as [`Identity::server_config`] makes it, of these versions.
    pub fn server_config_of(
        &self,
        alpn: &[&str],
        client_ca: Option<&str>,
        versions: TlsVersions,
    ) -> Result<Arc<ServerConfig>, CertError> {
        let (chain, key) = self.parsed()?;
        let provider = provider_of(versions);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions.supported())
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
        let chain = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes());
        let chain = chain.collect::<Result<_, _>>().map_err(err)?;
        Ok((chain, PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(err)?))
    }
}

/// Versions of TLS that one side is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    All,
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

impl TlsVersions {
    fn supported(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        static TLS12: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static TLS13: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::All => rustls::DEFAULT_VERSIONS,
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }
}

/// A TLS client that trusts `ca` (PEM), offers `alpn` in that order and presents `identity` where it is given. Clones of it share their
/// sessions.
pub fn client_config(
    ca: &str,
    alpn: &[&str],
    identity: Option<&Identity>,
    versions: TlsVersions,
) -> Result<Arc<ClientConfig>, CertError> {
    let builder = ClientConfig::builder_with_provider(provider_of(versions))
        .with_protocol_versions(versions.supported())
        .map_err(err)?
        .with_root_certificates(roots(ca)?);
    finished_client(builder, alpn, identity)
}

/// A TLS client like that of [`client_config`] which takes every server for the right one.
pub fn trusting_client_config(
    alpn: &[&str],
    identity: Option<&Identity>,
    versions: TlsVersions,
) -> Result<Arc<ClientConfig>, CertError> {
    let mut provider = provider_of(versions);
    // The group that servers like best is the one that the client has a key for: for another one some would ask, others not.
    use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519};
    Arc::make_mut(&mut provider).kx_groups = vec![X25519, SECP256R1];
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions.supported())
        .map_err(err)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)));
    finished_client(builder, alpn, identity)
}

fn finished_client(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    alpn: &[&str],
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, CertError> {
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

/// Takes every certificate, if only its owner signs with its key.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
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

fn provider_of(versions: TlsVersions) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| versions.supported().contains(&suite.version()));
    Arc::new(provider)
}

fn roots(pem: &str) -> Result<RootCertStore, CertError> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(pem.as_bytes()).map_err(err)?).map_err(err)?;
    Ok(store)
}
