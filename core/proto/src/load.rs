//! From configuration text to messages.

use dhow_base::{ConfigError, ConfigWarning};
use dhow_yaml::Dialect;
use prost::Name;
use serde_json::Value as Json;

use crate::check::{CheckOptions, Deprecated, check_encoded};
use crate::json::JsonReader;
use crate::merge::merge;
use crate::tables::MessageType;
use crate::text_format;

/// What to let pass while loading.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Unknown fields and enum names are warnings instead of errors (`--allow-unknown-static-fields`).
    pub allow_unknown_fields: bool,
    /// Which deprecated fields and values are warnings instead of errors.
    pub deprecated: Deprecated,
}

/// A message with what its author should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<M> {
    /// The message; it fulfils its validation rules.
    pub message: M,
    /// Unknown (if allowed) and deprecated fields.
    pub warnings: Vec<ConfigWarning>,
}

/// The form of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML as Envoy reads it.
    Yaml,
    /// Protobuf's JSON mapping.
    Json,
    /// Protobuf's binary encoding.
    Binary,
    /// Protobuf's text format.
    Text,
}

impl Format {
    /// The form that Envoy derives from a file name: `.pb`, `.pb_text`, `.json`, `.yaml`, `.yml`; `None` for any other.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "pb" => Some(Self::Binary),
            "pb_text" | "pbtxt" => Some(Self::Text),
            _ => None,
        }
    }
}

/// Loads one message from several sources, each merged over those before it as protobuf merges: singular fields are
/// replaced, messages merged, repeated fields appended. Then the whole is checked. This is `--config-path` with
/// `--config-yaml`.
///
/// # Errors
/// The first thing that cannot be accepted, with its path.
pub fn load<M: Name + Default>(
    sources: &[(Format, &[u8])],
    options: &LoadOptions,
) -> Result<Loaded<M>, ConfigError> {
    let full_name = M::full_name();
    let message_type = MessageType::find(&full_name)
        .ok_or_else(|| ConfigError::at_root(format!("the type {full_name} is not described")))?;
    let mut bytes = Vec::new();
    let mut warnings = Vec::new();
    for &(format, source) in sources {
        let encoded = encode_source(message_type, format, source, options, &mut warnings)?;
        bytes.extend_from_slice(&encoded);
    }
    if sources.len() > 1 {
        bytes = merge(message_type, &bytes)
            .map_err(|error| ConfigError::at_root(format!("{error} of {full_name}")))?;
    }
    let check_options =
        CheckOptions { reject_unknown_fields: !options.allow_unknown_fields, deprecated: options.deprecated };
    warnings.extend(check_encoded(message_type, &bytes, &check_options)?);
    let message = M::decode(bytes.as_slice())
        .map_err(|error| ConfigError::at_root(format!("Unable to decode as {full_name}: {error}")))?;
    Ok(Loaded { message, warnings })
}

/// Reads a message of one source without checking its rules: for an envelope whose contents are checked one by one.
///
/// # Errors
/// Text that is not of this form, an unknown type, an unknown field (unless allowed) or a value of the wrong type.
pub fn parse<M: Name + Default>(
    format: Format,
    source: &[u8],
    options: &LoadOptions,
) -> Result<Loaded<M>, ConfigError> {
    let full_name = M::full_name();
    let message_type = MessageType::find(&full_name)
        .ok_or_else(|| ConfigError::at_root(format!("the type {full_name} is not described")))?;
    let mut warnings = Vec::new();
    let bytes = encode_source(message_type, format, source, options, &mut warnings)?;
    let message = M::decode(bytes.as_slice())
        .map_err(|error| ConfigError::at_root(format!("Unable to decode as {full_name}: {error}")))?;
    Ok(Loaded { message, warnings })
}

/// Loads a message from YAML as Envoy reads it.
///
/// # Errors
/// The first thing that cannot be accepted, with its path.
pub fn load_yaml<M: Name + Default>(text: &str, options: &LoadOptions) -> Result<Loaded<M>, ConfigError> {
    load(&[(Format::Yaml, text.as_bytes())], options)
}

/// Loads a message from protobuf's JSON mapping.
///
/// # Errors
/// The first thing that cannot be accepted, with its path.
pub fn load_json<M: Name + Default>(text: &str, options: &LoadOptions) -> Result<Loaded<M>, ConfigError> {
    load(&[(Format::Json, text.as_bytes())], options)
}

/// Encodes a JSON tree as a message of the type, without checking its validation rules.
///
/// # Errors
/// An unknown type, an unknown field or a value of the wrong type.
pub fn encode_json(type_name: &str, tree: &Json) -> Result<Vec<u8>, ConfigError> {
    let message_type = MessageType::find(type_name)
        .ok_or_else(|| ConfigError::at_root(format!("the type {type_name} is not described")))?;
    Ok(JsonReader::new(message_type, false).read(tree)?.bytes)
}

fn encode_source(
    message_type: MessageType,
    format: Format,
    source: &[u8],
    options: &LoadOptions,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<u8>, ConfigError> {
    if format == Format::Binary {
        return Ok(source.to_vec());
    }
    let text = std::str::from_utf8(source)
        .map_err(|error| ConfigError::at_root(format!("the configuration is not UTF-8 text: {error}")))?;
    let tree = match format {
        Format::Yaml => yaml_tree(text)?,
        Format::Json => serde_json::from_str(text)
            .map_err(|error| ConfigError::at_root(format!("Unable to parse JSON as proto ({error})")))?,
        Format::Text | Format::Binary => return text_format::encode(message_type, text),
    };
    let outcome = JsonReader::new(message_type, options.allow_unknown_fields).read(&tree)?;
    warnings.extend(outcome.warnings);
    Ok(outcome.bytes)
}

/// The first document; Envoy wants a mapping (or a list, which no message is).
fn yaml_tree(text: &str) -> Result<Json, ConfigError> {
    let documents =
        dhow_yaml::parse(text, Dialect::Envoy).map_err(|error| ConfigError::at_root(error.to_string()))?;
    match documents.into_iter().next().map(|document| document.root.to_json()) {
        Some(tree @ (Json::Object(_) | Json::Array(_))) => Ok(tree),
        _ => Err(ConfigError::at_root(format!("Unable to convert YAML as JSON: {text}"))),
    }
}
