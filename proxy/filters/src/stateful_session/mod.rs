//! `envoy.filters.http.stateful_session`: sends the requests of a session to the host that served it before.
//!
//! Which host that was comes with the request, in a cookie, a header, or an envelope around a header of the application; the response brings
//! it back. A route may have a session state of its own or none. With a `stat_prefix` counted in
//! `http.<stat_prefix>.stateful_session.<stat_prefix>.*`.

mod config;
mod cookie;
mod filter;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.stateful_session",
        type_name: "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
        route_type_name: Some("envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"),
        configure: |config, context, path| {
            let settings = config::Settings::read(config, path)?;
            let stats = (!settings.stat_prefix.is_empty())
                .then(|| context.scope(&format!("stateful_session.{}", settings.stat_prefix)).group());
            Ok(Arc::new(filter::Factory { settings: Arc::new(settings), stats }))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::RouteSettings::read(config, path)?)),
    }
}
