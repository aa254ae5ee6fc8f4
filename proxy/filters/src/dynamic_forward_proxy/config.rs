//! `FilterConfig` and `PerRouteConfig` validated.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderName;
use dhow_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, PerRouteConfig, SubClusterConfig, filter_config::ImplementationSpecifier,
    per_route_config::HostRewriteSpecifier,
};
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::FilterContext;

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

/// What the filter does beside waiting for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `save_upstream_address`: the address of the host is left on the stream.
    pub(super) saves_address: bool,
    /// `cluster_init_timeout`: how long a request waits for the cluster of its host.
    pub(super) init_timeout: Duration,
    /// `allow_dynamic_host_from_filter_state`: the filter state may name the host.
    pub(super) host_of_filter_state: bool,
}

/// Reads the filter's message. The settings of the cache are in force through the cluster, which has the same ones.
pub(super) fn read(
    config: &Any,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
) -> Result<Settings, ConfigError> {
    let FilterConfig {
        save_upstream_address,
        allow_dynamic_host_from_filter_state,
        implementation_specifier,
    } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    let mut init_timeout = Duration::from_secs(5);
    match implementation_specifier {
        Some(ImplementationSpecifier::DnsCacheConfig(cache)) => {
            (context.check_dns_cache)(cache, &path.field("dns_cache_config"), context.warnings)?;
        }
        Some(ImplementationSpecifier::SubClusterConfig(SubClusterConfig {
            cluster_init_timeout: Some(time),
        })) => {
            // The rules of the message have refused what is not positive.
            init_timeout = Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs());
        }
        Some(ImplementationSpecifier::SubClusterConfig(SubClusterConfig { cluster_init_timeout: None }))
        | None => {}
    }
    Ok(Settings {
        saves_address: save_upstream_address,
        init_timeout,
        host_of_filter_state: allow_dynamic_host_from_filter_state,
    })
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
