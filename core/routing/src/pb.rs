//! The messages that this crate compiles, and the small conversions that all of them need.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::whole_millis;

pub(crate) use dhow_proto::envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation;
pub(crate) use dhow_proto::envoy_types::pb::envoy::config::core::v3 as core;
pub(crate) use dhow_proto::envoy_types::pb::envoy::config::route::v3 as route;
pub(crate) use dhow_proto::envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub(crate) use dhow_proto::envoy_types::pb::google::protobuf;

/// A duration field, in whole milliseconds.
///
/// # Errors
/// When it is negative.
pub(crate) fn duration(
    message: Option<&protobuf::Duration>,
    path: &FieldPath,
    field: &str,
) -> Result<Option<Duration>, ConfigError> {
    match message {
        Some(protobuf::Duration { seconds: ..0, .. } | protobuf::Duration { nanos: ..0, .. }) => {
            Err(ConfigError::new(path.field(field), "value must be a duration that is not negative"))
        }
        message => Ok(message.map(whole_millis)),
    }
}
