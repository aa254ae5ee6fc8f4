//! `forward_client_cert_matcher`: what is done with `x-forwarded-client-cert`, request by request.

use std::borrow::Cow;
use std::net::SocketAddr;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderMap;
use dhow_matching::generic::{CertificateName, InputFamily, MatchData, MatchOptions, MatchTree};
use dhow_proto::any;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use dhow_proto::xds::core::v3::TypedExtensionConfig;
use dhow_proto::xds::r#type::matcher::v3::Matcher;
use dhow_proxy_api::ConnectionInfo;
use dhow_runtime_config::{Current, RuntimeValues};

use super::ClientCertificateConfig;

const ACTION: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertConfig";

/// The compiled matcher.
#[derive(Debug)]
pub struct CertificateChoice(MatchTree<ClientCertificateConfig>);

/// Compiles the matcher.
pub(crate) fn compile_choice(message: &Matcher, path: &FieldPath) -> Result<CertificateChoice, ConfigError> {
    let mut options = MatchOptions {
        inputs: InputFamily::Http,
        admit: &admit,
        keep_matching: false,
        expressions: None,
        action: &mut compile_action,
    };
    MatchTree::compile(message, path, &mut options).map(CertificateChoice)
}

/// What filters leave behind is not there yet.
fn admit(input: &str) -> Result<(), String> {
    match input {
        "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput"
        | "envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput" => {
            Err(format!("{input} is not supported here: only the request and its connection are looked at"))
        }
        _ => Ok(()),
    }
}

fn compile_action(
    message: &TypedExtensionConfig,
    path: &FieldPath,
) -> Result<ClientCertificateConfig, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let type_name = any::type_name(&config.type_url);
    if type_name != ACTION {
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
        return Err(ConfigError::new(path, reason));
    }
    let hcm::ForwardClientCertConfig { forward_client_cert_details, set_current_client_cert_details } =
        any::unpack(config).map_err(|error| error.under(&path))?;
    ClientCertificateConfig::lower(forward_client_cert_details, set_current_client_cert_details, &path)
}

impl CertificateChoice {
    /// What is done for a request, where the matcher says something about it.
    pub(crate) fn choose(
        &self,
        connection: &ConnectionInfo,
        head: &HeaderMap,
    ) -> Option<&ClientCertificateConfig> {
        self.0.evaluate(&RequestFacts { connection, head }).action()
    }
}

struct RequestFacts<'a> {
    connection: &'a ConnectionInfo,
    head: &'a HeaderMap,
}

impl MatchData for RequestFacts<'_> {
    fn request_headers(&self) -> Option<&HeaderMap> {
        Some(self.head)
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.connection.local_address.as_ip()
    }

    fn source(&self) -> Option<SocketAddr> {
        self.connection.remote_address.as_ip()
    }

    fn direct_source(&self) -> Option<SocketAddr> {
        self.connection.remote_address.as_ip()
    }

    fn server_name(&self) -> Option<&str> {
        self.connection.requested_server_name.as_deref()
    }

    fn transport_protocol(&self) -> Option<&str> {
        Some(if self.connection.tls.is_expected() { "tls" } else { "raw_buffer" })
    }

    fn certificate(&self, name: CertificateName) -> Option<Cow<'_, str>> {
        let peer = self.connection.tls.session()?.peer.as_ref()?;
        Some(match name {
            CertificateName::UriSans => peer.uris.join(",").into(),
            CertificateName::DnsSans => peer.dns_names.join(",").into(),
            CertificateName::Subject => peer.subject.as_str().into(),
        })
    }

    fn runtime(&self) -> &dyn RuntimeValues {
        &Current
    }
}
