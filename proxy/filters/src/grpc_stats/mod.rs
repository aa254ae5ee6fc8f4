//! `envoy.filters.http.grpc_stats`: counts gRPC calls and their messages, by service and method.
//!
//! Counted in `cluster.<name>.grpc.[<service>.<method>.]{success,failure,total,<status>,request_message_count,response_message_count}`,
//! created when first needed. Requests that are not gRPC cost a look at their content type.

mod config;
mod counter;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.grpc_stats",
        type_name: "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        route_type_name: None,
        configure: |config, _, path| {
            Ok(Arc::new(filter::Factory(Arc::new(config::Settings::read(config, path)?))))
        },
        configure_route: |_, _, path| {
            Err(crate::route_config::no_route_config(path, "envoy.filters.http.grpc_stats"))
        },
    }
}
