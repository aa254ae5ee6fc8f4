//! `envoy.filters.http.health_check`: answers the health checks of others.
//!
//! By itself, by the health of clusters, or by passing a check on from time to time and answering the others like it. Checks are not counted
//! as requests; those that the filter answers are in `http.<stat_prefix>.health_check.*`, and failures have the flag `LH`.

mod cache;
mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.health_check",
        type_name: "envoy.extensions.filters.http.health_check.v3.HealthCheck",
        route_type_name: None,
        configure: |config, context, path| {
            let settings = config::Settings::read(config, path)?;
            let stats = context.scope("health_check").group();
            Ok(Arc::new(filter::Factory::new(settings, stats, context.node_cluster)))
        },
        configure_route: |_, _, path| {
            Err(crate::route_config::no_route_config(path, "envoy.filters.http.health_check"))
        },
    }
}
