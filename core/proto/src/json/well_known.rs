//! Message types with a JSON form of their own: to the wire.

use dhow_base::ConfigError;
use serde_json::{Map, Value as Json};

use super::read::JsonReader;
use super::scalar::{expected, put_scalar};
use super::time::{parse_duration, parse_timestamp};
use crate::tables::{MessageType, WellKnown};
use crate::wire::{WireType, put_bytes, put_tag, put_uint};

impl JsonReader {
    pub(super) fn well_known(
        &mut self,
        well_known: WellKnown,
        message: MessageType,
        value: &Json,
    ) -> Result<(), ConfigError> {
        // Envoy's reader also takes these as the messages that they are: `{seconds: 5}`, `{value: 5}`.
        let is_plain = matches!(
            well_known,
            WellKnown::Wrapper | WellKnown::Duration | WellKnown::Timestamp | WellKnown::FieldMask
        );
        if let Json::Object(object) = value
            && is_plain
        {
            return self.fields(message, object, None);
        }
        match well_known {
            WellKnown::Any => self.any(message, value),
            WellKnown::Struct => match value {
                Json::Object(object) => self.structure(object),
                _ => Err(self.no_structure(value)),
            },
            WellKnown::ListValue => match value {
                Json::Array(items) => self.list(items),
                _ => Err(self.wrong(message, expected(value, '['))),
            },
            WellKnown::Value => self.value(value),
            WellKnown::Empty => match value {
                Json::Object(object) => self.fields(message, object, None),
                _ => Err(self.wrong(message, expected(value, '{'))),
            },
            WellKnown::Wrapper => {
                let Some(wrapped) = message.field_by_number(1) else { return Ok(()) };
                put_scalar(&mut self.out, 1, wrapped.kind(), value, true)
                    .map_err(|error| self.wrong(message, error))
            }
            WellKnown::Duration => {
                let text = value.as_str().ok_or_else(|| self.wrong(message, expected(value, '"')))?;
                let (seconds, nanos) =
                    parse_duration(text).map_err(|reason| self.unreadable(message, reason))?;
                self.time(seconds, nanos);
                Ok(())
            }
            WellKnown::Timestamp => {
                let text = value.as_str().ok_or_else(|| self.wrong(message, expected(value, '"')))?;
                let (seconds, nanos) = parse_timestamp(text)
                    .ok_or_else(|| self.unreadable(message, &format!("invalid timestamp: '{text}'")))?;
                self.time(seconds, nanos);
                Ok(())
            }
            WellKnown::FieldMask => {
                let text = value.as_str().ok_or_else(|| self.wrong(message, expected(value, '"')))?;
                for path in text.split(',').filter(|path| !path.is_empty()) {
                    put_bytes(&mut self.out, 1, snake_case(path).as_bytes());
                }
                Ok(())
            }
        }
    }

    fn time(&mut self, seconds: i64, nanos: i32) {
        if seconds != 0 {
            put_uint(&mut self.out, 1, seconds as u64);
        }
        if nanos != 0 {
            put_uint(&mut self.out, 2, i64::from(nanos) as u64);
        }
    }

    /// Reads an `Any`; `message` is the one that errors are about.
    pub(super) fn any(&mut self, message: MessageType, value: &Json) -> Result<(), ConfigError> {
        let Json::Object(object) = value else {
            return Err(self.wrong(message, expected(value, '{')));
        };
        if object.is_empty() {
            return Ok(());
        }
        let Some(type_url) = object.get("@type") else {
            return Err(self.unreadable(
                message,
                "in legacy mode, missing @type in Any is only allowed for an empty object",
            ));
        };
        let type_url = type_url.as_str().ok_or_else(|| self.wrong(message, expected(type_url, '"')))?;
        let Some(payload) = MessageType::of_url(type_url) else {
            let what = match type_url.split_once('/') {
                Some((host, _)) if !host.is_empty() => format!("could not find @type '{type_url}'"),
                _ => format!("@type must contain at least one / and a nonempty host; got: {type_url}"),
            };
            let reason = format!("Unable to parse JSON as proto (INVALID_ARGUMENT: {what})");
            let error = ConfigError::new(self.path.clone(), reason);
            return Err(match newer_version(type_url) {
                Some(newer) => error.with_hint(format!("the v3 API has {newer}")),
                None => error,
            });
        };
        put_bytes(&mut self.out, 1, type_url.as_bytes());
        let start = self.out.len();
        match payload.well_known() {
            None | Some(WellKnown::Empty) => self.fields(payload, object, Some("@type"))?,
            Some(_) => {
                if object.keys().any(|key| !matches!(key.as_str(), "@type" | "value")) {
                    let reason = "fields in a well-known-typed Any must be @type or value";
                    return Err(self.unreadable(payload, reason));
                }
                if let Some(value) = object.get("value") {
                    let mark = self.path.mark();
                    self.path.push_field("value");
                    self.message(payload, value)?;
                    self.path.rewind(mark);
                }
            }
        }
        if self.out.len() > start {
            self.wrap(start, 2);
        }
        Ok(())
    }

    fn structure(&mut self, object: &Map<String, Json>) -> Result<(), ConfigError> {
        let mark = self.path.mark();
        for (key, value) in object {
            self.path.rewind(mark);
            self.path.push_key(key);
            let start = self.out.len();
            put_bytes(&mut self.out, 1, key.as_bytes());
            self.nested_value(2, value)?;
            self.wrap(start, 1);
        }
        self.path.rewind(mark);
        Ok(())
    }

    fn list(&mut self, items: &[Json]) -> Result<(), ConfigError> {
        let mark = self.path.mark();
        for (index, item) in items.iter().enumerate() {
            self.path.rewind(mark);
            self.path.push_index(index);
            self.nested_value(1, item)?;
        }
        self.path.rewind(mark);
        Ok(())
    }

    fn nested_value(&mut self, number: u32, value: &Json) -> Result<(), ConfigError> {
        let start = self.out.len();
        self.value(value)?;
        self.wrap(start, number);
        Ok(())
    }

    /// A `google.protobuf.Value`: exactly one of null, number, text, truth value, structure, list.
    fn value(&mut self, value: &Json) -> Result<(), ConfigError> {
        match value {
            Json::Null => put_uint(&mut self.out, 1, 0),
            Json::Number(number) => {
                put_tag(&mut self.out, 2, WireType::Fixed64);
                self.out.extend_from_slice(&number.as_f64().unwrap_or(f64::NAN).to_le_bytes());
            }
            Json::String(text) => put_bytes(&mut self.out, 3, text.as_bytes()),
            Json::Bool(value) => put_uint(&mut self.out, 4, u64::from(*value)),
            Json::Object(object) => {
                let start = self.out.len();
                self.structure(object)?;
                self.wrap(start, 5);
            }
            Json::Array(items) => {
                let start = self.out.len();
                self.list(items)?;
                self.wrap(start, 6);
            }
        }
        Ok(())
    }
}

/// The same type in version 3 of the API, when it differs from `type_url` in the version alone.
fn newer_version(type_url: &str) -> Option<&'static str> {
    ["v2", "v2alpha"].iter().find_map(|old| {
        let newer = type_url.replace(&format!(".{old}."), ".v3.");
        MessageType::of_url(&newer).filter(|_| newer != type_url).map(MessageType::full_name)
    })
}

/// A path of a field mask travels in lowerCamelCase.
fn snake_case(path: &str) -> String {
    let mut snake = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
