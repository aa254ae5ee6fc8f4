//! The network filters in front of a terminal one: what they say about a connection before anything is proxied.

mod connection_limit;
mod local_ratelimit;
mod rbac;
mod set_filter_state;
mod sni_cluster;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::ReadFilterFactory;
use dhow_stats::Store;

/// Builds a filter from its configuration.
pub type ConfigureNetworkFilter =
    fn(&Any, &Store, &FieldPath, &mut Vec<ConfigWarning>) -> Result<Arc<dyn ReadFilterFactory>, ConfigError>;

/// A network filter that exists.
#[derive(Clone, Copy, Debug)]
pub struct NetworkFilterDescriptor {
    /// Full name of its message.
    pub type_name: &'static str,
    /// Builds it.
    pub configure: ConfigureNetworkFilter,
}

/// The filters of this folder, in alphabetical order.
pub const NETWORK_FILTERS: [NetworkFilterDescriptor; 5] = [
    connection_limit::DESCRIPTOR,
    local_ratelimit::DESCRIPTOR,
    rbac::DESCRIPTOR,
    set_filter_state::DESCRIPTOR,
    sni_cluster::DESCRIPTOR,
];
