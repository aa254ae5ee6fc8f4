//! `CsrfPolicy` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::StringMatcher;
use dhow_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use dhow_proto::google::protobuf::Any;
use dhow_routing::RuntimeFraction;

/// The policy of the filter or of a route.
#[derive(Debug)]
pub(super) struct Policy {
    /// Share of the requests that are checked and refused.
    pub(super) enabled: RuntimeFraction,
    /// Share of the other requests that are checked and counted.
    pub(super) shadow: Option<RuntimeFraction>,
    /// Origins that are allowed besides the request's own host.
    pub(super) additional_origins: Box<[StringMatcher]>,
}

impl Policy {
    /// Reads the message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let CsrfPolicy { filter_enabled, shadow_enabled, additional_origins } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let enabled_path = path.field("filter_enabled");
        let enabled =
            filter_enabled.ok_or_else(|| ConfigError::new(enabled_path.clone(), "value is required"))?;
        let shadow =
            shadow_enabled.map(|shadow| RuntimeFraction::compile(&shadow, &path.field("shadow_enabled")));
        let origins_path = path.field("additional_origins");
        let origins = additional_origins.iter().enumerate();
        let origins = origins.map(|(at, origin)| StringMatcher::compile(origin, &origins_path.index(at)));
        Ok(Self {
            enabled: RuntimeFraction::compile(&enabled, &enabled_path)?,
            shadow: shadow.transpose()?,
            additional_origins: origins.collect::<Result<_, _>>()?,
        })
    }
}
