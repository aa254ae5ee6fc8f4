//! How bytes to a host are protected.

use std::sync::Arc;

use dhow_tls::{TlsStats, UpstreamTls};

use crate::connection_options::ProxiedConnection;
use crate::proxy_protocol::ProxyProtocolSocket;

/// `transport_socket` of a cluster, or the entry of `transport_socket_matches` that an endpoint's metadata selects.
#[derive(Clone, Debug, Default)]
pub enum TransportSocket {
    /// `envoy.transport_sockets.raw_buffer`: clear text.
    #[default]
    RawBuffer,
    /// `envoy.transport_sockets.tls`.
    Tls(Arc<UpstreamTls>),
    /// `envoy.transport_sockets.upstream_proxy_protocol`: a header that names the client, then another socket.
    ProxyProtocol(Arc<ProxyProtocolSocket>),
}

/// Sockets that are the same; two of equal configuration have keys, sessions and statistics of their own.
impl PartialEq for TransportSocket {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::RawBuffer, Self::RawBuffer) => true,
            (Self::Tls(a), Self::Tls(b)) => Arc::ptr_eq(a, b),
            (Self::ProxyProtocol(a), Self::ProxyProtocol(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl TransportSocket {
    /// Whether connections are encrypted.
    pub fn is_secure(&self) -> bool {
        match self {
            Self::RawBuffer => false,
            Self::Tls(_) => true,
            Self::ProxyProtocol(socket) => socket.inner.is_secure(),
        }
    }

    /// Counts what happens to the TLS context beside handshakes.
    pub(crate) fn count_in(&self, stats: &TlsStats) {
        match self {
            Self::RawBuffer => {}
            Self::Tls(tls) => tls.count_in(stats),
            Self::ProxyProtocol(socket) => socket.inner.count_in(stats),
        }
    }

    /// Whether the host is told of the client: such connections are for that client only.
    pub fn names_client(&self) -> bool {
        matches!(self, Self::ProxyProtocol(_))
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
    /// The client's connection as a PROXY protocol header tells of it, where the transport socket sends one.
    pub proxied: Option<Arc<ProxiedConnection>>,
    /// The client connection that alone may use the connection (`connection_pool_per_downstream_connection`).
    pub client: Option<u64>,
}
