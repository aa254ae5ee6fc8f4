//! Layers: named sets of values.

use std::collections::BTreeMap;

use dhow_proto::google::protobuf::{Struct, Value, value::Kind};

use crate::value::{RuntimeValue, looks_like_fraction};

/// A layer: what one source says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    name: Box<str>,
    values: BTreeMap<Box<str>, RuntimeValue>,
}

impl Layer {
    /// A layer without values.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), values: BTreeMap::new() }
    }

    /// The layer of a `static_layer` or of a runtime resource. Keys of nested structs are joined by dots; a struct that is a fraction stays
    /// one value.
    ///
    /// # Errors
    /// Envoy's words for a value that is null or a list.
    pub fn from_struct(name: &str, message: &Struct) -> Result<Self, String> {
        let mut layer = Self::new(name);
        layer.add_struct("", message)?;
        Ok(layer)
    }

    fn add_struct(&mut self, prefix: &str, message: &Struct) -> Result<(), String> {
        for (name, value) in &message.fields {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match &value.kind {
                Some(Kind::StructValue(fields)) if !looks_like_fraction(fields) => {
                    self.add_struct(&key, fields)?;
                }
                _ => {
                    let value = RuntimeValue::from_message(value)
                        .ok_or_else(|| format!("Invalid runtime entry value for {key}"))?;
                    self.values.insert(key.into(), value);
                }
            }
        }
        Ok(())
    }

    /// Adds the value of a file of a `disk_layer`. Lines that begin with `#` are comments; what is left is YAML, of which `parse` makes a value.
    ///
    /// # Errors
    /// What `parse` says.
    pub fn add_file(
        &mut self,
        key: &str,
        content: &str,
        parse: impl FnOnce(&str) -> Result<Value, String>,
    ) -> Result<(), String> {
        let text = without_comments(content);
        let value = parse(&text)?;
        // A list or nothing at all is shown as it stands, and has no reading.
        let value = RuntimeValue::from_message(&value).unwrap_or_else(|| RuntimeValue::from_text(""));
        self.values.insert(key.into(), value.with_text(&text));
        Ok(())
    }

    /// Sets a value as an operator gives it; an empty text takes the value away.
    pub fn set(&mut self, key: &str, text: &str) {
        if text.is_empty() {
            self.values.remove(key);
        } else {
            self.values.insert(key.into(), RuntimeValue::from_text(text));
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&RuntimeValue> {
        self.values.get(key)
    }

    /// Keys and values, in order of the keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, &RuntimeValue)> {
        self.values.iter().map(|(key, value)| (&**key, value))
    }
}

/// A file's text without comment lines and without the white space at its end. As in Envoy, a line other than the last keeps its line break
/// even when only comments follow.
fn without_comments(content: &str) -> String {
    let lines: Vec<&str> = content.trim_ascii_end().split('\n').filter(|line| !line.is_empty()).collect();
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        text.push_str(line);
        if at + 1 < lines.len() {
            text.push('\n');
        }
    }
    text
}
