//! Scalars of the message: flags, durations with defaults, warnings.

use std::time::Duration;

use dhow_base::{ConfigWarning, FieldPath};
use dhow_proto::google::protobuf::{BoolValue, Duration as ProtoDuration};
use dhow_proto::whole_millis;

/// Appends a warning about a field.
pub(super) fn warn(warnings: &mut Vec<ConfigWarning>, path: &FieldPath, field: &str, why: &str) {
    warnings.push(ConfigWarning::new(path.field(field), why));
}

/// Whether an optional flag is there and set.
pub(super) fn is_true(value: Option<BoolValue>) -> bool {
    value.is_some_and(|b| b.value)
}

/// A timeout with a default: an explicit zero switches it off.
pub(super) fn timeout_or(message: Option<ProtoDuration>, default: Option<Duration>) -> Option<Duration> {
    match message {
        None => default,
        Some(time) => Some(whole_millis(&time)).filter(|time| !time.is_zero()),
    }
}
