//! Places in a bootstrap, as the proxy writes them: `static_resources.listeners[0].name`, `metadata["key"]`.

use std::fmt;

use dhow_proto::{FieldType, Kind, MessageType};
use serde_json::Value as Json;

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Index(usize),
    Key(String),
}

/// A place in a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(pub(super) Vec<Step>);

impl Place {
    /// The place that `text` names; none when it is not written as a place.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix("[\"") {
                let (key, after) = quoted.split_once("\"]")?;
                steps.push(Step::Key(key.to_owned()));
                rest = after;
            } else if let Some(number) = rest.strip_prefix('[') {
                let (index, after) = number.split_once(']')?;
                steps.push(Step::Index(index.parse().ok()?));
                rest = after;
            } else {
                let name = rest.strip_prefix('.').unwrap_or(rest);
                let end = name.find(['.', '[']).unwrap_or(name.len());
                if end == 0 || !name[..end].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    return None;
                }
                steps.push(Step::Field(name[..end].to_owned()));
                rest = &name[end..];
            }
        }
        Some(Self(steps))
    }

    pub(super) fn field(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Field(name.to_owned()));
        Self(steps)
    }

    pub(super) fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The same place or one further inside.
    pub(super) fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The value at this place; what is missing on the way is made.
    pub(super) fn get_or_make<'a>(&self, document: &'a mut Json) -> Option<&'a mut Json> {
        let mut value = document;
        for step in &self.0 {
            if value.is_null() {
                *value = if matches!(step, Step::Index(_)) {
                    Json::Array(Vec::new())
                } else {
                    Json::Object(Default::default())
                };
            }
            value = match (step, value) {
                (Step::Field(name) | Step::Key(name), Json::Object(members)) => {
                    members.entry(name.as_str()).or_insert(Json::Null)
                }
                (Step::Index(index), Json::Array(items)) => {
                    while items.len() <= *index {
                        items.push(Json::Null);
                    }
                    &mut items[*index]
                }
                _ => return None,
            };
        }
        Some(value)
    }

    /// The value at this place.
    pub(super) fn get<'a>(&self, document: &'a Json) -> Option<&'a Json> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Field(name) | Step::Key(name) => value.get(name.as_str()),
            Step::Index(index) => value.get(*index),
        })
    }

    /// The field at (or around) this place, and the message that has it.
    pub(super) fn field_type(&self, root: MessageType, document: &Json) -> Option<FieldType> {
        let mut message = root;
        let mut value = document;
        let mut found = None;
        for step in &self.0 {
            match step {
                Step::Field(name) => {
                    if let Some(url) = value.get("@type").and_then(Json::as_str) {
                        message = MessageType::of_url(url)?;
                    }
                    let field = message.field_by_name(name)?;
                    if let Kind::Message(target) = field.kind() {
                        message = if field.is_map() { map_value(target).unwrap_or(target) } else { target };
                    }
                    value = value.get(name.as_str()).unwrap_or(&Json::Null);
                    found = Some(field);
                }
                Step::Index(index) => value = value.get(*index).unwrap_or(&Json::Null),
                Step::Key(key) => value = value.get(key.as_str()).unwrap_or(&Json::Null),
            }
        }
        found
    }
}

/// The message that a map holds, when it holds messages.
pub(super) fn map_value(entry: MessageType) -> Option<MessageType> {
    match entry.field_by_number(2)?.kind() {
        Kind::Message(value) => Some(value),
        _ => None,
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if at == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => write!(f, "[\"{key}\"]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_survive_being_written_and_read() {
        for text in ["a", "a.b[2].c", "a[\"x.y/z\"].b"] {
            assert_eq!(Place::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Place::parse("route: unknown"), None);
    }
}
