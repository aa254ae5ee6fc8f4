//! Completes a sample until the validation rules are content: what a rule asks for is what the sample gets.

use dhow_proto::envoy::config::bootstrap::v3::Bootstrap;
use dhow_proto::{FieldType, Kind, LoadOptions, MessageType, load_json};
use serde_json::{Value as Json, json};

use super::place::{Place, Step};
use super::sample;

/// More repairs than any sample needs.
const LIMIT: usize = 24;

/// Completes `document`.
///
/// # Errors
/// The rule that it could not be made to fulfil.
pub(super) fn mend(root: MessageType, document: &mut Json) -> Result<(), String> {
    for _ in 0..LIMIT {
        let text = document.to_string();
        let Err(error) = load_json::<Bootstrap>(&text, &LoadOptions::default()) else { return Ok(()) };
        let said = error.to_string();
        let place = Place::parse(error.path.as_str()).ok_or_else(|| said.clone())?;
        let hint = error.hint.unwrap_or_default();
        repair(root, document, &place, &error.reason, &hint).ok_or(said)?;
    }
    Err("the sample cannot be completed".into())
}

fn repair(root: MessageType, document: &mut Json, place: &Place, reason: &str, hint: &str) -> Option<()> {
    if let Some(alternatives) = hint.strip_prefix("set one of ") {
        let first = alternatives.split(", ").next()?;
        let place = place.field(first);
        let value = sample::of_field(place.field_type(root, document)?);
        *place.get_or_make(document)? = value;
        return Some(());
    }
    let field = place.field_type(root, document)?;
    let present = place.get(document).cloned().unwrap_or(Json::Null);
    let wants = |mark: &str| {
        reason.split_once(mark).and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok())
    };
    let value = if reason.contains("value is required") {
        let whole = sample::of_field(field);
        // The place of an element wants an element.
        if matches!(place.0.last(), Some(Step::Index(_) | Step::Key(_))) { element(whole)? } else { whole }
    } else if let Some(count) = wants("value must contain at least ") {
        match sample::of_field(field) {
            Json::Array(items) => Json::Array(items.iter().cycle().take(count).cloned().collect()),
            other => other,
        }
    } else if let (Kind::Enum(_), true) = (field.kind(), reason.contains("must not be in list")) {
        element(sample::of_field(field))?
    } else {
        scalar(field, reason, present.as_str().unwrap_or_default())?
    };
    if value == present {
        return None;
    }
    *place.get_or_make(document)? = value;
    Some(())
}

fn element(whole: Json) -> Option<Json> {
    match whole {
        Json::Array(items) => items.into_iter().next(),
        Json::Object(members) => members.into_iter().next().map(|(_, value)| value),
        other => Some(other),
    }
}

/// A scalar that fulfils the rule which `reason` states.
fn scalar(field: FieldType, reason: &str, old: &str) -> Option<Json> {
    let after = |mark: &str| reason.split_once(mark).map(|(_, rest)| rest);
    if let Some(rest) = after("value length must be at least ") {
        let length: usize = rest.split(' ').next()?.parse().ok()?;
        return Some(match field.kind() {
            Kind::Bytes => json!("eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"),
            _ => json!("x".repeat(length)),
        });
    }
    if let Some(rest) = after("value must be in list [").or(after("value must equal ")) {
        let first = rest.split([',', ']', ')']).next()?.trim();
        return Some(serde_json::from_str(first).unwrap_or(json!(first)));
    }
    for (mark, value) in [
        ("valid IP address", "127.0.0.1"),
        ("valid hostname", "x.test"),
        ("valid email", "x@x.test"),
        ("valid UUID", "00000000-0000-4000-8000-000000000000"),
        ("does not match regex pattern \"^\\\\/", "/x"),
        ("does not match regex pattern", "/x"),
    ] {
        if reason.contains(mark) && old != value {
            return Some(json!(value));
        }
    }
    if let Some(rest) = after("does not have prefix \"") {
        return Some(json!(format!("{}{old}", rest.split('"').next()?)));
    }
    if let Some(rest) = after("does not have suffix \"") {
        return Some(json!(format!("{old}{}", rest.split('"').next()?)));
    }
    let bound = |mark: &str, step: f64| {
        let rest = after(mark)?;
        let digits: String =
            rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | '-')).collect();
        let bound: f64 = digits.parse().ok()?;
        let value = bound + step;
        Some(match field.kind() {
            Kind::Message(target) if target.full_name() == "google.protobuf.Duration" => {
                json!(format!("{value}s"))
            }
            Kind::Double | Kind::Float => json!(value),
            Kind::Message(target) if target.full_name().ends_with("DoubleValue") => json!(value),
            _ => json!(value as i64),
        })
    };
    bound("greater than or equal to ", 0.0)
        .or_else(|| bound("value must be greater than ", 1.0))
        .or_else(|| bound("value must be inside range [", 0.0))
        .or_else(|| bound("value must be inside range (", 1.0))
        .or_else(|| bound("less than or equal to ", 0.0))
        .or_else(|| bound("value must be less than ", -1.0))
}
