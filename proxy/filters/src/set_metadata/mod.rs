//! `envoy.filters.http.set_metadata`: puts fixed values into the stream's dynamic metadata.
//!
//! Counted in `http.<stat_prefix>.set_metadata.overwrite_denied`: values that were there already and may not be overwritten.

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
        route_type_name: None,
        configure: |config, context, path| {
            let entries = config::read(config, path)?;
            Ok(Arc::new(filter::Factory { entries, stats: context.scope("set_metadata").group() }))
        },
        configure_route: |_, _, path| {
            Err(crate::route_config::no_route_config(path, "envoy.filters.http.set_metadata"))
        },
    }
}
