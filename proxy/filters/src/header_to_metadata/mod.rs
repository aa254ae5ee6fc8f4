//! `envoy.filters.http.header_to_metadata`: copies headers and cookies into the stream's dynamic metadata.
//!
//! A route's rules replace the filter's. With a `stat_prefix` of its own the filter counts in
//! `http_filter_name.<stat_prefix>.*`; values that are no values of their type are left out.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.header_to_metadata",
        type_name: "envoy.extensions.filters.http.header_to_metadata.v3.Config",
        route_type_name: Some("envoy.extensions.filters.http.header_to_metadata.v3.Config"),
        configure: |config, context, path| {
            let rules = config::Rules::read(config, path)?;
            Ok(Arc::new(filter::Factory::new(rules, context.stats)))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::Rules::read_route(config, path)?)),
    }
}
