//! From a field path back to the line where the field is written.

use crate::{Document, Node, Value};

impl Document {
    /// The line (from 1) of the field at `path`, such as `spec.http[0].route`; `None` when the document does not have it.
    ///
    /// A name matches a key in either spelling (`port_value`, `portValue`). A key with dots is written `["a.b"]`.
    pub fn line_of(&self, path: &str) -> Option<usize> {
        let (line, complete) = self.walk(path);
        complete.then_some(line)
    }

    /// The line (from 1) of the deepest part of `path` that the document has: for an error about something missing.
    pub fn nearest_line(&self, path: &str) -> usize {
        self.walk(path).0
    }

    fn walk(&self, path: &str) -> (usize, bool) {
        let mut node = &self.root;
        let mut line = node.line;
        for step in Steps(path) {
            match step.and_then(|step| step.into_child(node)) {
                Some((child, child_line)) => (node, line) = (child, child_line),
                None => return (line, false),
            }
        }
        (line, true)
    }
}

enum Step<'a> {
    Name(&'a str),
    Key(String),
    Index(usize),
}

impl Step<'_> {
    fn into_child(self, node: &Node) -> Option<(&Node, usize)> {
        match (self, &node.value) {
            (Step::Index(index), Value::Sequence(items)) => items.get(index).map(|item| (item, item.line)),
            (Step::Key(key), Value::Mapping(_)) => node.entry(&key).map(|entry| (&entry.value, entry.line)),
            (Step::Name(name), Value::Mapping(entries)) => node
                .entry(name)
                .or_else(|| entries.iter().find(|entry| same_field(&entry.key, name)))
                .map(|entry| (&entry.value, entry.line)),
            _ => None,
        }
    }
}

fn same_field(left: &str, right: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars().filter(|&letter| letter != '_').map(|letter| letter.to_ascii_lowercase()).collect()
    };
    letters(left) == letters(right)
}

/// The steps of a path; an item of `None` means that the rest is not a path.
struct Steps<'a>(&'a str);

impl<'a> Iterator for Steps<'a> {
    type Item = Option<Step<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.strip_prefix('.').unwrap_or(self.0);
        if rest.is_empty() {
            return None;
        }
        if let Some(bracketed) = rest.strip_prefix('[') {
            let step = if bracketed.starts_with('"') { quoted_key(bracketed) } else { index(bracketed) };
            self.0 = step.as_ref().map_or("", |(_, rest)| rest);
            return Some(step.map(|(step, _)| step));
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        self.0 = &rest[end..];
        Some(Some(Step::Name(&rest[..end])))
    }
}

fn index(bracketed: &str) -> Option<(Step<'_>, &str)> {
    let (index, rest) = bracketed.split_once(']')?;
    Some((Step::Index(index.parse().ok()?), rest))
}

fn quoted_key(bracketed: &str) -> Option<(Step<'_>, &str)> {
    let mut stream = serde_json::Deserializer::from_str(bracketed).into_iter::<String>();
    let key = stream.next()?.ok()?;
    let rest = bracketed[stream.byte_offset()..].strip_prefix(']')?;
    Some((Step::Key(key), rest))
}
