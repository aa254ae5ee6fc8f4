//! How bytes to a host are protected.

use std::sync::Arc;

use dhow_tls::{TlsStats, UpstreamTls};

use crate::connection_options::ProxiedConnection;
use crate::host::Host;
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

/// A transport socket that was chosen for a connection, instead of that of its host.
#[derive(Clone, Debug)]
pub struct ChosenSocket {
    /// The entry of `transport_socket_matches`, or `default`.
    pub name: Arc<str>,
    /// The socket.
    pub socket: TransportSocket,
}

/// What one request or protocol asks of the transport socket, over the cluster's configuration. Connections with different
/// options are not shared.
#[derive(Clone, Debug, Default)]
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
    /// Objects of the filter state that go along to the connection and tell it from others, as text.
    pub shared: Vec<Vec<u8>>,
    /// The transport socket in place of the host's, where a matcher reads the filter state of the request. It does not tell
    /// connections apart: those of a pool have that of the request which came first, as in Envoy.
    pub socket: Option<ChosenSocket>,
}

/// Names and protocols in other letters are the same, as in Envoy.
impl PartialEq for SecureOptions {
    fn eq(&self, other: &Self) -> bool {
        let Self { server_name, verify_names, alpn_override, alpn, proxied, client, shared, socket: _ } =
            self;
        let same = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
        all_alike(server_name.as_slice(), other.server_name.as_slice(), |a, b| {
            same(a.as_bytes(), b.as_bytes())
        }) && all_alike(verify_names, &other.verify_names, |a, b| same(a.as_bytes(), b.as_bytes()))
            && all_alike(alpn_override, &other.alpn_override, |a, b| same(a, b))
            && *alpn == other.alpn
            && *proxied == other.proxied
            && *client == other.client
            && *shared == other.shared
    }
}

impl Eq for SecureOptions {}

fn all_alike<T>(one: &[T], other: &[T], alike: impl Fn(&T, &T) -> bool) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| alike(a, b))
}

impl SecureOptions {
    /// The transport socket of connections to the host.
    pub fn socket_for<'a>(&'a self, host: &'a Host) -> &'a TransportSocket {
        self.socket.as_ref().map_or(host.transport_socket(), |chosen| &chosen.socket)
    }
}
