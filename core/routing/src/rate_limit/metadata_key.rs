//! `MetadataKey`: a value inside of metadata.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::r#type::metadata::v3::MetadataKey;
use dhow_proto::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment::Segment};

use crate::pb::protobuf::{Struct, Value, value::Kind};

/// A namespace, and steps inside of it.
#[derive(Clone, Debug)]
pub(super) struct MetadataPath {
    namespace: Box<str>,
    steps: Box<[Step]>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A field of a struct.
    Key(Box<str>),
    /// An element of a list.
    Index(usize),
}

impl MetadataPath {
    pub(super) fn compile(message: Option<&MetadataKey>, path: &FieldPath) -> Result<Self, ConfigError> {
        let MetadataKey { key, path: segments } =
            message.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let steps = segments.iter().enumerate().map(|(at, PathSegment { segment })| match segment {
            Some(Segment::Key(key)) => Ok(Step::Key(key.as_str().into())),
            Some(Segment::Index(index)) => Ok(Step::Index(*index as usize)),
            None => Err(ConfigError::new(path.field("path").index(at).field("segment"), "is required")),
        });
        Ok(Self { namespace: key.as_str().into(), steps: steps.collect::<Result<_, _>>()? })
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The value inside of the namespace's fields.
    pub(super) fn find<'a>(&self, fields: Option<&'a Struct>) -> Option<&'a Value> {
        let (first, rest) = self.steps.split_first()?;
        let Step::Key(key) = first else { return None };
        let mut value = fields?.fields.get(&**key)?;
        for step in rest {
            value = match (step, value.kind.as_ref()?) {
                (Step::Key(key), Kind::StructValue(inner)) => inner.fields.get(&**key)?,
                (Step::Index(at), Kind::ListValue(list)) => list.values.get(*at)?,
                _ => return None,
            };
        }
        Some(value)
    }
}
