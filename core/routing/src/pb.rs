//! The messages that this crate compiles, and the small conversions that all of them need.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};

pub(crate) use dhow_proto::envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation;
pub(crate) use dhow_proto::envoy_types::pb::envoy::config::core::v3 as core;
pub(crate) use dhow_proto::envoy_types::pb::envoy::config::route::v3 as route;
pub(crate) use dhow_proto::envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub(crate) use dhow_proto::envoy_types::pb::google::protobuf;

/// A duration field.
///
/// # Errors
/// When it is negative.
pub(crate) fn duration(
    message: Option<&protobuf::Duration>,
    path: &FieldPath,
    field: &str,
) -> Result<Option<Duration>, ConfigError> {
    let Some(message) = message else { return Ok(None) };
    let seconds = u64::try_from(message.seconds).ok();
    let nanos = u32::try_from(message.nanos).ok().filter(|&nanos| nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(ConfigError::new(path.field(field), "value must be a duration that is not negative")),
    }
}
