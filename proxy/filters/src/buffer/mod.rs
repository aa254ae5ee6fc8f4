//! `envoy.filters.http.buffer`: requests go on once they are there whole, with their length.
//!
//! A request above the limit is answered 413. A route may have a limit of its own or switch the filter off. Without statistics of
//! its own: the connection manager counts `downstream_rq_too_large`.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.buffer",
        type_name: "envoy.extensions.filters.http.buffer.v3.Buffer",
        route_type_name: Some("envoy.extensions.filters.http.buffer.v3.BufferPerRoute"),
        configure: |config, _, path| Ok(Arc::new(filter::Factory(config::read(config, path)?))),
        configure_route: |config, _, path| Ok(Arc::new(config::RouteLimit::read(config, path)?)),
    }
}
