//! `envoy.filters.http.set_metadata`: puts fixed values into the stream's dynamic metadata.
//!
//! The most specific level of a route adds to what the filter sets. Counted in `http.<stat_prefix>.set_metadata.overwrite_denied`, for
//! levels of routes in `set_metadata.overwrite_denied`: values that were there already and may not be overwritten.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.set_metadata",
        type_name: "envoy.extensions.filters.http.set_metadata.v3.Config",
        route_type_name: Some("envoy.extensions.filters.http.set_metadata.v3.Config"),
        configure: |config, context, path| {
            let settings = filter::Settings {
                entries: config::read(config, path)?,
                stats: context.scope("set_metadata").group(),
            };
            Ok(Arc::new(filter::Factory(Arc::new(settings))))
        },
        configure_route: |config, context, path| {
            let entries = config::read(config, path)?;
            Ok(Arc::new(filter::Settings { entries, stats: context.stats.scope("set_metadata").group() }))
        },
    }
}
