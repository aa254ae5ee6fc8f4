//! How connections to the hosts of a cluster are made and shared.

use std::net::SocketAddr;
use std::sync::Arc;

use dhow_net::proxy_protocol::Tlv;
use dhow_net::socket_option::SocketOption;

use crate::happy_eyeballs::FamilyOrder;

/// Settings of a cluster about its connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// `preconnect_policy.per_upstream_preconnect_ratio`, from 1 (connections for the requests there are) to 3.
    pub preconnect_ratio: f32,
    /// `connection_pool_per_downstream_connection`: a connection serves requests of one client connection only.
    pub pool_per_client: bool,
    /// `circuit_breakers.per_host_thresholds.max_connections` in the order of [`crate::RoutingPriority::ALL`];
    /// `u64::MAX` without.
    pub max_per_host: [u64; 2],
    /// `upstream_connection_options.happy_eyeballs_config`.
    pub families: FamilyOrder,
    /// `socket_options` of the bind configuration.
    pub socket_options: Arc<[SocketOption]>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            preconnect_ratio: 1.0,
            pool_per_client: false,
            max_per_host: [u64::MAX; 2],
            families: FamilyOrder::default(),
            socket_options: Arc::default(),
        }
    }
}

/// The client's connection as a PROXY protocol header tells the host about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxiedConnection {
    /// The client's address.
    pub source: SocketAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
    /// Extensions that came with the client's own header.
    pub tlvs: Vec<Tlv>,
}
