//! `envoy.filters.http.dynamic_forward_proxy`: has the host that a request names resolved before the request goes on to a cluster that
//! takes its hosts from requests.
//!
//! A route may name another host, and so may the filter state of the stream. The address of the host may be left on the stream, for
//! the rules of `rbac`. The names are kept by the cluster (`envoy.clusters.dynamic_forward_proxy`), whose cache has the
//! same settings; what it counts is under `dns_cache.<name>.*`. A name that does not resolve is answered 503 (`DF`).

mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use filter::UPSTREAM_ADDRESS;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.dynamic_forward_proxy",
        type_name: "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
        route_type_name: Some("envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig"),
        configure: |config, context, path| {
            Ok(Arc::new(filter::Factory(config::read(config, context, path)?)))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::HostRewrite::read(config, path)?)),
    }
}
