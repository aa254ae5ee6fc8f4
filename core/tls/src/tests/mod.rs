//! Handshakes over socket pairs, with certificates made on the spot.

mod configuration;
mod handshakes;
mod lenient;
mod resumption;

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_net::Transport;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio::net::UnixStream;

use crate::pb::common_tls_context::ValidationContextType;
use crate::pb::{
    CertificateValidationContext, CommonTlsContext, DataSource, DownstreamTlsContext, StringMatcherMessage,
    SubjectAltNameMatcher, TlsCertificate, TlsParameters, UpstreamTlsContext, data_source, string_matcher,
    subject_alt_name_matcher,
};
use crate::{ConnectOptions, DownstreamTls, TlsInfo, UpstreamTls};

/// An authority that issues certificates.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn issue(&self, dns: &[&str], uris: &[&str]) -> Issued {
        let mut params =
            CertificateParams::new(dns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.distinguished_name.push(DnType::OrganizationName, "Dhow, Tests");
        params.distinguished_name.push(DnType::CommonName, dns.first().copied().unwrap_or("leaf"));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

fn inline(text: &str) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.to_owned())),
        watched_directory: None,
    }
}

fn certificate(issued: &Issued) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: Some(inline(&issued.certificate)),
        private_key: Some(inline(&issued.key)),
        ..Default::default()
    }
}

fn trusting(authority: &Authority) -> CertificateValidationContext {
    CertificateValidationContext { trusted_ca: Some(inline(&authority.pem())), ..Default::default() }
}

fn common(
    certificates: &[&Issued],
    validation: Option<CertificateValidationContext>,
    alpn: &[&str],
) -> CommonTlsContext {
    CommonTlsContext {
        tls_certificates: certificates.iter().map(|issued| certificate(issued)).collect(),
        validation_context_type: validation.map(ValidationContextType::ValidationContext),
        alpn_protocols: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
        ..Default::default()
    }
}

fn server_message(common: CommonTlsContext) -> DownstreamTlsContext {
    DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() }
}

fn client_message(common: CommonTlsContext) -> UpstreamTlsContext {
    UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() }
}

fn server(message: &DownstreamTlsContext) -> Result<(DownstreamTls, Vec<ConfigWarning>), ConfigError> {
    let mut warnings = Vec::new();
    let secrets = Arc::default();
    DownstreamTls::from_message(message, &secrets, &FieldPath::from("tls"), &mut warnings)
        .map(|tls| (tls, warnings))
}

fn client(message: &UpstreamTlsContext) -> Result<(UpstreamTls, Vec<ConfigWarning>), ConfigError> {
    let mut warnings = Vec::new();
    let secrets = Arc::default();
    UpstreamTls::from_message(message, &secrets, &FieldPath::from("tls"), &mut warnings)
        .map(|tls| (tls, warnings))
}

type Side = std::io::Result<(Transport, TlsInfo)>;

/// Both sides of a handshake over a socket pair.
async fn shake(client: &UpstreamTls, server: &DownstreamTls, options: &ConnectOptions) -> (Side, Side) {
    let (near, far) = UnixStream::pair().unwrap();
    tokio::join!(client.connect(Transport::Unix(near), options), server.accept(Transport::Unix(far)))
}

/// Runs a test on one thread, with a deadline instead of waiting for ever.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test took more than 20 s");
    });
}

fn exact(text: &str) -> StringMatcherMessage {
    StringMatcherMessage {
        match_pattern: Some(string_matcher::MatchPattern::Exact(text.to_owned())),
        ..Default::default()
    }
}

fn name(kind: subject_alt_name_matcher::SanType, text: &str) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher { san_type: kind as i32, matcher: Some(exact(text)), oid: String::new() }
}

fn with_names(authority: &Authority, names: Vec<SubjectAltNameMatcher>) -> CertificateValidationContext {
    CertificateValidationContext { match_typed_subject_alt_names: names, ..trusting(authority) }
}

fn up_to_13() -> TlsParameters {
    TlsParameters { tls_maximum_protocol_version: 4, ..Default::default() }
}
