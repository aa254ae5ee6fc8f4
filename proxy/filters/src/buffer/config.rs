//! `Buffer` and `BufferPerRoute` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::extensions::filters::http::buffer::v3::buffer_per_route::Override;
use dhow_proto::envoy::extensions::filters::http::buffer::v3::{Buffer, BufferPerRoute};
use dhow_proto::google::protobuf::{Any, UInt32Value};

/// What a route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteLimit {
    /// Nothing is held back.
    Disabled,
    /// This many bytes at most.
    Bytes(u32),
}

/// Reads the filter's message: bytes of a request at most.
pub(super) fn read(config: &Any, path: &FieldPath) -> Result<u32, ConfigError> {
    limit(dhow_proto::any::unpack(config).map_err(|error| error.under(path))?, path)
}

fn limit(message: Buffer, path: &FieldPath) -> Result<u32, ConfigError> {
    let Buffer { max_request_bytes } = message;
    let path = path.field("max_request_bytes");
    match max_request_bytes {
        None => Err(ConfigError::new(path, "value is required and must not be nil")),
        Some(UInt32Value { value: 0 }) => Err(ConfigError::new(path, "value must be greater than 0")),
        Some(UInt32Value { value }) => Ok(value),
    }
}

impl RouteLimit {
    /// Reads a route's message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let BufferPerRoute { r#override } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        match r#override {
            None => Err(ConfigError::new(path.field("override"), "is required")),
            Some(Override::Disabled(true)) => Ok(Self::Disabled),
            Some(Override::Disabled(false)) => {
                Err(ConfigError::new(path.field("disabled"), "value must equal true"))
            }
            Some(Override::Buffer(buffer)) => limit(buffer, &path.field("buffer")).map(Self::Bytes),
        }
    }
}
