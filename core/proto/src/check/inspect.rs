//! What stands in a message that its type does not have, should no longer be used, or can never be right.

use dhow_base::{ConfigError, ConfigWarning, FieldPath, WarningTopic};

use super::{CheckOptions, any_parts, is_unchecked};
use crate::json::{duration_parts, format_duration};
use crate::tables::{EnumType, EnumValue, FieldType, Kind, MessageType, WellKnown};
use crate::wire::{Fields, Malformed, WireValue};

const MAX_DEPTH: usize = 100;

/// The longest duration that Envoy can hold, in seconds: 64-bit nanoseconds.
const MAX_DURATION_SECONDS: i64 = i64::MAX / 1_000_000_000;

const OVERRIDE: &str = "Please see https://www.envoyproxy.io/docs/envoy/latest/version_history/version_history for details. \
    If continued use of this field is absolutely necessary, see \
    https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/runtime#using-runtime-overrides-for-deprecated-features \
    for how to apply a temporary and highly discouraged override.";

const STABILITY: &str = "API features marked as work-in-progress are not considered stable, are not covered by the \
    threat model, are not supported by the security team, and are subject to breaking changes. Do not use this feature \
    without understanding each of the previous points.";

/// Walks the message and everything known inside of it.
pub(super) fn inspect(
    message: MessageType,
    bytes: &[u8],
    options: &CheckOptions,
) -> Result<Vec<ConfigWarning>, ConfigError> {
    let mut inspector = Inspector { options, path: FieldPath::root(), depth: 0, warnings: Vec::new() };
    inspector.message(message, bytes)?;
    Ok(inspector.warnings)
}

struct Inspector<'a> {
    options: &'a CheckOptions,
    path: FieldPath,
    depth: usize,
    warnings: Vec<ConfigWarning>,
}

impl Inspector<'_> {
    fn message(&mut self, message: MessageType, bytes: &[u8]) -> Result<(), ConfigError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error("the message is nested too deeply"));
        }
        self.depth += 1;
        match message.well_known() {
            Some(WellKnown::Any) => {
                let (type_url, payload) = any_parts(bytes).map_err(|error| self.malformed(message, error))?;
                let payload_type = MessageType::of_url(type_url);
                if let Some(payload_type) = payload_type.filter(|payload_type| !is_unchecked(*payload_type)) {
                    self.message(payload_type, payload)?;
                }
            }
            Some(WellKnown::Duration) => self.duration(message, bytes)?,
            Some(_) => {}
            None => self.fields(message, bytes)?,
        }
        self.depth -= 1;
        Ok(())
    }

    fn fields(&mut self, message: MessageType, bytes: &[u8]) -> Result<(), ConfigError> {
        if message.is_work_in_progress() {
            let warning = format!(
                "message '{}' is contained in proto file '{}' marked as work-in-progress. {STABILITY}",
                message.full_name(),
                message.file()
            );
            self.warn(WarningTopic::WorkInProgress, warning);
        }
        let mut occurrences: Vec<(FieldType, usize)> = Vec::new();
        let mut unknown = Vec::new();
        for field in Fields::new(bytes) {
            let (number, value) = field.map_err(|error| self.malformed(message, error))?;
            let Some(field) = message.field_by_number(number) else {
                unknown.push(number.to_string());
                continue;
            };
            let index = match occurrences.iter_mut().find(|(seen, _)| *seen == field) {
                Some((_, count)) => {
                    *count += 1;
                    *count - 1
                }
                None => {
                    occurrences.push((field, 1));
                    self.first_use(message, field)?;
                    0
                }
            };
            self.field(message, field, index, value)?;
        }
        if !unknown.is_empty() {
            self.unknown_fields(message, &unknown)?;
        }
        // An enum that is absent has the value 0, which may be one of those to avoid.
        for field in message.fields() {
            let absent = || occurrences.iter().all(|(seen, _)| *seen != field);
            if let Kind::Enum(enumeration) = field.kind()
                && !field.is_repeated()
                && let Some(value) = enumeration.value_by_number(0).filter(|value| value.deprecated)
                && absent()
            {
                self.deprecated_value(message, field, enumeration, value)?;
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        message: MessageType,
        field: FieldType,
        index: usize,
        value: WireValue<'_>,
    ) -> Result<(), ConfigError> {
        let mark = self.path.mark();
        match (field.kind(), value) {
            (Kind::Message(entry), WireValue::Bytes(bytes)) if field.is_map() => {
                self.path.push_field(field.name());
                self.map_entry(entry, bytes)?;
            }
            (Kind::Message(target), WireValue::Bytes(bytes)) => {
                self.path.push_field(field.name());
                if field.is_repeated() {
                    self.path.push_index(index);
                }
                self.message(target, bytes)?;
            }
            (Kind::Enum(enumeration), WireValue::Varint(bits)) if !field.is_repeated() => {
                if let Some(value) = enumeration.value_by_number(bits as i32).filter(|value| value.deprecated)
                {
                    self.deprecated_value(message, field, enumeration, value)?;
                }
            }
            _ => {}
        }
        self.path.rewind(mark);
        Ok(())
    }

    fn map_entry(&mut self, entry: MessageType, bytes: &[u8]) -> Result<(), ConfigError> {
        let Some(Kind::Message(target)) = entry.field_by_number(2).map(FieldType::kind) else {
            return Ok(());
        };
        let (mut key, mut value) = (String::new(), &[][..]);
        for field in Fields::new(bytes) {
            match field.map_err(|error| self.malformed(entry, error))? {
                (1, WireValue::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                (1, WireValue::Varint(bits)) => key = bits.to_string(),
                (2, WireValue::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        self.path.push_key(&key);
        self.message(target, value)
    }

    fn first_use(&mut self, message: MessageType, field: FieldType) -> Result<(), ConfigError> {
        if !field.is_deprecated() && !field.is_work_in_progress() {
            return Ok(());
        }
        let mark = self.path.mark();
        self.path.push_field(field.name());
        let name = format!("{}.{}", message.full_name(), field.name());
        if field.is_work_in_progress() {
            let text = format!("field '{name}' is marked as work-in-progress. {STABILITY}");
            self.warn(WarningTopic::WorkInProgress, text);
        }
        if field.is_deprecated() {
            let text = format!(
                "Using deprecated option '{name}' from file {}. This configuration will be removed from Envoy soon. {OVERRIDE}",
                base_name(message.file())
            );
            self.deprecated(message, &name, text, field.is_disallowed())?;
        }
        self.path.rewind(mark);
        Ok(())
    }

    fn deprecated_value(
        &mut self,
        message: MessageType,
        field: FieldType,
        enumeration: EnumType,
        value: EnumValue,
    ) -> Result<(), ConfigError> {
        let mark = self.path.mark();
        self.path.push_field(field.name());
        let (default, advice) = match value.number {
            0 => ("the default now-", " so a non-default value must now be explicitly set"),
            _ => ("", ""),
        };
        let text = format!(
            "Using {default}deprecated value {} for enum '{}.{}' from file {}. This enum value will be removed from \
             Envoy soon{advice}. {OVERRIDE}",
            value.name,
            message.full_name(),
            field.name(),
            base_name(enumeration.file())
        );
        // The default cannot be told from an absent field, which Envoy only warns about.
        let name = format!("{}.{}", message.full_name(), field.name());
        self.deprecated(message, &name, text, value.disallowed && value.number != 0)?;
        self.path.rewind(mark);
        Ok(())
    }

    fn deprecated(
        &mut self,
        message: MessageType,
        name: &str,
        text: String,
        disallowed: bool,
    ) -> Result<(), ConfigError> {
        let text = format!("type {} {text}", message.full_name());
        if !self.options.deprecated.allows(name, disallowed) {
            return Err(self.error(text));
        }
        self.warn(WarningTopic::Deprecated, format!("Deprecated field: {text}"));
        Ok(())
    }

    fn unknown_fields(&mut self, message: MessageType, numbers: &[String]) -> Result<(), ConfigError> {
        let what = format!("type {} with unknown field set {{{}}}", message.full_name(), numbers.join(", "));
        if self.options.reject_unknown_fields {
            return Err(self.error(format!("Protobuf message ({what}) has unknown fields")));
        }
        self.warn(WarningTopic::Unknown, format!("Unknown field: {what}"));
        Ok(())
    }

    fn duration(&mut self, message: MessageType, bytes: &[u8]) -> Result<(), ConfigError> {
        let (seconds, nanos) = duration_parts(bytes).map_err(|error| self.malformed(message, error))?;
        let text = || format_duration(seconds, nanos);
        if seconds < 0 || nanos < 0 {
            return Err(self.error(format!("Invalid duration: Expected positive duration: {}", text())));
        }
        if nanos > 999_999_999 || seconds >= MAX_DURATION_SECONDS {
            return Err(self.error(format!("Invalid duration: Duration out-of-range: {}", text())));
        }
        Ok(())
    }

    fn warn(&mut self, topic: WarningTopic, text: String) {
        self.warnings.push(ConfigWarning::new(self.path.clone(), text).about(topic));
    }

    fn malformed(&self, message: MessageType, error: Malformed) -> ConfigError {
        self.error(format!("{error} of {}", message.full_name()))
    }

    fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::new(self.path.clone(), reason)
    }
}

fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}
