//! The rules of one value.

use dhow_base::FieldPath;
use envoy_types::pb::google::protobuf::{Duration, Timestamp};
use envoy_types::pb::validate::{
    AnyRules, DurationRules, EnumRules, FieldRules, TimestampRules, field_rules::Type as Rule,
};

use super::any_parts;
use super::number::{AsNumberRules, Bounds, check_list, check_range};
use super::text::{check_bytes, check_string};
use crate::json::duration_parts;
use crate::tables::{Kind, WellKnown};
use crate::wire::{Fields, WireValue, unzigzag};

/// A rule that is broken: where, and in which words.
pub(super) struct Violation {
    pub path: FieldPath,
    pub text: String,
    /// What would be right, when that is short.
    pub hint: Option<String>,
}

/// Checks a value against rules of its own type; the rules of repeated fields and maps are checked by the caller.
/// A wrapper is checked as what it wraps.
pub(super) fn check_value(rules: &FieldRules, kind: Kind, value: WireValue<'_>) -> Result<(), String> {
    let Some(rule) = &rules.r#type else { return Ok(()) };
    if let (Kind::Message(message), WireValue::Bytes(bytes)) = (kind, value) {
        return match (message.well_known(), rule) {
            (Some(WellKnown::Duration), Rule::Duration(rules)) => check_duration(rules, bytes),
            (Some(WellKnown::Timestamp), Rule::Timestamp(rules)) => check_timestamp(rules, bytes),
            (Some(WellKnown::Any), Rule::Any(rules)) => check_any(rules, bytes),
            (Some(WellKnown::Wrapper), _) => {
                let Some(wrapped) = message.field_by_number(1) else { return Ok(()) };
                let last = Fields::new(bytes).flatten().filter(|&(number, _)| number == 1).last();
                let value = last.map_or_else(|| default_value(wrapped.kind()), |(_, value)| value);
                check_value(rules, wrapped.kind(), value)
            }
            _ => Ok(()),
        };
    }
    check_scalar(rule, kind, value)
}

fn check_scalar(rule: &Rule, kind: Kind, value: WireValue<'_>) -> Result<(), String> {
    match (rule, value) {
        (Rule::Float(rules), WireValue::Fixed32(bits)) => rules.as_number_rules().check(f32::from_bits(bits)),
        (Rule::Double(rules), WireValue::Fixed64(bits)) => {
            rules.as_number_rules().check(f64::from_bits(bits))
        }
        (Rule::Int32(rules), WireValue::Varint(bits)) => rules.as_number_rules().check(bits as i32),
        (Rule::Int64(rules), WireValue::Varint(bits)) => rules.as_number_rules().check(bits as i64),
        (Rule::Uint32(rules), WireValue::Varint(bits)) => rules.as_number_rules().check(bits as u32),
        (Rule::Uint64(rules), WireValue::Varint(bits)) => rules.as_number_rules().check(bits),
        (Rule::Sint32(rules), WireValue::Varint(bits)) => {
            rules.as_number_rules().check(unzigzag(bits) as i32)
        }
        (Rule::Sint64(rules), WireValue::Varint(bits)) => rules.as_number_rules().check(unzigzag(bits)),
        (Rule::Fixed32(rules), WireValue::Fixed32(bits)) => rules.as_number_rules().check(bits),
        (Rule::Fixed64(rules), WireValue::Fixed64(bits)) => rules.as_number_rules().check(bits),
        (Rule::Sfixed32(rules), WireValue::Fixed32(bits)) => rules.as_number_rules().check(bits as i32),
        (Rule::Sfixed64(rules), WireValue::Fixed64(bits)) => rules.as_number_rules().check(bits as i64),
        (Rule::Bool(rules), WireValue::Varint(bits)) => match rules.r#const {
            Some(constant) if constant != (bits != 0) => Err(format!("value must equal {constant}")),
            _ => Ok(()),
        },
        (Rule::String(rules), WireValue::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => check_string(rules, text),
            Err(_) => Err("value must be valid UTF-8".to_owned()),
        },
        (Rule::Bytes(rules), WireValue::Bytes(bytes)) => check_bytes(rules, bytes),
        (Rule::Enum(rules), WireValue::Varint(bits)) => check_enum(rules, kind, bits as i32),
        _ => Ok(()),
    }
}

fn check_enum(rules: &EnumRules, kind: Kind, value: i32) -> Result<(), String> {
    let EnumRules { r#const, defined_only, r#in, not_in } = rules;
    if let Some(constant) = r#const
        && value != *constant
    {
        return Err(format!("value must equal {constant}"));
    }
    let defined = |number| match kind {
        Kind::Enum(enumeration) => enumeration.value_by_number(number),
        _ => None,
    };
    if defined_only.unwrap_or(false) && defined(value).is_none() {
        return Err("value must be one of the defined enum values".to_owned());
    }
    let name =
        |number: i32| defined(number).map_or_else(|| number.to_string(), |found| found.name.to_owned());
    check_list(value, r#in, not_in, &name)
}

fn check_any(rules: &AnyRules, bytes: &[u8]) -> Result<(), String> {
    // `required` is a matter of presence, which the caller knows.
    let AnyRules { required: _, r#in, not_in } = rules;
    let (type_url, _) = any_parts(bytes).map_err(|error| error.to_string())?;
    if !r#in.is_empty() && !r#in.iter().any(|item| item == type_url) {
        return Err(format!("type URL must be in list [{}]", r#in.join(" ")));
    }
    if not_in.iter().any(|item| item == type_url) {
        return Err(format!("type URL must not be in list [{}]", not_in.join(" ")));
    }
    Ok(())
}

type Time = (i64, i32);

/// The way in which Go prints durations, and so the generated validators: `1ms`, `2.5s`, `5m0s`, `1h0m0s`.
pub(super) fn show_duration((seconds, nanos): Time) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    let decimal = |value: u128, unit: u128| {
        let width = unit.ilog10() as usize;
        let text = format!("{}.{:0width$}", value / unit, value % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(total, 1_000_000)),
        _ => {
            let (minutes, rest) = (total / 60_000_000_000, total % 60_000_000_000);
            let seconds = if rest == 0 { "0".to_owned() } else { decimal(rest, 1_000_000_000) };
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

fn check_duration(rules: &DurationRules, bytes: &[u8]) -> Result<(), String> {
    let DurationRules { required: _, r#const, lt, lte, gt, gte, r#in, not_in } = rules;
    let value = duration_parts(bytes).map_err(|error| error.to_string())?;
    let parts = |duration: &Duration| (duration.seconds, duration.nanos);
    let bound = |duration: &Option<Duration>| duration.as_ref().map(parts);
    if let Some(constant) = bound(r#const)
        && value != constant
    {
        return Err(format!("value must equal {}", show_duration(constant)));
    }
    let bounds = Bounds { less: bound(lt), at_most: bound(lte), greater: bound(gt), at_least: bound(gte) };
    check_range(value, bounds, &show_duration)?;
    let (one_of, none_of): (Vec<_>, Vec<_>) =
        (r#in.iter().map(parts).collect(), not_in.iter().map(parts).collect());
    check_list(value, &one_of, &none_of, &show_duration)
}

fn check_timestamp(rules: &TimestampRules, bytes: &[u8]) -> Result<(), String> {
    // Rules relative to the current time (`lt_now`, `gt_now`, `within`) are in no message of the API, and this crate
    // has no clock; a test keeps watch.
    let TimestampRules { required: _, r#const, lt, lte, gt, gte, lt_now: _, gt_now: _, within: _ } = rules;
    let value = duration_parts(bytes).map_err(|error| error.to_string())?;
    let bound = |time: &Option<Timestamp>| time.as_ref().map(|time| (time.seconds, time.nanos));
    let show = |(seconds, nanos): Time| format!("{seconds}.{nanos:09} seconds after the epoch");
    if let Some(constant) = bound(r#const)
        && value != constant
    {
        return Err(format!("value must equal {}", show(constant)));
    }
    let bounds = Bounds { less: bound(lt), at_most: bound(lte), greater: bound(gt), at_least: bound(gte) };
    check_range(value, bounds, &show)
}

/// What an absent field without presence counts as.
pub(super) fn default_value(kind: Kind) -> WireValue<'static> {
    match kind {
        Kind::String | Kind::Bytes | Kind::Message(_) => WireValue::Bytes(&[]),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireValue::Fixed64(0),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireValue::Fixed32(0),
        _ => WireValue::Varint(0),
    }
}

/// What is said of a message that is required and not there: of a wrapped scalar that has rules of its own, in other words.
pub(super) fn missing(rules: &FieldRules) -> &'static str {
    match &rules.r#type {
        None | Some(Rule::Any(_) | Rule::Duration(_) | Rule::Timestamp(_)) => "value is required",
        Some(_) => "value is required and must not be nil.",
    }
}

/// True when the rules ask for a message to be there.
pub(super) fn is_required(rules: &FieldRules) -> bool {
    let by_type = match &rules.r#type {
        Some(Rule::Any(rules)) => rules.required,
        Some(Rule::Duration(rules)) => rules.required,
        Some(Rule::Timestamp(rules)) => rules.required,
        _ => None,
    };
    by_type.unwrap_or(false) || rules.message.as_ref().is_some_and(|rules| rules.required.unwrap_or(false))
}

/// True when the rules ask not to look into the message.
pub(super) fn is_skipped(rules: &FieldRules) -> bool {
    rules.message.as_ref().is_some_and(|rules| rules.skip.unwrap_or(false))
}
