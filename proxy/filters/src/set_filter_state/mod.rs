//! `envoy.filters.http.set_filter_state`: puts formatted values into the stream's filter state.
//!
//! What kind of object a value becomes is said by its factory; a value that is none of its kind is left out. The levels of a route add to
//! what the filter sets, the least specific first. No stats.

mod config;
mod filter;
mod object;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use config::Object;
use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.set_filter_state",
        type_name: "envoy.extensions.filters.http.set_filter_state.v3.Config",
        route_type_name: Some("envoy.extensions.filters.http.set_filter_state.v3.Config"),
        configure: |config, _, path| {
            Ok(Arc::new(filter::Factory(Arc::new(config::Settings::read(config, path)?))))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::Settings::read(config, path)?)),
    }
}
