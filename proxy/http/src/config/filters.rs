//! `http_filters` lowered: the chain in front of the router, and the router.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::extensions::filters::http::router::v3::Router;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::{FilterContext, HttpFilterDescriptor, Watches};

use super::{ConfiguredFilter, RouterConfig, StrictHeader};

const ROUTER: &str = "envoy.filters.http.router";
const UPSTREAM_CODEC: &str = "envoy.filters.http.upstream_codec";
const UPSTREAM_CODEC_TYPE: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
const HEADER_MUTATION: &str = "envoy.filters.http.header_mutation";
const ROUTER_TYPE: &str = "envoy.extensions.filters.http.router.v3.Router";

/// The HTTP filters that exist.
#[derive(Clone, Copy, Debug)]
pub struct FilterRegistry {
    /// Their descriptors.
    pub filters: &'static [HttpFilterDescriptor],
}

impl FilterRegistry {
    fn of_type(&self, type_name: &str) -> Option<&'static HttpFilterDescriptor> {
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
            if config.is_none() {
                let why = "this filter needs its type: add typed_config with \
                           '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router; a filter \
                           without typed_config is deprecated";
                context.warn(path.field("typed_config"), why);
            }
            router = Some(lower_router(config, registry, &path.field("typed_config"), context)?);
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
    let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
    if start_child_span {
        context.warn(path.field("start_child_span"), "without effect: requests are not traced");
    }
    refuse(!upstream_log.is_empty(), "upstream_log")?;
    refuse(upstream_log_options.is_some(), "upstream_log_options")?;
    refuse(reject_connect_request_early_data.is_some_and(|b| b.value), "reject_connect_request_early_data")?;
    let strict_path = path.field("strict_check_headers");
    let strict = strict_check_headers.iter().enumerate();
    let strict = strict.map(|(at, name)| strict_header(name, &strict_path.index(at)));
    Ok(RouterConfig {
        dynamic_stats: dynamic_stats.is_none_or(|wrapped| wrapped.value),
        suppress_grpc_failure_stats: suppress_grpc_request_failure_code_stats,
        strict_headers: strict.collect::<Result<_, _>>()?,
        suppress_envoy_headers,
        respect_expected_rq_timeout,
        upstream_filters: lower_upstream_filters(
            upstream_http_filters,
            registry,
            context,
            &path.field("upstream_http_filters"),
        )?,
    })
}

/// Lowers the filters in front of the upstream codec, which must be the last one.
fn lower_upstream_filters(
    filters: Vec<HttpFilter>,
    registry: FilterRegistry,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
) -> Result<Vec<ConfiguredFilter>, ConfigError> {
    const CHAIN: &str = "in a router upstream http filter chain.";
    let mut chain: Vec<ConfiguredFilter> = Vec::new();
    let count = filters.len();
    for (at, filter) in filters.into_iter().enumerate() {
        let path = path.index(at);
        let HttpFilter { name, is_optional, disabled, config_type } = filter;
        let Some(http_filter::ConfigType::TypedConfig(config)) = config_type else {
            return Err(ConfigError::unsupported(path.field("config_discovery")));
        };
        let type_name = dhow_proto::any::type_name(&config.type_url);
        if type_name == UPSTREAM_CODEC_TYPE {
            if at + 1 != count {
                let reason = format!(
                    "Error: terminal filter named {name} of type {UPSTREAM_CODEC} must be the last filter {CHAIN}"
                );
                return Err(ConfigError::new(path, reason));
            }
            if disabled {
                let reason = format!(
                    "Error: the last (terminal) filter ({name}) in the chain cannot be disabled by default."
                );
                return Err(ConfigError::new(path.field("disabled"), reason));
            }
            return Ok(chain);
        }
        let Some(descriptor) = registry.of_type(type_name).filter(|filter| filter.name == HEADER_MUTATION)
        else {
            if is_optional && registry.of_type(type_name).is_none() {
                let why = format!(
                    "the optional filter '{name}' of type '{type_name}' is not known and is left out"
                );
                context.warn(path, why);
                continue;
            }
            let reason = format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{type_name}': in front of the \
                 upstream codec only {HEADER_MUTATION} is supported yet"
            );
            return Err(ConfigError::new(path, reason));
        };
        context.name = name.as_str().into();
        let factory = (descriptor.configure)(&config, context, &path.field("typed_config"))?;
        if factory.create(&[]).is_some_and(|filter| filter.watches() != Watches::NOTHING) {
            let reason = "trailers are not edited in front of the upstream codec yet";
            return Err(ConfigError::new(path.field("typed_config"), reason));
        }
        chain.push(ConfiguredFilter { name: name.into(), descriptor: *descriptor, disabled, factory });
    }
    match chain.last() {
        None => Ok(chain),
        Some(last) => {
            let reason = format!(
                "Error: non-terminal filter named {} of type {} is the last filter {CHAIN} When upstream_http_filters \
                 are specified, they must explicitly end with an UpstreamCodec filter.",
                last.name, last.descriptor.name
            );
            Err(ConfigError::new(path.index(count - 1), reason))
        }
    }
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
