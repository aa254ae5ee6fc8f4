//! `Config` validated.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::extensions::filters::http::set_metadata::v3::{Config, Metadata};
use dhow_proto::google::protobuf::{Any, Struct};

/// What one namespace gets.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) namespace: Box<str>,
    pub(super) value: EntryValue,
    /// Whether fields may be merged into those that are there, and a message may be set instead of another.
    pub(super) overwrites: bool,
}

/// `value` or `typed_value`.
#[derive(Debug)]
pub(super) enum EntryValue {
    Fields(Struct),
    Typed(Arc<Any>),
}

/// Reads the message.
pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Box<[Entry]>, ConfigError> {
    #[allow(deprecated, reason = "the older fields are still accepted, as in Envoy")]
    let Config { metadata_namespace, value, metadata } =
        dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    let mut entries = Vec::with_capacity(metadata.len() + 1);
    if let Some(fields) = value.filter(|_| !metadata_namespace.is_empty()) {
        let value = EntryValue::Fields(fields);
        entries.push(Entry { namespace: metadata_namespace.into(), value, overwrites: true });
    }
    let path = path.field("metadata");
    for (at, message) in metadata.into_iter().enumerate() {
        let path = path.index(at);
        let Metadata { metadata_namespace, allow_overwrite, value, typed_value } = message;
        if metadata_namespace.is_empty() {
            let reason = "value length must be at least 1 characters";
            return Err(ConfigError::new(path.field("metadata_namespace"), reason));
        }
        let values = value.map(EntryValue::Fields);
        for value in values.into_iter().chain(typed_value.map(|message| EntryValue::Typed(Arc::new(message))))
        {
            let namespace = metadata_namespace.as_str().into();
            entries.push(Entry { namespace, value, overwrites: allow_overwrite });
        }
    }
    Ok(entries.into())
}
