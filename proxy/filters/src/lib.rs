//! The HTTP filters, a folder each: configuration, behaviour, stats and local replies as Envoy has them. They must not know how
//! a stream is read, routed or forwarded: what they see of it is in `dhow-proxy-api`.

use std::sync::LazyLock;

use dhow_proxy_api::HttpFilterDescriptor;

mod cors;
mod fault;
#[cfg(test)]
mod fixtures;
mod header_mutation;
mod local_ratelimit;
mod lots;
mod rbac;
mod registry;
mod route_config;

/// The descriptor of every filter, in alphabetical order of their folders.
pub fn all() -> &'static [HttpFilterDescriptor] {
    static ALL: LazyLock<Vec<HttpFilterDescriptor>> = LazyLock::new(registry::descriptors);
    &ALL
}
