//! Values inside metadata.

use crate::context::{FormatContext, MetadataSource};
use crate::json::{append_json_string, append_value};
use crate::pb::protobuf::{Struct, Value, value::Kind};

/// `%DYNAMIC_METADATA(namespace:key:...)%` and its kin.
#[derive(Clone, Debug)]
pub(crate) struct MetadataCommand {
    pub(crate) source: MetadataSource,
    pub(crate) namespace: Box<str>,
    pub(crate) path: Box<[Box<str>]>,
}

impl MetadataCommand {
    pub(crate) fn parse(source: MetadataSource, args: &str) -> Self {
        let mut parts = args.split(':').map(Box::from);
        let namespace = parts.next().unwrap_or_default();
        Self { source, namespace, path: parts.collect() }
    }

    pub(crate) fn find<'a>(&self, context: &'a dyn FormatContext) -> Option<&'a Struct> {
        context.metadata(self.source, &self.namespace)
    }
}

enum Found<'a> {
    All(&'a Struct),
    One(&'a Kind),
}

fn find<'a>(fields: &'a Struct, path: &[Box<str>]) -> Option<Found<'a>> {
    let Some((last, parents)) = path.split_last() else { return Some(Found::All(fields)) };
    let mut fields = fields;
    for name in parents {
        match fields.fields.get(&**name) {
            Some(Value { kind: Some(Kind::StructValue(inner)) }) => fields = inner,
            _ => return None,
        }
    }
    match fields.fields.get(&**last)?.kind.as_ref()? {
        Kind::NullValue(_) => None,
        kind => Some(Found::One(kind)),
    }
}

/// Appends the value at a path as text: strings as they are, all else as JSON.
pub(crate) fn append_struct_path(fields: &Struct, path: &[Box<str>], out: &mut Vec<u8>) -> bool {
    match find(fields, path) {
        Some(Found::One(Kind::StringValue(text))) => {
            out.extend_from_slice(text.as_bytes());
            true
        }
        _ => append_struct_path_json(fields, path, usize::MAX, out),
    }
}

/// Appends the value at a path as JSON; of a string no more than `limit` bytes.
pub(crate) fn append_struct_path_json(
    fields: &Struct,
    path: &[Box<str>],
    limit: usize,
    out: &mut Vec<u8>,
) -> bool {
    match find(fields, path) {
        Some(Found::One(Kind::StringValue(text))) => {
            append_json_string(&text.as_bytes()[..limit.min(text.len())], out);
        }
        Some(Found::One(kind)) => append_value(Some(kind), out),
        Some(Found::All(fields)) => crate::json::append_struct(fields, out),
        None => return false,
    }
    true
}
