//! `FilterConfig` and `PerRouteConfig` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderName;
use dhow_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, PerRouteConfig, filter_config::ImplementationSpecifier,
    per_route_config::HostRewriteSpecifier,
};
use dhow_proto::google::protobuf::Any;

/// The host that a route names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostRewrite {
    /// The one of the request.
    None,
    /// `host_rewrite_literal`.
    Literal(Box<str>),
    /// `host_rewrite_header`: what this header says, when it is there.
    Header(HeaderName),
}

/// Checks the filter's message. The settings of the cache are in force through the cluster, which has the same ones.
pub(super) fn check(config: &Any, path: &FieldPath) -> Result<(), ConfigError> {
    let FilterConfig {
        save_upstream_address,
        allow_dynamic_host_from_filter_state,
        implementation_specifier,
    } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    ConfigError::refuse_if(save_upstream_address, path, "save_upstream_address")?;
    let field = "allow_dynamic_host_from_filter_state";
    ConfigError::refuse_if(allow_dynamic_host_from_filter_state, path, field)?;
    match implementation_specifier {
        Some(ImplementationSpecifier::DnsCacheConfig(cache)) if cache.name.is_empty() => {
            let path = path.field("dns_cache_config").field("name");
            Err(ConfigError::new(path, "value length must be at least 1 characters"))
        }
        Some(ImplementationSpecifier::DnsCacheConfig(_)) => Ok(()),
        Some(ImplementationSpecifier::SubClusterConfig(_)) => {
            Err(ConfigError::unsupported(path.field("sub_cluster_config")))
        }
        None => Err(ConfigError::new(path.field("dns_cache_config"), "is required")),
    }
}

impl HostRewrite {
    /// Reads a route's message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let PerRouteConfig { host_rewrite_specifier } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        Ok(match host_rewrite_specifier {
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if !host.is_empty() => {
                Self::Literal(host.into())
            }
            Some(HostRewriteSpecifier::HostRewriteHeader(name)) if !name.is_empty() => {
                Self::Header(HeaderName::new(&name))
            }
            _ => Self::None,
        })
    }
}
