//! `envoy.filters.http.fault`: delays and aborts of a share of the requests, and responses that come slowly, to see how callers
//! take them.
//!
//! A delay comes before an abort, and both can hit the same request; each draws its own lot. Runtime keys, also of the calling service,
//! override shares, durations and statuses. A route's configuration replaces the filter's. Counted in
//! `http.<stat_prefix>.fault.*`.

mod config;
mod filter;
mod runtime_keys;
#[cfg(test)]
mod tests;
mod throttle;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.fault",
        type_name: "envoy.extensions.filters.http.fault.v3.HTTPFault",
        route_type_name: Some("envoy.extensions.filters.http.fault.v3.HTTPFault"),
        configure: |config, context, path| {
            let settings = config::Settings::read(config, path)?;
            let stats = context.scope("fault").group();
            Ok(Arc::new(filter::Factory { name: context.name.clone(), settings: Arc::new(settings), stats }))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::Settings::read(config, path)?)),
    }
}
