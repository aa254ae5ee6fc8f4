//! `envoy.filters.http.cors`: cross-origin resource sharing by the policies of routes.
//!
//! Preflights of allowed origins are answered here; other responses to allowed origins get the headers that let the browser hand
//! them to the page. Without a policy on the route nothing happens. Counted in `http.<stat_prefix>.cors.*`.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proto::envoy::extensions::filters::http::cors::v3::Cors;
use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.cors",
        type_name: "envoy.extensions.filters.http.cors.v3.Cors",
        route_type_name: Some("envoy.extensions.filters.http.cors.v3.CorsPolicy"),
        configure: |config, context, path| {
            let Cors {} = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
            let stats = context.scope("cors").group();
            Ok(Arc::new(filter::Factory { stats }))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::Policy::read(config, path)?)),
    }
}
