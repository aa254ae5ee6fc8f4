//! Where in a message something was found.

use std::fmt;

/// A path into a message, such as `static_resources.listeners[0].filter_chains[0]`.
///
/// Lowering code walks a message from the outside in: each step appends one segment. [`FieldPath::field`],
/// [`FieldPath::index`] and [`FieldPath::key`] return the longer path and leave `self` usable for the siblings;
/// [`FieldPath::with_field`] and [`FieldPath::with_index`] append for the length of a closure without copying, and
/// [`FieldPath::mark`] with [`FieldPath::rewind`] do the same where a closure is in the way.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath {
    text: String,
}

/// A length of a [`FieldPath`] to go back to.
#[derive(Clone, Copy, Debug)]
pub struct PathMark(usize);

impl FieldPath {
    /// The path of the message itself.
    pub const fn root() -> Self {
        Self { text: String::new() }
    }

    /// Path of the field `name` of the message at this path.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let mut longer = self.with_room(name.len() + 1);
        longer.push_field(name);
        longer
    }

    /// Path of element `index` (from 0) of the repeated field at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut longer = self.with_room(8);
        longer.push_index(index);
        longer
    }

    /// Path of the entry `key` of the map field at this path, written `["key"]`.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut longer = self.with_room(key.len() + 4);
        longer.push_key(key);
        longer
    }

    /// Runs `body` with the path one field longer, then takes the field off again.
    pub fn with_field<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.text.len();
        self.push_field(name);
        let outcome = body(self);
        self.text.truncate(length);
        outcome
    }

    /// Runs `body` with the path one index longer, then takes the index off again.
    pub fn with_index<T>(&mut self, index: usize, body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.text.len();
        self.push_index(index);
        let outcome = body(self);
        self.text.truncate(length);
        outcome
    }

    /// Runs `body` with the path one map key longer, then takes the key off again.
    pub fn with_key<T>(&mut self, key: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.text.len();
        self.push_key(key);
        let outcome = body(self);
        self.text.truncate(length);
        outcome
    }

    /// Remembers how long the path is now.
    pub fn mark(&self) -> PathMark {
        PathMark(self.text.len())
    }

    /// Takes off everything appended since `mark`, which must come from this path.
    pub fn rewind(&mut self, mark: PathMark) {
        self.text.truncate(mark.0);
    }

    /// This path followed by `tail`, a path relative to the message at this path.
    #[must_use]
    pub fn join(&self, tail: &FieldPath) -> Self {
        if self.is_root() {
            return tail.clone();
        }
        let mut longer = self.with_room(tail.text.len() + 1);
        if !tail.is_root() && !tail.text.starts_with('[') {
            longer.text.push('.');
        }
        longer.text.push_str(&tail.text);
        longer
    }

    /// Name of the last field on the path, without what indices or keys choose of it; empty for the root.
    pub fn last_field(&self) -> &str {
        let mut text = self.text.as_str();
        while let Some((before, _)) = text.strip_suffix(']').and_then(|inner| inner.rsplit_once('[')) {
            text = before;
        }
        text.rsplit('.').next().unwrap_or(text)
    }

    /// True for the path of the outermost message.
    pub fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// The path as text; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn with_room(&self, more: usize) -> Self {
        let mut text = String::with_capacity(self.text.len() + more);
        text.push_str(&self.text);
        Self { text }
    }

    /// Appends a field in place.
    pub fn push_field(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(name);
    }

    /// Appends an index in place.
    pub fn push_index(&mut self, index: usize) {
        use fmt::Write;
        let _ = write!(self.text, "[{index}]");
    }

    /// Appends a map key in place.
    pub fn push_key(&mut self, key: &str) {
        use fmt::Write;
        let _ = write!(self.text, "[{key:?}]");
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldPath({})", self.text)
    }
}

impl AsRef<str> for FieldPath {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// Takes text that is already a path, for example one that arrived in an error from elsewhere.
impl From<&str> for FieldPath {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned() }
    }
}

impl From<String> for FieldPath {
    fn from(text: String) -> Self {
        Self { text }
    }
}

#[cfg(test)]
mod tests {
    use super::FieldPath;

    #[test]
    fn a_path_reads_like_the_configuration() {
        let path = FieldPath::root()
            .field("static_resources")
            .field("listeners")
            .index(0)
            .field("metadata")
            .field("filter_metadata")
            .key("envoy.lb");
        assert_eq!(path.as_str(), r#"static_resources.listeners[0].metadata.filter_metadata["envoy.lb"]"#);
    }

    #[test]
    fn the_last_field_is_found_behind_indices_and_keys() {
        let path = FieldPath::root().field("a").field("b").key("c.d").index(1);
        assert_eq!(path.last_field(), "b");
        assert_eq!(FieldPath::root().field("a").last_field(), "a");
        assert_eq!(FieldPath::root().last_field(), "");
    }

    #[test]
    fn appending_leaves_the_shorter_path_usable() {
        let clusters = FieldPath::root().field("clusters");
        assert_eq!(clusters.index(1).to_string(), "clusters[1]");
        assert_eq!(clusters.index(2).field("name").to_string(), "clusters[2].name");
        assert_eq!(clusters.to_string(), "clusters");
    }

    #[test]
    fn scoped_steps_are_taken_off_again() {
        let mut path = FieldPath::root();
        let inner =
            path.with_field("a", |path| path.with_index(3, |path| path.with_key("k", |p| p.to_string())));
        assert_eq!(inner, r#"a[3]["k"]"#);
        assert!(path.is_root());
    }

    #[test]
    fn rewinding_goes_back_to_the_mark() {
        let mut path = FieldPath::from("a");
        let mark = path.mark();
        path.push_index(1);
        path.push_field("b");
        assert_eq!(path.as_str(), "a[1].b");
        path.rewind(mark);
        assert_eq!(path.as_str(), "a");
    }

    #[test]
    fn joining_puts_a_dot_only_before_a_field() {
        let base = FieldPath::from("clusters[0]");
        assert_eq!(base.join(&FieldPath::from("name")).as_str(), "clusters[0].name");
        assert_eq!(FieldPath::from("list").join(&FieldPath::from("[2]")).as_str(), "list[2]");
        assert_eq!(base.join(&FieldPath::root()).as_str(), "clusters[0]");
        assert_eq!(FieldPath::root().join(&base).as_str(), "clusters[0]");
    }
}
