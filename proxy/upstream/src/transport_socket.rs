//! How bytes to a host are protected.

use std::sync::Arc;

use dhow_tls::UpstreamTls;

/// `transport_socket` of a cluster, or the entry of `transport_socket_matches` that an endpoint's metadata selects.
#[derive(Clone, Debug, Default)]
pub enum TransportSocket {
    /// `envoy.transport_sockets.raw_buffer`: clear text.
    #[default]
    RawBuffer,
    /// `envoy.transport_sockets.tls`.
    Tls(Arc<UpstreamTls>),
}

impl TransportSocket {
    /// Whether connections are encrypted.
    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// What one request or protocol asks of the transport socket, over the cluster's configuration. Connections with different
/// options are not shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SecureOptions {
    /// SNI instead of the configured one (`auto_sni`).
    pub server_name: Option<String>,
    /// Names that the certificate must be for one of, instead of the configured ones (`auto_san_validation`).
    pub verify_names: Vec<String>,
    /// Protocols to offer by ALPN whatever the configuration names; empty offers those.
    pub alpn_override: Vec<Vec<u8>>,
    /// Protocols to offer by ALPN when the configuration names none, such as `h2` and `http/1.1`.
    pub alpn: Vec<Vec<u8>>,
}
