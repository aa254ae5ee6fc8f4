//! `Config` validated.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::extensions::filters::http::set_metadata::v3::{Config, Metadata};
use dhow_proto::google::protobuf::{Any, Struct};

/// The fields of one namespace.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) namespace: Box<str>,
    pub(super) fields: Struct,
    /// Whether the fields may be merged into those that are there.
    pub(super) overwrites: bool,
}

/// Reads the message.
pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Arc<[Entry]>, ConfigError> {
    #[allow(deprecated, reason = "the older fields are still accepted, as in Envoy")]
    let Config { metadata_namespace, value, metadata } =
        dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    let mut entries = Vec::with_capacity(metadata.len() + 1);
    if let Some(fields) = value.filter(|_| !metadata_namespace.is_empty()) {
        entries.push(Entry { namespace: metadata_namespace.into(), fields, overwrites: true });
    }
    let path = path.field("metadata");
    for (at, message) in metadata.into_iter().enumerate() {
        let path = path.index(at);
        let Metadata { metadata_namespace, allow_overwrite, value, typed_value } = message;
        if metadata_namespace.is_empty() {
            let reason = "value length must be at least 1 characters";
            return Err(ConfigError::new(path.field("metadata_namespace"), reason));
        }
        ConfigError::refuse_if(typed_value.is_some(), &path, "typed_value")?;
        if let Some(fields) = value {
            entries.push(Entry { namespace: metadata_namespace.into(), fields, overwrites: allow_overwrite });
        }
    }
    Ok(entries.into())
}
