//! `Config` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::LogFormat;
use dhow_proto::envoy::config::core::v3::DataSource;
use dhow_proto::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue as Message;
use dhow_proto::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{
    Key, SharedWithUpstream, Value,
};
use dhow_proto::envoy::extensions::filters::http::set_filter_state::v3::Config;
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::Sharing;

use super::object::ObjectKind;

/// What the filter or one level of a route sets.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) objects: Box<[Object]>,
    pub(super) clears_route_cache: bool,
}

/// One object.
#[derive(Debug)]
pub(crate) struct Object {
    pub(super) key: Box<str>,
    pub(super) kind: ObjectKind,
    pub(super) format: LogFormat,
    pub(super) sharing: Sharing,
    pub(super) hashable: bool,
    pub(super) skip_if_empty: bool,
}

impl Settings {
    /// Reads the message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let Config { on_request_headers, clear_route_cache } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let path = path.field("on_request_headers");
        let objects = on_request_headers.into_iter().enumerate();
        let objects = objects.map(|(at, message)| Object::read(message, &path.index(at)));
        Ok(Self { objects: objects.collect::<Result<_, _>>()?, clears_route_cache: clear_route_cache })
    }
}

impl Object {
    /// Reads one of the messages.
    pub(crate) fn read(message: Message, path: &FieldPath) -> Result<Self, ConfigError> {
        #[allow(deprecated, reason = "named so that nothing is dropped")]
        let Message {
            factory_key,
            read_only: _, // deprecated, and without effect in Envoy too
            shared_with_upstream,
            skip_if_empty,
            key,
            value,
        } = message;
        let Some(Key::ObjectKey(key)) = key else {
            return Err(ConfigError::new(path.field("key"), "is required"));
        };
        if key.is_empty() {
            let reason = "value length must be at least 1 characters";
            return Err(ConfigError::new(path.field("object_key"), reason));
        }
        let factory = if factory_key.is_empty() { &key } else { &factory_key };
        let Some(kind) = ObjectKind::of_factory(factory) else {
            // Envoy names the object.
            let reason = format!("'{key}' does not have an object factory");
            return Err(ConfigError::new(path.clone(), reason));
        };
        let Some(Value::FormatString(format)) = value else {
            return Err(ConfigError::new(path.field("value"), "is required"));
        };
        let hashable = ObjectKind::is_hashable(factory);
        let sharing = match SharedWithUpstream::try_from(shared_with_upstream) {
            Ok(SharedWithUpstream::Once) => Sharing::Once,
            Ok(SharedWithUpstream::Transitive) => Sharing::Transitive,
            _ => Sharing::None,
        };
        let unread = |_: &DataSource, path: &FieldPath| Err(ConfigError::unsupported(path.clone()));
        let (format, _) = LogFormat::compile(&format, &path.field("format_string"), &unread)?;
        Ok(Self { key: key.into(), kind, format, sharing, hashable, skip_if_empty })
    }
}
