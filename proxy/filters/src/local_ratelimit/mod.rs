//! `envoy.filters.http.local_ratelimit`: a token bucket in front of a listener or a route.
//!
//! All workers draw from the same bucket; a route with its own configuration has its own, and so may each connection. Descriptors of
//! requests, by the actions of the route or of the filter, have buckets besides. Counted under the configuration's own
//! `stat_prefix`, in `<stat_prefix>.http_local_rate_limit.*`.

mod bucket;
mod config;
mod filter;
mod limiter;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use bucket::{BucketSize, TokenBucket};
pub(crate) use config::{FILL_TIMER, read_bucket};
use dhow_base::{ConfigError, FieldPath};
use dhow_proxy_api::HttpFilterDescriptor;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.local_ratelimit",
        type_name: "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        route_type_name: Some("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"),
        configure: |config, context, path| {
            let limit = config::Limit::read(config, context.stats, path, false)?;
            check_local_cluster(&limit, context.local_cluster, path)?;
            Ok(Arc::new(filter::Factory::new(limit, context)))
        },
        configure_route: |config, context, path| {
            let limit = config::Limit::read(config, context.stats, path, true)?;
            check_local_cluster(&limit, context.local_cluster, path)?;
            Ok(Arc::new(limit))
        },
    }
}

/// Tokens can only be shared with the hosts of a cluster that is known.
fn check_local_cluster(
    limit: &config::Limit,
    local_cluster: &str,
    path: &FieldPath,
) -> Result<(), ConfigError> {
    if limit.shared && local_cluster.is_empty() {
        let reason = "local_cluster_rate_limit is set but no local cluster name is present";
        return Err(ConfigError::new(path.field("local_cluster_rate_limit"), reason));
    }
    Ok(())
}
