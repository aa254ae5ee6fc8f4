//! `http_filters` lowered: the chain in front of the router, and the router.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::accesslog::v3::AccessLog;
use dhow_proto::envoy::extensions::filters::http::router::v3::Router;
use dhow_proto::envoy::extensions::filters::http::router::v3::router::UpstreamAccessLogOptions;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use dhow_proto::google::protobuf::Any;
use dhow_proxy_access_log::LogWriter;
use dhow_proxy_api::{FilterContext, HttpFilterDescriptor};

use super::scalar::timeout_or;
use super::upstream_filters::lower_router_filters;
use super::{ConfiguredFilter, RouterConfig, StrictHeader, UpstreamLogs};

const ROUTER: &str = "envoy.filters.http.router";
pub(super) const ROUTER_TYPE: &str = "envoy.extensions.filters.http.router.v3.Router";

/// The HTTP filters that exist.
#[derive(Clone, Copy, Debug)]
pub struct FilterRegistry {
    /// Their descriptors.
    pub filters: &'static [HttpFilterDescriptor],
}

impl FilterRegistry {
    pub(super) fn of_type(&self, type_name: &str) -> Option<&'static HttpFilterDescriptor> {
        self.filters.iter().find(|filter| filter.type_name == type_name)
    }

    /// The filter that a message of a route is for; some filters take the same message in the chain and of routes.
    pub(super) fn of_route_type(&self, type_name: &str) -> Option<&'static HttpFilterDescriptor> {
        let of_route = self.filters.iter().find(|filter| filter.route_type_name == Some(type_name));
        of_route.or_else(|| self.of_type(type_name))
    }

    fn of_name(&self, name: &str) -> Option<&'static HttpFilterDescriptor> {
        self.filters.iter().find(|filter| filter.name == name)
    }
}

/// Lowers the chain. The router must be its last filter.
pub(super) fn lower_filters(
    filters: Vec<HttpFilter>,
    registry: FilterRegistry,
    log_writer: &Arc<LogWriter>,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
) -> Result<(Vec<ConfiguredFilter>, Option<RouterConfig>), ConfigError> {
    let count = filters.len();
    let mut chain = Vec::new();
    let mut router = None;
    for (i, filter) in filters.into_iter().enumerate() {
        let path = path.index(i);
        let HttpFilter { name, is_optional, disabled, config_type } = filter;
        let config = match config_type {
            Some(http_filter::ConfigType::TypedConfig(config)) => Some(config),
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(ConfigError::unsupported(path.field("config_discovery")));
            }
            None => None,
        };
        let type_name = config.as_ref().map_or("", |config| dhow_proto::any::type_name(&config.type_url));
        if type_name == ROUTER_TYPE || (type_name.is_empty() && name == ROUTER) {
            if i + 1 != count {
                let reason = format!(
                    "Error: terminal filter named {name} of type {ROUTER} must be the last filter in a http filter chain."
                );
                return Err(ConfigError::new(path, reason));
            }
            if disabled {
                let reason = format!(
                    "Error: the last (terminal) filter ({name}) in the chain cannot be disabled by default."
                );
                return Err(ConfigError::new(path, reason));
            }
            if config.is_none() {
                let why = "this filter needs its type: add typed_config with \
                           '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router; a filter \
                           without typed_config is deprecated";
                context.warn(path.field("typed_config"), why);
            }
            let path = path.field("typed_config");
            let lowered = lower_router(config, registry, log_writer, &path, context)?;
            router = Some(RouterConfig { name: name.into(), ..lowered });
            continue;
        }
        let descriptor =
            if type_name.is_empty() { registry.of_name(&name) } else { registry.of_type(type_name) };
        let Some(descriptor) = descriptor else {
            if is_optional {
                let why = format!(
                    "the optional filter '{name}' of type '{type_name}' is not known and is left out"
                );
                context.warn(path, why);
                continue;
            }
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
            return Err(ConfigError::new(path, reason));
        };
        let config = config.unwrap_or_else(|| Any {
            type_url: dhow_proto::any::type_url(descriptor.type_name),
            value: Vec::new(),
        });
        context.name = name.as_str().into();
        let factory = (descriptor.configure)(&config, context, &path.field("typed_config"))?;
        chain.push(ConfiguredFilter { name: name.into(), descriptor: *descriptor, disabled, factory });
    }
    if count > 0 && router.is_none() {
        let last: Option<&ConfiguredFilter> = chain.last();
        let name = last.map_or_else(|| Arc::from(""), |filter| filter.name.clone());
        let type_name = last.map_or("", |filter| filter.descriptor.name);
        let reason = format!(
            "Error: non-terminal filter named {name} of type {type_name} is the last filter in a http filter chain."
        );
        return Err(ConfigError::new(path.index(count - 1), reason));
    }
    Ok((chain, router))
}

fn lower_router(
    config: Option<Any>,
    registry: FilterRegistry,
    log_writer: &Arc<LogWriter>,
    path: &FieldPath,
    context: &mut FilterContext<'_>,
) -> Result<RouterConfig, ConfigError> {
    let Some(config) = config else { return Ok(RouterConfig::default()) };
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = dhow_proto::any::unpack(&config).map_err(|error| error.under(path))?;
    if start_child_span {
        context.warn(path.field("start_child_span"), "without effect: requests are not traced");
    }
    let strict_path = path.field("strict_check_headers");
    let strict = strict_check_headers.iter().enumerate();
    let strict = strict.map(|(at, name)| strict_header(name, &strict_path.index(at)));
    Ok(RouterConfig {
        name: "".into(),
        dynamic_stats: dynamic_stats.is_none_or(|wrapped| wrapped.value),
        suppress_grpc_failure_stats: suppress_grpc_request_failure_code_stats,
        strict_headers: strict.collect::<Result<_, _>>()?,
        suppress_envoy_headers,
        respect_expected_rq_timeout,
        upstream_filters: lower_router_filters(
            upstream_http_filters,
            registry,
            context,
            &path.field("upstream_http_filters"),
        )?,
        rejects_early_data: reject_connect_request_early_data.is_some_and(|b| b.value),
        upstream_logs: lower_upstream_logs(upstream_log, upstream_log_options, log_writer, path)?,
    })
}

/// The logs of attempts; none when there is no log.
fn lower_upstream_logs(
    logs: Vec<AccessLog>,
    options: Option<UpstreamAccessLogOptions>,
    writer: &Arc<LogWriter>,
    path: &FieldPath,
) -> Result<Option<Arc<UpstreamLogs>>, ConfigError> {
    let UpstreamAccessLogOptions { flush_upstream_log_on_upstream_stream, upstream_log_flush_interval } =
        options.unwrap_or_default();
    let interval = timeout_or(upstream_log_flush_interval, None);
    let logs = dhow_proxy_access_log::lower(logs, writer, &path.field("upstream_log"))?;
    let on_stream = flush_upstream_log_on_upstream_stream;
    Ok((!logs.is_empty()).then(|| Arc::new(UpstreamLogs { logs, on_stream, interval })))
}

fn strict_header(name: &str, path: &FieldPath) -> Result<StrictHeader, ConfigError> {
    Ok(match name {
        "x-envoy-upstream-rq-timeout-ms" => StrictHeader::UpstreamRqTimeoutMs,
        "x-envoy-upstream-rq-per-try-timeout-ms" => StrictHeader::UpstreamRqPerTryTimeoutMs,
        "x-envoy-max-retries" => StrictHeader::MaxRetries,
        "x-envoy-retry-on" => StrictHeader::RetryOn,
        "x-envoy-retry-grpc-on" => StrictHeader::RetryGrpcOn,
        _ => {
            let reason = "value must be in list [\"x-envoy-upstream-rq-timeout-ms\", \
                          \"x-envoy-upstream-rq-per-try-timeout-ms\", \"x-envoy-max-retries\", \
                          \"x-envoy-retry-grpc-on\", \"x-envoy-retry-on\"]";
            return Err(ConfigError::new(path.clone(), reason));
        }
    })
}
