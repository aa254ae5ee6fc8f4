//! Fields that occur in many messages.

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::config::core::v3::RuntimeDouble;
use dhow_proto::envoy::config::route::v3::route_action::HashPolicy;
use dhow_proto::envoy::r#type::metadata::v3::{
    MetadataKey,
    metadata_key::{PathSegment as MetadataPathSegment, path_segment::Segment},
};
use dhow_proto::google::protobuf::{Any, Duration as ProtoDuration, UInt32Value};
use dhow_proto::whole_millis;
use dhow_proto::{Message, Name, any};
use dhow_tls::Secrets;

use crate::dns::ResolverOptions;
use crate::forwarding_options::ForwardingLowering;
use crate::metadata::{MetadataPath, MetadataStep};

/// What was noticed while a message was read, and the secrets that it may name.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) warnings: Vec<ConfigWarning>,
    pub(crate) secrets: Arc<Secrets>,
    /// How names are resolved unless the message says it.
    pub(crate) resolver: Arc<ResolverOptions>,
    pub(crate) forwarding: ForwardingLowering,
    /// In front of the names of the cluster's stats.
    pub(crate) stat_prefix: String,
    /// What the load balancer hashes instead of what routes say, and where that is.
    pub(crate) hash_policy: Option<(Vec<HashPolicy>, FieldPath)>,
}

impl Notes {
    pub(crate) fn warn(&mut self, path: FieldPath, message: impl Into<String>) {
        self.warnings.push(ConfigWarning::new(path, message));
    }

    /// A field that is understood but makes no difference here.
    pub(crate) fn without_effect(&mut self, path: FieldPath) {
        self.warn(path, "this field is not implemented yet and has no effect");
    }
}

/// Refuses a field that is set to something.
pub(crate) fn refuse<T: Default + PartialEq>(
    value: &T,
    path: impl FnOnce() -> FieldPath,
) -> Result<(), ConfigError> {
    if *value == T::default() { Ok(()) } else { Err(ConfigError::unsupported(path())) }
}

/// A duration that must not be negative.
pub(crate) fn duration(
    value: Option<ProtoDuration>,
    path: impl FnOnce() -> FieldPath,
) -> Result<Option<Duration>, ConfigError> {
    match value {
        Some(ProtoDuration { seconds: ..0, .. } | ProtoDuration { nanos: ..0, .. }) => {
            Err(ConfigError::new(path(), "value must be a duration of zero or more"))
        }
        value => Ok(value.map(|value| whole_millis(&value))),
    }
}

/// A duration in which zero switches the time-out off, with what an absent field means.
pub(crate) fn timeout(
    value: Option<ProtoDuration>,
    default: Option<Duration>,
    path: impl FnOnce() -> FieldPath,
) -> Result<Option<Duration>, ConfigError> {
    Ok(match duration(value, path)? {
        None => default,
        Some(Duration::ZERO) => None,
        set => set,
    })
}

pub(crate) fn number(value: Option<UInt32Value>) -> Option<u32> {
    value.map(|UInt32Value { value }| value)
}

/// A number that a runtime key may override. Runtime overrides of cluster settings are not read; the default stands.
pub(crate) fn runtime_double(value: RuntimeDouble, path: FieldPath, notes: &mut Notes) -> f64 {
    let RuntimeDouble { default_value, runtime_key } = value;
    if !runtime_key.is_empty() {
        notes.without_effect(path.field("runtime_key"));
    }
    default_value
}

/// The message in `any`, also out of a typed structure; `None` when it is of another type than `M`.
pub(crate) fn unpack<M: Message + Name + Default>(
    any: &Any,
    path: impl Fn() -> FieldPath,
) -> Result<Option<M>, ConfigError> {
    let resolved = any::resolve(any).map_err(|error| error.under(&path()))?;
    if resolved.type_name != M::full_name() {
        return Ok(None);
    }
    M::decode(&*resolved.value)
        .map(Some)
        .map_err(|error| ConfigError::new(path(), format!("cannot decode {}: {error}", any.type_url)))
}

/// `envoy.type.metadata.v3.MetadataKey`: where in the dynamic metadata of a stream a value is.
pub(crate) fn metadata_key(key: MetadataKey) -> MetadataPath {
    let MetadataKey { key, path } = key;
    let segments = path.into_iter().filter_map(|MetadataPathSegment { segment }| match segment {
        Some(Segment::Key(name)) => Some(MetadataStep::Key(name)),
        Some(Segment::Index(at)) => Some(MetadataStep::Index(at as usize)),
        None => None,
    });
    MetadataPath { namespace: key, path: segments.collect() }
}
