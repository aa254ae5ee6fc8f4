//! How connections to the hosts of a cluster are made and shared.

use std::net::SocketAddr;
use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::MetadataMatcher;
use dhow_net::proxy_protocol::Tlv;
use dhow_net::socket_option::SocketOption;
use dhow_proto::envoy::r#type::matcher::v3::MetadataMatcher as MetadataMessage;

use crate::happy_eyeballs::FamilyOrder;
use crate::metadata::HostMetadata;

/// Settings of a cluster about its connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// `preconnect_policy.per_upstream_preconnect_ratio`, from 1 (connections for the requests there are) to 3.
    pub preconnect_ratio: f32,
    /// `preconnect_policy.predictive_preconnect_ratio`, from 1 to 3: connections of the whole cluster for the requests that
    /// are to come, to the hosts that will be chosen for them.
    pub predictive_ratio: f32,
    /// `preconnect_policy.preconnect_enabled_metadata`: the hosts for which the first ratio is; all without.
    pub preconnect_hosts: Option<PreconnectHosts>,
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
            predictive_ratio: 1.0,
            preconnect_hosts: None,
            pool_per_client: false,
            max_per_host: [u64::MAX; 2],
            families: FamilyOrder::default(),
            socket_options: Arc::default(),
        }
    }
}

impl ConnectionOptions {
    /// The ratio by which connections to a host with this metadata are made ahead.
    pub fn preconnect_ratio_of(&self, metadata: &HostMetadata) -> f32 {
        match &self.preconnect_hosts {
            Some(hosts) if !hosts.include(metadata) => 1.0,
            _ => self.preconnect_ratio,
        }
    }
}

/// Hosts chosen by their metadata.
#[derive(Clone, Debug)]
pub struct PreconnectHosts {
    message: MetadataMessage,
    matcher: MetadataMatcher,
}

impl PreconnectHosts {
    /// Compiles the message.
    ///
    /// # Errors
    /// As for any matcher of metadata.
    pub(crate) fn compile(message: MetadataMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        Ok(Self { matcher: MetadataMatcher::compile(&message, path)?, message })
    }

    fn include(&self, metadata: &HostMetadata) -> bool {
        self.matcher.matches(metadata.endpoint_struct(self.matcher.namespace()))
    }
}

impl PartialEq for PreconnectHosts {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

/// The client's connection as a PROXY protocol header tells the host about it. Those of the same addresses are equal: a connection
/// carries requests whose clients sent other extensions too, as in Envoy.
#[derive(Clone, Debug)]
pub struct ProxiedConnection {
    /// The client's address and the one that it connected to; none where either is not of IP.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// Extensions that came with the client's own header.
    pub tlvs: Vec<Tlv>,
}

impl PartialEq for ProxiedConnection {
    fn eq(&self, other: &Self) -> bool {
        self.ends == other.ends
    }
}

impl Eq for ProxiedConnection {}
