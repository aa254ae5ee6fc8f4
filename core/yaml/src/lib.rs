//! YAML text becomes a tree that knows its lines, in the dialects of Envoy and of Kubernetes; it must not know what any document means.

mod compose;
mod error;
mod locate;
mod node;
mod scalar;
mod split;

#[cfg(test)]
mod tests;

pub use error::YamlError;
pub use node::{Document, Entry, Node, Value};
pub use split::parse_separately;

/// How plain scalars, duplicate keys and tags are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// What Envoy makes of its bootstrap: yaml-cpp's scalars, `!ignore`, only the first document.
    Envoy,
    /// What `kubectl` and Istio make of a manifest: sigs.k8s.io/yaml, strict about duplicate keys.
    Kubernetes,
}

/// Reads every document of `text` (in [`Dialect::Envoy`] only the first, as Envoy does).
///
/// Text without any document gives an empty list; a document without content has the root [`Value::Null`].
///
/// # Errors
/// The first error of syntax or of the dialect, with its position. See [`parse_separately`] to read the documents around
/// a broken one.
pub fn parse(text: &str, dialect: Dialect) -> Result<Vec<Document>, YamlError> {
    compose::compose(text, dialect)
}
