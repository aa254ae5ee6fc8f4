//! `envoy.filters.http.match_delegate` (`ExtensionWithMatcher`): another filter, skipped where a matching tree says so.
//!
//! A route may bring another tree, or configuration of the filter inside. Without stats of its own.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.match_delegate",
        type_name: "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        route_type_name: Some("envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute"),
        configure: |config, context, path| Ok(Arc::new(config::read(config, context, path)?)),
        configure_route: config::read_route,
    }
}
