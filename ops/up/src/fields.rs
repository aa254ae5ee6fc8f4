//! Reading typed fields out of a JSON object, with errors that carry the path of the field.

use std::collections::BTreeMap;

use serde_json::Value;

/// A value with the path that led to it; a missing field is null.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Field<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    /// The field of this name, null where it is missing.
    pub(crate) fn get(&self, name: &str) -> Field<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Field { value: self.value.get(name).unwrap_or(&Value::Null), path }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn json(&self) -> &'a Value {
        self.value
    }

    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The items of a list; none where it is missing.
    pub(crate) fn items(&self) -> Result<Vec<Field<'a>>, String> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => {
                let item = |(index, value)| Field { value, path: format!("{}[{index}]", self.path) };
                Ok(items.iter().enumerate().map(item).collect())
            }
            _ => Err(self.wrong("must be a list")),
        }
    }

    pub(crate) fn optional_text(&self) -> Result<Option<&'a str>, String> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.wrong("must be a string")),
        }
    }

    pub(crate) fn text(&self) -> Result<&'a str, String> {
        self.optional_text()?.filter(|text| !text.is_empty()).ok_or_else(|| self.wrong("is required"))
    }

    pub(crate) fn texts(&self) -> Result<Vec<String>, String> {
        self.items()?.iter().map(|item| Ok(item.optional_text()?.unwrap_or_default().to_owned())).collect()
    }

    /// A whole number up to `most`; `default` where it is missing.
    pub(crate) fn number(&self, default: u64, most: u64) -> Result<u64, String> {
        match self.value {
            Value::Null => Ok(default),
            value => value
                .as_u64()
                .filter(|number| *number <= most)
                .ok_or_else(|| self.wrong(&format!("must be a whole number from 0 to {most}"))),
        }
    }

    /// An object of strings, such as labels.
    pub(crate) fn map(&self) -> Result<BTreeMap<String, String>, String> {
        match self.value {
            Value::Null => Ok(BTreeMap::new()),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| match value {
                    Value::String(text) => Ok((name.clone(), text.clone())),
                    Value::Null => Ok((name.clone(), String::new())),
                    _ => Err(format!("{}[{name:?}]: must be a string", self.path)),
                })
                .collect(),
            _ => Err(self.wrong("must be an object")),
        }
    }

    pub(crate) fn wrong(&self, rule: &str) -> String {
        format!("{}: {rule}", self.path)
    }
}
