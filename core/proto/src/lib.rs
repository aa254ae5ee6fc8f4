//! The message types of Envoy and xDS with their JSON mapping, `Any` and validation rules; it must not know what any setting does.
//!
//! The Rust types come from `envoy-types` and are re-exported here by package: `dhow_proto::envoy::config::cluster::v3`.
//! What they lack, names and rules, comes from read-only tables that the build script derives from the same package.

pub mod any;
mod check;
mod data_source;
mod duration;
mod excerpts;
mod json;
mod load;
mod merge;
pub mod router_check;
mod suggest;
pub mod supplement;
mod tables;
mod text_format;
mod typed_struct;
mod wire;

use dhow_base::{ConfigError, ConfigWarning};
pub use envoy_types;
pub use envoy_types::pb::*;
pub use prost::{self, Message, Name};
use serde_json::Value as Json;

pub use any::is_known_type;
pub use check::{CheckOptions, DecideDeprecated, Deprecated};
pub use data_source::{SourceData, check_watched_path};
pub use duration::whole_millis;
pub use excerpts::Excerpts;
pub use json::{FieldNames, PrintOptions};
pub use load::{Format, LoadOptions, Loaded, encode_json, load, load_json, load_yaml, parse};
pub use tables::{EnumType, EnumValue, FieldType, Kind, MessageType, enum_types, message_types, table_size};
pub use typed_struct::open_typed_structs;

/// Checks an encoded message, such as a resource from a management server: validation rules, durations, deprecated
/// fields, and all of it again in every known type inside of an `Any`.
///
/// # Errors
/// The first rule that is broken, in Envoy's words, with the full path.
pub fn check_message(
    type_name: &str,
    bytes: &[u8],
    options: &CheckOptions,
) -> Result<Vec<ConfigWarning>, ConfigError> {
    check::check_encoded(described(type_name)?, bytes, options)
}

/// An encoded message as JSON in the form of `/config_dump`: declared names, secrets redacted.
///
/// # Errors
/// An unknown type, or bytes that are not an encoded message.
pub fn to_json(type_name: &str, bytes: &[u8]) -> Result<Json, ConfigError> {
    to_json_with(type_name, bytes, PrintOptions::default())
}

/// An encoded message as JSON in the form of the options.
///
/// # Errors
/// An unknown type, or bytes that are not an encoded message.
pub fn to_json_with(type_name: &str, bytes: &[u8], options: PrintOptions) -> Result<Json, ConfigError> {
    json::Printer::new(options)
        .print(described(type_name)?, bytes)
        .map_err(|error| ConfigError::at_root(format!("{error} of {type_name}")))
}

/// A message in protobuf's text format, a field a line, as Envoy prints messages for people.
pub fn message_to_text<M: Name>(message: &M) -> String {
    let printed = described(&M::full_name())
        .ok()
        .map(|described| text_format::print(described, &message.encode_to_vec()));
    // The bytes were just encoded and the type is described, or the message has nothing to print.
    printed.and_then(Result::ok).unwrap_or_default()
}

/// A message as JSON in the form of `/config_dump`: declared names, secrets redacted.
pub fn message_to_json<M: Name>(message: &M) -> Json {
    // The bytes were just encoded and the type is described, or the message has nothing to print.
    to_json(&M::full_name(), &message.encode_to_vec()).unwrap_or(Json::Null)
}

fn described(type_name: &str) -> Result<MessageType, ConfigError> {
    MessageType::find(type_name)
        .ok_or_else(|| ConfigError::at_root(format!("the type {type_name} is not described")))
}
