//! The validation rules of a message and of everything in it, in Envoy's order and words.

use std::collections::HashSet;

use dhow_base::{ConfigError, FieldPath};
use envoy_types::pb::validate::{FieldRules, MapRules, RepeatedRules, field_rules::Type as Rule};

use super::rules::{Violation, check_value, default_value, is_required, is_skipped, missing};
use super::{any_parts, compiled, is_unchecked};
use crate::tables::{FieldType, Kind, MessageType, WellKnown};
use crate::wire::{Fields, Malformed, WireValue, read_varint};

const MAX_DEPTH: usize = 100;

/// Validates a message, then the payload of each `Any` in it as a message of its own.
pub(super) fn validate(message: MessageType, bytes: &[u8]) -> Result<(), ConfigError> {
    let mut pending = vec![(Payload { path: FieldPath::root(), message, bytes, misplaced: None }, 0)];
    let mut next = 0;
    while let Some((payload, nesting)) = pending.get(next).cloned() {
        next += 1;
        let Payload { path, message, bytes, misplaced } = payload;
        let mut validator = Validator { path, depth: 0, payloads: Vec::new() };
        validator.message(message, bytes).map_err(|violation| {
            // Envoy looks at what an extension says once it has found the extension.
            if let Some((path, reason)) = misplaced {
                return ConfigError::new(path, reason);
            }
            let reason = format!("Proto constraint validation failed ({})", violation.text);
            ConfigError { path: violation.path, reason, hint: violation.hint }
        })?;
        if nesting < MAX_DEPTH {
            let checked = validator.payloads.into_iter().filter(|payload| !is_unchecked(payload.message));
            pending.extend(checked.map(|payload| (payload, nesting + 1)));
        }
    }
    Ok(())
}

/// A message to validate on its own.
#[derive(Clone)]
struct Payload<'a> {
    path: FieldPath,
    message: MessageType,
    bytes: &'a [u8],
    /// Of an extension that cannot be where it is: where that is, and Envoy's words for it.
    misplaced: Option<(FieldPath, String)>,
}

struct Validator<'a> {
    path: FieldPath,
    depth: usize,
    /// What was found in `Any` fields.
    payloads: Vec<Payload<'a>>,
}

/// Messages that take an extension, and how the names of the types begin which may be one there.
const SLOTS: [(&str, &str); 5] = [
    ("envoy.config.accesslog.v3.AccessLog", "envoy.extensions.access_loggers."),
    ("envoy.config.core.v3.TransportSocket", "envoy.extensions.transport_sockets."),
    ("envoy.config.listener.v3.Filter", "envoy.extensions.filters.network."),
    ("envoy.config.listener.v3.ListenerFilter", "envoy.extensions.filters."),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        "envoy.extensions.filters.http.",
    ),
];

/// The occurrences of one field.
type Values<'v, 'a> = &'v [WireValue<'a>];

impl<'a> Validator<'a> {
    fn message(&mut self, message: MessageType, bytes: &'a [u8]) -> Result<(), Violation> {
        match message.well_known() {
            Some(WellKnown::Any) => {
                let (type_url, payload) = any_parts(bytes).map_err(|error| self.malformed(error))?;
                if let Some(payload_type) = MessageType::of_url(type_url) {
                    let path = self.path.clone();
                    self.payloads.push(Payload {
                        path,
                        message: payload_type,
                        bytes: payload,
                        misplaced: None,
                    });
                }
                return Ok(());
            }
            Some(_) => return Ok(()),
            None => {}
        }
        if message.rules_off() {
            return Ok(());
        }
        if self.depth >= MAX_DEPTH {
            return Err(Violation {
                path: self.path.clone(),
                text: "the message is nested too deeply".to_owned(),
                hint: None,
            });
        }
        self.depth += 1;
        let occurrences = self.occurrences(message, bytes)?;
        let of = |field: FieldType| -> Vec<WireValue<'a>> {
            occurrences.iter().filter(|(seen, _)| *seen == field).map(|&(_, value)| value).collect()
        };
        let real_oneof = |field: FieldType| field.oneof().filter(|&oneof| !message.oneof(oneof).synthetic);
        for field in message.fields().filter(|&field| real_oneof(field).is_none()) {
            self.field(message, field, &of(field))?;
        }
        let before = self.payloads.len();
        for position in (0..message.oneof_count()).filter(|&position| !message.oneof(position).synthetic) {
            let members = message.fields().filter(|field| field.oneof() == Some(position));
            let Some(field) = members.clone().find(|field| !of(*field).is_empty()) else {
                let oneof = message.oneof(position);
                if oneof.required {
                    let text = format!("field: \"{}\", reason: is required", oneof.name);
                    let alternatives: Vec<_> = members.map(FieldType::name).collect();
                    let hint = Some(format!("set one of {}", alternatives.join(", ")));
                    return Err(Violation { path: self.path.clone(), text, hint });
                }
                continue;
            };
            self.field(message, field, &of(field))?;
        }
        if let Some((_, prefix)) = SLOTS.iter().find(|(slot, _)| *slot == message.full_name()) {
            let name = message.field_by_name("name").and_then(|name| of(name).last().copied());
            for payload in &mut self.payloads[before..] {
                payload.misplaced = misplaced(&self.path, prefix, name, payload.message);
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn occurrences(
        &self,
        message: MessageType,
        bytes: &'a [u8],
    ) -> Result<Vec<(FieldType, WireValue<'a>)>, Violation> {
        let mut occurrences = Vec::new();
        for field in Fields::new(bytes) {
            let (number, value) = field.map_err(|error| self.malformed(error))?;
            if let Some(field) = message.field_by_number(number) {
                occurrences.push((field, value));
            }
        }
        Ok(occurrences)
    }

    fn field(
        &mut self,
        message: MessageType,
        field: FieldType,
        values: Values<'_, 'a>,
    ) -> Result<(), Violation> {
        let rules = field.rules().map(compiled::rules);
        let mark = self.path.mark();
        self.path.push_field(field.name());
        let context = Context { message, field };
        if field.is_map() {
            self.map(&context, rules, values)?;
        } else if field.is_repeated() {
            self.repeated(&context, rules, values)?;
        } else {
            self.singular(&context, rules, values)?;
        }
        self.path.rewind(mark);
        Ok(())
    }

    fn singular(
        &mut self,
        context: &Context,
        rules: Option<&FieldRules>,
        values: Values<'_, 'a>,
    ) -> Result<(), Violation> {
        let kind = context.field.kind();
        let is_message = matches!(kind, Kind::Message(_));
        let Some(&value) = values.last() else {
            let Some(rules) = rules else { return Ok(()) };
            return if is_message {
                if is_required(rules) { Err(self.violation(context, "", missing(rules))) } else { Ok(()) }
            } else if context.field.oneof().is_some() {
                // An absent `optional` field; of a real oneof only the member that is set comes here.
                Ok(())
            } else {
                check_value(rules, kind, default_value(kind))
                    .map_err(|text| self.violation(context, "", &text))
            };
        };
        if let Some(rules) = rules {
            check_value(rules, kind, value).map_err(|text| self.violation(context, "", &text))?;
        }
        // A message that occurs several times is the merge of them. Merging needs memory that outlives this walk, and
        // only hand-written bytes contain such a thing, so each part has to pass.
        match kind {
            Kind::Message(target) if !rules.is_some_and(is_skipped) => {
                values.iter().try_for_each(|&value| self.embedded(context, "", target, value))
            }
            _ => Ok(()),
        }
    }

    fn repeated(
        &mut self,
        context: &Context,
        rules: Option<&FieldRules>,
        values: Values<'_, 'a>,
    ) -> Result<(), Violation> {
        let kind = context.field.kind();
        let mut items = Vec::with_capacity(values.len());
        for &value in values {
            unpack(kind, value, &mut items).map_err(|error| self.malformed(error))?;
        }
        let rules = match rules {
            Some(FieldRules { r#type: Some(Rule::Repeated(rules)), .. }) => Some(rules.as_ref()),
            _ => None,
        };
        if let Some(RepeatedRules { min_items, max_items, unique, items: _, ignore_empty }) = rules {
            if ignore_empty.unwrap_or(false) && items.is_empty() {
                return Ok(());
            }
            check_count(items.len() as u64, *min_items, *max_items, "item(s)")
                .map_err(|text| self.violation(context, "", &text))?;
            if unique.unwrap_or(false) {
                let mut seen = HashSet::new();
                if let Some(again) = items.iter().position(|&item| !seen.insert(identity(item))) {
                    let text = "repeated value must contain unique items";
                    return Err(self.violation(context, &format!("[{again}]"), text));
                }
            }
        }
        let item_rules = rules.and_then(|rules| rules.items.as_deref());
        let mark = self.path.mark();
        for (index, &item) in items.iter().enumerate() {
            self.path.push_index(index);
            self.element(context, &format!("[{index}]"), item_rules, kind, item)?;
            self.path.rewind(mark);
        }
        Ok(())
    }

    fn map(
        &mut self,
        context: &Context,
        rules: Option<&FieldRules>,
        values: Values<'_, 'a>,
    ) -> Result<(), Violation> {
        let rules = match rules {
            Some(FieldRules { r#type: Some(Rule::Map(rules)), .. }) => Some(rules.as_ref()),
            _ => None,
        };
        if let Some(MapRules { min_pairs, max_pairs, no_sparse: _, keys: _, values: _, ignore_empty }) = rules
        {
            if ignore_empty.unwrap_or(false) && values.is_empty() {
                return Ok(());
            }
            check_count(values.len() as u64, *min_pairs, *max_pairs, "pair(s)")
                .map_err(|text| self.violation(context, "", &text))?;
        }
        let Kind::Message(entry) = context.field.kind() else { return Ok(()) };
        let (Some(key_field), Some(value_field)) = (entry.field_by_number(1), entry.field_by_number(2))
        else {
            return Ok(());
        };
        let mark = self.path.mark();
        for &value in values {
            let WireValue::Bytes(bytes) = value else { return Err(self.malformed(Malformed)) };
            let occurrences = self.occurrences(entry, bytes)?;
            let last = |field: FieldType| {
                let found = occurrences.iter().rev().find(|(seen, _)| *seen == field);
                found.map_or_else(|| default_value(field.kind()), |&(_, value)| value)
            };
            let (key, value) = (last(key_field), last(value_field));
            let key_text = show_key(key);
            self.path.push_key(&key_text);
            let suffix = format!("[{key_text}]");
            if let Some(key_rules) = rules.and_then(|rules| rules.keys.as_deref()) {
                check_value(key_rules, key_field.kind(), key)
                    .map_err(|text| self.violation(context, &suffix, &text))?;
            }
            let value_rules = rules.and_then(|rules| rules.values.as_deref());
            self.element(context, &suffix, value_rules, value_field.kind(), value)?;
            self.path.rewind(mark);
        }
        Ok(())
    }

    fn element(
        &mut self,
        context: &Context,
        suffix: &str,
        rules: Option<&FieldRules>,
        kind: Kind,
        value: WireValue<'a>,
    ) -> Result<(), Violation> {
        if let Some(rules) = rules {
            check_value(rules, kind, value).map_err(|text| self.violation(context, suffix, &text))?;
        }
        match kind {
            Kind::Message(target) if !rules.is_some_and(is_skipped) => {
                self.embedded(context, suffix, target, value)
            }
            _ => Ok(()),
        }
    }

    fn embedded(
        &mut self,
        context: &Context,
        suffix: &str,
        target: MessageType,
        value: WireValue<'a>,
    ) -> Result<(), Violation> {
        let WireValue::Bytes(bytes) = value else { return Err(self.malformed(Malformed)) };
        self.message(target, bytes).map_err(|inner| {
            let place = context.place(suffix);
            let text = format!("{place}: embedded message failed validation | caused by {}", inner.text);
            Violation { text, ..inner }
        })
    }

    fn violation(&self, context: &Context, suffix: &str, reason: &str) -> Violation {
        Violation {
            path: self.path.clone(),
            text: format!("{}: {reason}", context.place(suffix)),
            hint: None,
        }
    }

    fn malformed(&self, error: Malformed) -> Violation {
        Violation { path: self.path.clone(), text: error.to_string(), hint: None }
    }
}

/// What Envoy says of an extension at `path` whose type does not begin with `prefix`.
fn misplaced(
    path: &FieldPath,
    prefix: &str,
    name: Option<WireValue<'_>>,
    message: MessageType,
) -> Option<(FieldPath, String)> {
    let type_name = message.full_name();
    // What is common wraps others and may be anywhere.
    let may_be = ["envoy.extensions.common.", prefix].iter().any(|prefix| type_name.starts_with(prefix));
    if may_be || !type_name.starts_with("envoy.") {
        return None;
    }
    let name = name.map(show_key).unwrap_or_default();
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
    Some((path.clone(), reason))
}

/// Where a rule is broken, in the words of the generated validators: `ClusterValidationError.Name`.
struct Context {
    message: MessageType,
    field: FieldType,
}

impl Context {
    fn place(&self, suffix: &str) -> String {
        let mut field = String::new();
        let mut letters = self.field.name().chars().peekable();
        let mut begins = true;
        while let Some(letter) = letters.next() {
            // An underscore stays where no letter can be made large in its place; a letter behind a digit is made large.
            if letter == '_' && letters.peek().is_some_and(char::is_ascii_lowercase) {
                begins = true;
                continue;
            }
            field.push(if begins { letter.to_ascii_uppercase() } else { letter });
            begins = !letter.is_ascii_alphabetic();
        }
        format!("{}ValidationError.{field}{suffix}", self.message.short_name())
    }
}

fn check_count(count: u64, min: Option<u64>, max: Option<u64>, unit: &str) -> Result<(), String> {
    match (min, max) {
        (Some(min), Some(max)) if min == max && count != min => {
            Err(format!("value must contain exactly {min} {unit}"))
        }
        (Some(min), Some(max)) if !(min..=max).contains(&count) => {
            let unit = unit.replace("(s)", "s");
            Err(format!("value must contain between {min} and {max} {unit}, inclusive"))
        }
        (Some(min), None) if count < min => Err(format!("value must contain at least {min} {unit}")),
        (None, Some(max)) if count > max => Err(format!("value must contain no more than {max} {unit}")),
        _ => Ok(()),
    }
}

/// The elements in one occurrence of a repeated field, which may be packed.
fn unpack<'a>(kind: Kind, value: WireValue<'a>, items: &mut Vec<WireValue<'a>>) -> Result<(), Malformed> {
    let WireValue::Bytes(mut packed) = value else {
        items.push(value);
        return Ok(());
    };
    if matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_)) {
        items.push(value);
        return Ok(());
    }
    while !packed.is_empty() {
        items.push(match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
                let (bits, rest) = packed.split_first_chunk().ok_or(Malformed)?;
                packed = rest;
                WireValue::Fixed64(u64::from_le_bytes(*bits))
            }
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
                let (bits, rest) = packed.split_first_chunk().ok_or(Malformed)?;
                packed = rest;
                WireValue::Fixed32(u32::from_le_bytes(*bits))
            }
            _ => WireValue::Varint(read_varint(&mut packed)?),
        });
    }
    Ok(())
}

/// Something to compare elements by.
fn identity(value: WireValue<'_>) -> (u64, &[u8]) {
    match value {
        WireValue::Varint(bits) | WireValue::Fixed64(bits) => (bits, &[]),
        WireValue::Fixed32(bits) => (bits.into(), &[]),
        WireValue::Bytes(bytes) => (0, bytes),
    }
}

fn show_key(key: WireValue<'_>) -> String {
    match key {
        WireValue::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        WireValue::Varint(bits) | WireValue::Fixed64(bits) => bits.to_string(),
        WireValue::Fixed32(bits) => bits.to_string(),
    }
}
