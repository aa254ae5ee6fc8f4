//! `envoy.filters.http.csrf`: refuses requests that change something and come from another site's pages.
//!
//! What changes something is POST, PUT, DELETE and PATCH; where it comes from says `origin`, else `referer`. A route's policy replaces
//! the filter's. Counted in `http.<stat_prefix>.csrf.*`.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.csrf",
        type_name: "envoy.extensions.filters.http.csrf.v3.CsrfPolicy",
        route_type_name: Some("envoy.extensions.filters.http.csrf.v3.CsrfPolicy"),
        configure: |config, context, path| {
            let policy = Arc::new(config::Policy::read(config, path)?);
            Ok(Arc::new(filter::Factory { policy, stats: context.scope("csrf").group() }))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::Policy::read(config, path)?)),
    }
}
