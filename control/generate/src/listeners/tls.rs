//! TLS that ends at a gateway.

use dhow_control_model::Protocol;
use dhow_control_model::istio::{ServerTls, ServerTlsMode, TlsProtocol};
use dhow_control_model::push::MergedServer;
use dhow_proto::envoy::config::core::v3::TransportSocket;
use dhow_proto::envoy::config::core::v3::transport_socket::ConfigType;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3 as envoy;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol as EnvoyProtocol;
use dhow_proto::envoy::r#type::matcher::v3::StringMatcher;
use dhow_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use crate::messages::{ads, any, file, truth};

const SOCKET: &str = "envoy.transport_sockets.tls";
/// Istio's cipher suites of TLS 1.2 for servers that name none.
const CIPHERS: [&str; 4] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
];

/// The transport socket of a server that terminates TLS.
pub(super) fn socket(server: &MergedServer, tls: &ServerTls) -> TransportSocket {
    let alpn: &[&str] = if server.protocol() == Protocol::Https { &["h2", "http/1.1"] } else { &[] };
    let mut common = envoy::CommonTlsContext {
        tls_params: Some(parameters(tls)),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        validation_context_type: validation(tls),
        ..envoy::CommonTlsContext::default()
    };
    let secrets: Vec<&String> = std::iter::once(&tls.credential_name)
        .filter(|name| !name.is_empty())
        .chain(&tls.credential_names)
        .collect();
    if secrets.is_empty() {
        common.tls_certificates = certificates(tls);
    } else {
        common.tls_certificate_sds_secret_configs =
            secrets.into_iter().map(|name| secret(&format!("kubernetes://{name}"))).collect();
    }
    let required = tls.mode == ServerTlsMode::Mutual;
    let context = envoy::DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: truth(required),
        ..envoy::DownstreamTlsContext::default()
    };
    TransportSocket { name: SOCKET.to_owned(), config_type: Some(ConfigType::TypedConfig(any(&context))) }
}

fn secret(name: &str) -> envoy::SdsSecretConfig {
    envoy::SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) }
}

fn certificates(tls: &ServerTls) -> Vec<envoy::TlsCertificate> {
    let certificate = |chain: &str, key: &str| envoy::TlsCertificate {
        certificate_chain: Some(file(chain)),
        private_key: Some(file(key)),
        ..envoy::TlsCertificate::default()
    };
    if tls.tls_certificates.is_empty() {
        return vec![certificate(&tls.server_certificate, &tls.private_key)];
    }
    tls.tls_certificates.iter().map(|own| certificate(&own.server_certificate, &own.private_key)).collect()
}

fn parameters(tls: &ServerTls) -> envoy::TlsParameters {
    let version = |version: TlsProtocol, otherwise: EnvoyProtocol| match version {
        TlsProtocol::Auto => otherwise,
        TlsProtocol::V1_0 => EnvoyProtocol::TlSv10,
        TlsProtocol::V1_1 => EnvoyProtocol::TlSv11,
        TlsProtocol::V1_2 => EnvoyProtocol::TlSv12,
        TlsProtocol::V1_3 => EnvoyProtocol::TlSv13,
    };
    let ciphers = if tls.cipher_suites.is_empty() {
        CIPHERS.map(str::to_owned).to_vec()
    } else {
        tls.cipher_suites.clone()
    };
    envoy::TlsParameters {
        tls_minimum_protocol_version: version(tls.min_protocol_version, EnvoyProtocol::TlSv12).into(),
        tls_maximum_protocol_version: version(tls.max_protocol_version, EnvoyProtocol::TlsAuto).into(),
        cipher_suites: ciphers,
        ecdh_curves: tls.ecdh_curves.clone(),
        ..envoy::TlsParameters::default()
    }
}

/// How client certificates are checked; `None` when none is asked for.
fn validation(tls: &ServerTls) -> Option<ValidationContextType> {
    if !matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        return None;
    }
    let names = tls.subject_alt_names.iter().flat_map(|name| {
        [SanType::Dns, SanType::Uri].map(|san_type| envoy::SubjectAltNameMatcher {
            san_type: san_type.into(),
            matcher: Some(StringMatcher {
                match_pattern: Some(MatchPattern::Exact(name.clone())),
                ignore_case: false,
            }),
            oid: String::new(),
        })
    });
    let trust = if tls.insecure_skip_verify == Some(true) {
        TrustChainVerification::AcceptUntrusted
    } else {
        TrustChainVerification::VerifyTrustChain
    };
    let listed =
        tls.tls_certificates.iter().map(|own| own.ca_certificates.as_str()).find(|path| !path.is_empty());
    let authorities =
        if tls.ca_certificates.is_empty() { listed.unwrap_or_default() } else { &tls.ca_certificates };
    let context = envoy::CertificateValidationContext {
        trusted_ca: (!authorities.is_empty()).then(|| file(authorities)),
        verify_certificate_spki: tls.verify_certificate_spki.clone(),
        verify_certificate_hash: tls.verify_certificate_hash.clone(),
        match_typed_subject_alt_names: names.collect(),
        crl: (!tls.ca_crl.is_empty()).then(|| file(&tls.ca_crl)),
        trust_chain_verification: trust.into(),
        ..envoy::CertificateValidationContext::default()
    };
    if !authorities.is_empty() {
        return Some(ValidationContextType::ValidationContext(context));
    }
    let name = if !tls.ca_cert_credential_name.is_empty() {
        format!("kubernetes://{}", tls.ca_cert_credential_name)
    } else {
        format!("kubernetes://{}-cacert", tls.credential_name)
    };
    Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(secret(&name)),
        ..CombinedCertificateValidationContext::default()
    }))
}
