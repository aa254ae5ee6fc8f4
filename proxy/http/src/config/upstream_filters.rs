//! HTTP filters in front of the codec to upstream, of the router or of a cluster.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::any;
use dhow_proto::envoy::extensions::common::matching::v3::ExtensionWithMatcher;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::FilterContext;

use super::{ConfiguredFilter, FilterRegistry};

const CODEC: &str = "envoy.filters.http.upstream_codec";
const CODEC_TYPE: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
const MATCH_DELEGATE: &str = "envoy.filters.http.match_delegate";

/// The filters that Envoy has for this place too.
const UPSTREAM: [&str; 4] = [
    "envoy.filters.http.buffer",
    "envoy.filters.http.header_mutation",
    MATCH_DELEGATE,
    "envoy.filters.http.rbac",
];

/// Lowers `upstream_http_filters` of the router. The codec must be the last one.
pub(super) fn lower_router_filters(
    filters: Vec<HttpFilter>,
    registry: FilterRegistry,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
) -> Result<Vec<ConfiguredFilter>, ConfigError> {
    const CHAIN: &str = "in a router upstream http filter chain.";
    let count = filters.len();
    let (chain, ended) = lower(filters, registry, context, path, CHAIN)?;
    match chain.last().filter(|_| !ended) {
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

/// Lowers `http_filters` of a cluster, at least one. The codec must be the last one.
pub(super) fn lower_cluster_filters(
    filters: Vec<HttpFilter>,
    registry: FilterRegistry,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
) -> Result<Vec<ConfiguredFilter>, ConfigError> {
    if !filters.last().is_some_and(is_codec) {
        let reason =
            format!("The codec filter is the only valid terminal upstream HTTP filter, use '{CODEC_TYPE}'");
        return Err(ConfigError::new(path.clone(), reason));
    }
    let (chain, _) = lower(filters, registry, context, path, "in a upstream http filter chain.")?;
    Ok(chain)
}

fn is_codec(filter: &HttpFilter) -> bool {
    match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => any::type_name(&config.type_url) == CODEC_TYPE,
        _ => false,
    }
}

/// The filters in front of the codec, and whether there is one.
fn lower(
    filters: Vec<HttpFilter>,
    registry: FilterRegistry,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
    which_chain: &str,
) -> Result<(Vec<ConfiguredFilter>, bool), ConfigError> {
    let mut chain: Vec<ConfiguredFilter> = Vec::new();
    let count = filters.len();
    for (at, filter) in filters.into_iter().enumerate() {
        let path = path.index(at);
        let is_codec = is_codec(&filter);
        let HttpFilter { name, is_optional, disabled, config_type } = filter;
        let config = match config_type {
            Some(http_filter::ConfigType::TypedConfig(config)) => config,
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(ConfigError::unsupported(path.field("config_discovery")));
            }
            None => return Err(unknown(&name, "", &path)),
        };
        if is_codec {
            if at + 1 != count {
                let reason = format!(
                    "Error: terminal filter named {name} of type {CODEC} must be the last filter {which_chain}"
                );
                return Err(ConfigError::new(path, reason));
            }
            if disabled {
                let reason = format!(
                    "Error: the last (terminal) filter ({name}) in the chain cannot be disabled by default."
                );
                return Err(ConfigError::new(path.field("disabled"), reason));
            }
            return Ok((chain, true));
        }
        let type_name = any::type_name(&config.type_url);
        let known = registry.of_type(type_name).filter(|filter| UPSTREAM.contains(&filter.name));
        let Some(descriptor) = known else {
            if is_optional {
                let why = format!(
                    "the optional filter '{name}' of type '{type_name}' is not known here and is left out"
                );
                context.warn(path, why);
                continue;
            }
            return Err(unknown(&name, type_name, &path));
        };
        let path = path.field("typed_config");
        if descriptor.name == MATCH_DELEGATE {
            check_delegate(&config, registry, &path)?;
        }
        context.name = name.as_str().into();
        let factory = (descriptor.configure)(&config, context, &path)?;
        chain.push(ConfiguredFilter { name: name.into(), descriptor: *descriptor, disabled, factory });
    }
    Ok((chain, false))
}

/// What decides whether another filter runs must do so for one that may be here itself.
fn check_delegate(config: &Any, registry: FilterRegistry, path: &FieldPath) -> Result<(), ConfigError> {
    let ExtensionWithMatcher { extension_config, .. } =
        any::unpack(config).map_err(|error| error.under(path))?;
    let Some(inner) = extension_config else { return Ok(()) };
    let type_name = inner.typed_config.as_ref().map_or("", |config| any::type_name(&config.type_url));
    match registry.of_type(type_name).filter(|filter| UPSTREAM.contains(&filter.name)) {
        Some(_) => Ok(()),
        None => Err(unknown(&inner.name, type_name, &path.field("extension_config"))),
    }
}

fn unknown(name: &str, type_name: &str, path: &FieldPath) -> ConfigError {
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
    ConfigError::new(path.clone(), reason)
}
