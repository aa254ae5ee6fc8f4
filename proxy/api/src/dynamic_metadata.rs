//! Metadata that filters attach to a stream, by namespace.

use std::borrow::Cow;
use std::sync::Arc;

use dhow_proto::google::protobuf::{Any, Struct, Value, value::Kind};

/// The dynamic metadata of a stream: a `google.protobuf.Struct` for each namespace, usually the name of the filter that
/// wrote it. Allocates nothing until a second namespace is set.
#[derive(Clone, Debug, Default)]
pub struct DynamicMetadata {
    /// The namespace that was set first; mostly it is the only one.
    first: Option<Namespace>,
    /// Few namespaces are ever set on a stream: looking through them beats hashing.
    others: Vec<Namespace>,
    /// `typed_filter_metadata`, apart from the namespaces above.
    typed: Vec<(Box<str>, Arc<Any>)>,
}

type Namespace = (Cow<'static, str>, Arc<Struct>);

impl DynamicMetadata {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The fields of a namespace.
    pub fn get(&self, namespace: &str) -> Option<&Struct> {
        self.iter().find(|(name, _)| *name == namespace).map(|(_, fields)| fields)
    }

    /// All namespaces, in the order in which they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Struct)> {
        self.first.iter().chain(&self.others).map(|(name, fields)| (&**name, &**fields))
    }

    /// The message of a namespace of typed metadata.
    pub fn typed(&self, namespace: &str) -> Option<&Any> {
        self.typed.iter().find(|(name, _)| **name == *namespace).map(|(_, message)| &**message)
    }

    /// Sets the message of a namespace of typed metadata, instead of the one that is there.
    pub fn set_typed(&mut self, namespace: &str, message: &Arc<Any>) {
        match self.typed.iter_mut().find(|(name, _)| **name == *namespace) {
            Some((_, present)) => *present = message.clone(),
            None => self.typed.push((namespace.into(), message.clone())),
        }
    }

    fn push(&mut self, namespace: Namespace) -> &mut Namespace {
        if self.first.is_none() {
            return self.first.insert(namespace);
        }
        self.others.push_mut(namespace)
    }

    /// The fields of a namespace, which exists from now on.
    pub fn namespace_mut(&mut self, namespace: &str) -> &mut Struct {
        let at = self.iter().position(|(name, _)| name == namespace);
        let found = match at {
            None => self.push((Cow::Owned(namespace.to_owned()), Arc::default())),
            Some(0) => self.first.as_mut().expect("it was just found there"),
            Some(at) => &mut self.others[at - 1],
        };
        Arc::make_mut(&mut found.1)
    }

    /// Sets fields that were made when the configuration was read. Nothing is copied where they are the first of their namespace.
    pub fn share(&mut self, namespace: &'static str, fields: &Arc<Struct>) {
        if self.iter().all(|(name, _)| name != namespace) {
            self.push((Cow::Borrowed(namespace), fields.clone()));
            return;
        }
        let present = &mut self.namespace_mut(namespace).fields;
        present.extend(fields.fields.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Sets one field of a namespace.
    pub fn set(&mut self, namespace: &str, key: &str, value: Value) {
        self.namespace_mut(namespace).fields.insert(key.to_owned(), value);
    }

    /// Sets one field of a namespace to a text.
    pub fn set_text(&mut self, namespace: &str, key: &str, text: &str) {
        self.set(namespace, key, Value { kind: Some(Kind::StringValue(text.to_owned())) });
    }

    /// Merges fields into a namespace as Envoy does: fields of both that are objects are merged, lists are joined, all
    /// other fields are replaced.
    pub fn merge(&mut self, namespace: &str, fields: &Struct) {
        merge_struct(self.namespace_mut(namespace), fields);
    }
}

fn merge_struct(into: &mut Struct, from: &Struct) {
    for (key, value) in &from.fields {
        match into.fields.get_mut(key) {
            Some(existing) => merge_value(existing, value),
            None => {
                into.fields.insert(key.clone(), value.clone());
            }
        }
    }
}

fn merge_value(into: &mut Value, from: &Value) {
    match (&mut into.kind, &from.kind) {
        (Some(Kind::StructValue(into)), Some(Kind::StructValue(from))) => merge_struct(into, from),
        (Some(Kind::ListValue(into)), Some(Kind::ListValue(from))) => {
            into.values.extend(from.values.iter().cloned());
        }
        (into, from) => *into = from.clone(),
    }
}

#[cfg(test)]
mod tests {
    use dhow_proto::google::protobuf::ListValue;

    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.into())) }
    }

    fn object(fields: &[(&str, Value)]) -> Struct {
        Struct { fields: fields.iter().map(|(key, value)| ((*key).into(), value.clone())).collect() }
    }

    fn list(values: &[Value]) -> Value {
        Value { kind: Some(Kind::ListValue(ListValue { values: values.to_vec() })) }
    }

    #[test]
    fn objects_are_merged_lists_joined_and_the_rest_replaced() {
        let nested = |fields: &[(&str, Value)]| Value { kind: Some(Kind::StructValue(object(fields))) };
        let mut metadata = DynamicMetadata::default();
        assert!(metadata.is_empty() && metadata.get("a").is_none());
        metadata.merge(
            "a",
            &object(&[("o", nested(&[("x", text("1"))])), ("l", list(&[text("1")])), ("t", text("1"))]),
        );
        metadata.merge(
            "a",
            &object(&[("o", nested(&[("y", text("2"))])), ("l", list(&[text("2")])), ("t", text("2"))]),
        );
        metadata.set_text("b", "k", "v");
        let expected = object(&[
            ("o", nested(&[("x", text("1")), ("y", text("2"))])),
            ("l", list(&[text("1"), text("2")])),
            ("t", text("2")),
        ]);
        assert_eq!(metadata.get("a"), Some(&expected));
        assert_eq!(metadata.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    }
}
