//! `CorsPolicy` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::StringMatcher;
use dhow_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use dhow_proto::google::protobuf::{Any, BoolValue};
use dhow_routing::RuntimeFraction;

/// What one route, virtual host or route table allows. Values that are empty are left to the next, less specific level.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) origins: Box<[StringMatcher]>,
    pub(super) allow_methods: Box<str>,
    pub(super) allow_headers: Box<str>,
    pub(super) expose_headers: Box<str>,
    /// Seconds, as text.
    pub(super) max_age: Box<str>,
    pub(super) allow_credentials: Option<bool>,
    pub(super) allow_private_network_access: Option<bool>,
    pub(super) forward_not_matching_preflights: Option<bool>,
    /// Share of the requests that the policy applies to; none: all.
    pub(super) enabled: Option<RuntimeFraction>,
    /// Share of the other requests whose origins are only counted.
    pub(super) shadow: Option<RuntimeFraction>,
}

impl Policy {
    /// Reads the message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let CorsPolicy {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let origins = path.field("allow_origin_string_match");
        let origins = allow_origin_string_match
            .iter()
            .enumerate()
            .map(|(at, origin)| StringMatcher::compile(origin, &origins.index(at)));
        let fraction = |message: Option<_>, field| {
            message.map(|message| RuntimeFraction::compile(&message, &path.field(field))).transpose()
        };
        let flag = |message: Option<BoolValue>| message.map(|BoolValue { value }| value);
        Ok(Self {
            origins: origins.collect::<Result<_, _>>()?,
            allow_methods: allow_methods.into(),
            allow_headers: allow_headers.into(),
            expose_headers: expose_headers.into(),
            max_age: max_age.into(),
            allow_credentials: flag(allow_credentials),
            allow_private_network_access: flag(allow_private_network_access),
            forward_not_matching_preflights: flag(forward_not_matching_preflights),
            enabled: fraction(filter_enabled, "filter_enabled")?,
            shadow: fraction(shadow_enabled, "shadow_enabled")?,
        })
    }
}
