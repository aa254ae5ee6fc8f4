//! The HTTP filters, a folder each, and the network filters in front of a terminal one: configuration, behaviour, stats and local
//! replies as Envoy has them. They must not know how a stream is read, routed or forwarded: what they see of it is in
//! `dhow-proxy-api`.

use std::sync::LazyLock;

use dhow_proxy_api::HttpFilterDescriptor;

mod buffer;
mod cors;
mod csrf;
mod dynamic_forward_proxy;
mod fault;
#[cfg(test)]
mod fixtures;
mod grpc_stats;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod local_ratelimit;
mod lots;
mod match_delegate;
mod network;
mod rbac;
mod registry;
mod route_config;
mod set_filter_state;
mod set_metadata;
mod stateful_session;

pub use network::{NETWORK_FILTERS, NetworkFilterDescriptor};

/// The descriptor of every filter, in alphabetical order of their folders.
pub fn all() -> &'static [HttpFilterDescriptor] {
    static ALL: LazyLock<Vec<HttpFilterDescriptor>> = LazyLock::new(registry::descriptors);
    &ALL
}
