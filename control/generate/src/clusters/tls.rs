//! TLS towards a cluster's hosts.

use dhow_control_model::Protocol;
use dhow_control_model::istio::{ClientTls, ClientTlsMode};
use dhow_control_model::push::EffectivePolicy;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::core::v3::TransportSocket;
use dhow_proto::envoy::config::core::v3::transport_socket::ConfigType;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3 as envoy;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use dhow_proto::envoy::r#type::matcher::v3::StringMatcher;
use dhow_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::protocol;
use crate::ProxyContext;
use crate::messages::{ads, any, file};

/// The system's authorities where the proxy runs, for rules that name none. Istio's agent looks for them on each machine;
/// Envoy has a field for it that it does not implement, so the usual path stands here and a machine without it refuses the
/// cluster rather than trust anyone.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(crate) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// The settings that make a connection TLS; `ISTIO_MUTUAL` is warned about at validation and stays plaintext.
fn settings(policy: &EffectivePolicy) -> Option<&ClientTls> {
    let tls = policy.tls.as_ref()?;
    matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual).then_some(tls)
}

/// Whether the server name comes from each request, because none is given.
pub(super) fn needs_server_name(policy: &EffectivePolicy) -> bool {
    settings(policy).is_some_and(|tls| tls.sni.is_empty())
}

/// Whether the certificate must be for the server name, because no other names are given.
pub(super) fn verifies_server_name(policy: &EffectivePolicy) -> bool {
    settings(policy)
        .is_some_and(|tls| tls.subject_alt_names.is_empty() && tls.insecure_skip_verify != Some(true))
}

pub(super) fn apply(
    context: &ProxyContext<'_>,
    cluster: &mut Cluster,
    policy: &EffectivePolicy,
    protocol: Protocol,
) {
    let Some(tls) = settings(policy) else { return };
    let http2 = protocol::speaks_http2(context, protocol, policy);
    let mut common = envoy::CommonTlsContext {
        validation_context_type: validation(tls),
        alpn_protocols: if http2 { vec!["h2".to_owned()] } else { Vec::new() },
        ..envoy::CommonTlsContext::default()
    };
    if !tls.credential_name.is_empty() {
        let name = format!("kubernetes://{}", tls.credential_name);
        common.tls_certificate_sds_secret_configs =
            vec![envoy::SdsSecretConfig { name, sds_config: Some(ads()) }];
    } else if tls.mode == ClientTlsMode::Mutual {
        common.tls_certificates = vec![envoy::TlsCertificate {
            certificate_chain: Some(file(&tls.client_certificate)),
            private_key: Some(file(&tls.private_key)),
            ..envoy::TlsCertificate::default()
        }];
    }
    let upstream = envoy::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: tls.sni.clone(),
        ..envoy::UpstreamTlsContext::default()
    };
    cluster.transport_socket = Some(TransportSocket {
        name: TLS_SOCKET.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&upstream))),
    });
}

fn validation(tls: &ClientTls) -> Option<ValidationContextType> {
    if tls.insecure_skip_verify == Some(true) {
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
    let mut context = envoy::CertificateValidationContext {
        match_typed_subject_alt_names: names.collect(),
        crl: (!tls.ca_crl.is_empty()).then(|| file(&tls.ca_crl)),
        ..envoy::CertificateValidationContext::default()
    };
    if !tls.credential_name.is_empty() {
        let secret = envoy::SdsSecretConfig {
            name: format!("kubernetes://{}-cacert", tls.credential_name),
            sds_config: Some(ads()),
        };
        return Some(ValidationContextType::CombinedValidationContext(
            envoy::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(secret),
                ..Default::default()
            },
        ));
    }
    let authorities = if tls.ca_certificates.is_empty() { SYSTEM_AUTHORITIES } else { &tls.ca_certificates };
    context.trusted_ca = Some(file(authorities));
    Some(ValidationContextType::ValidationContext(context))
}
