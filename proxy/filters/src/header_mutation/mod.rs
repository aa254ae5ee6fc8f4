//! `envoy.filters.http.header_mutation`: adds, replaces and removes headers and trailers of requests and
//! responses, and query parameters.
//!
//! The filter's own mutations come first, then those of the route, its virtual host and its table, or the other way round with
//! `most_specific_header_mutations_wins`. Each mutation sees what those before it did. No stats.

mod config;
mod filter;
mod query;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.header_mutation",
        type_name: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        route_type_name: Some("envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"),
        configure: |config, _, path| Ok(Arc::new(filter::Factory::new(config::Filter::read(config, path)?))),
        configure_route: |config, _, path| Ok(Arc::new(config::Mutations::read_route(config, path)?)),
    }
}
