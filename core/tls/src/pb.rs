//! The messages that this crate lowers.

pub(crate) use dhow_proto::envoy::config::core::v3::{DataSource, data_source};
pub(crate) use dhow_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
    SubjectAltNameMatcher, TlsCertificate, TlsParameters, TlsSessionTicketKeys, UpstreamTlsContext,
    certificate_validation_context, common_tls_context, downstream_tls_context, secret,
    subject_alt_name_matcher, tls_parameters,
};
pub(crate) use dhow_proto::envoy::r#type::matcher::v3::{
    StringMatcher as StringMatcherMessage, string_matcher,
};
