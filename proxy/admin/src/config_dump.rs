//! `/config_dump`.

use dhow_matching::compile_regex;
use dhow_proto::{Kind, MessageType};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::field_mask;
use crate::pretty;
use crate::query::QueryParams;
use crate::reply::Reply;
use crate::state::AdminState;

pub(crate) fn answer(state: &dyn AdminState, query: &QueryParams) -> Reply {
    let names = match query.non_empty("name_regex").map(|text| (text, compile_regex(text))) {
        None => None,
        // Names have to match as a whole.
        Some((text, Ok(_))) => compile_regex(&format!("^(?:{text})$")).ok(),
        Some((text, Err(reason))) => {
            let reason = format!("INVALID_ARGUMENT: Error while parsing name_regex from {text}: {reason}");
            return Reply { content_type: "text/plain", ..Reply::error(400, reason) };
        }
    };
    let mut parts = Vec::new();
    for part in state.config_dump(query.has("include_eds")) {
        match dhow_proto::to_json(part.type_name, &part.bytes) {
            Ok(tree) => parts.push((part.type_name, tree)),
            Err(error) => return failure(500, error.to_string()),
        }
    }
    let mask = query.non_empty("mask");
    let configs = match query.non_empty("resource") {
        Some(resource) => one_resource(parts, resource, mask, names.as_ref()),
        None => all(parts, mask, names.as_ref()),
    };
    match configs {
        Ok(configs) if configs.is_empty() => Reply::json("{}\n"),
        Ok(configs) => Reply::json(pretty::print(&json!({ "configs": configs }))),
        Err(reply) => reply,
    }
}

fn failure(status: u16, reason: String) -> Reply {
    Reply { content_type: "text/plain", sniffing_forbidden_twice: true, ..Reply::error(status, reason) }
}

fn typed(type_name: &str, tree: Value) -> Value {
    let mut fields = Map::new();
    fields.insert("@type".to_owned(), Value::String(format!("type.googleapis.com/{type_name}")));
    if let Value::Object(given) = tree {
        fields.extend(given);
    }
    Value::Object(fields)
}

fn all(
    parts: Vec<(&'static str, Value)>,
    mask: Option<&str>,
    names: Option<&Regex>,
) -> Result<Vec<Value>, Reply> {
    let mut configs = Vec::new();
    for (type_name, mut tree) in parts {
        if let Some(names) = names {
            retain_named(&mut tree, names);
        }
        let tree = typed(type_name, tree);
        match mask {
            None => configs.push(tree),
            Some(mask) => configs.extend(
                MessageType::find(type_name).and_then(|message| field_mask::keep(&tree, message, mask)),
            ),
        }
    }
    if let Some(mask) = mask.filter(|_| configs.is_empty()) {
        let reason = format!("FieldMask {mask} could not be successfully applied to any configs.");
        return Err(failure(400, reason));
    }
    Ok(configs)
}

/// Keeps those elements of a dump's lists whose names match.
fn retain_named(tree: &mut Value, names: &Regex) {
    let Some(fields) = tree.as_object_mut() else { return };
    for list in fields.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|element| name_of(element).is_none_or(|name| names.is_match(name)));
    }
    fields.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
}

/// The name of a cluster, listener, route configuration, secret or endpoint assignment in a dump.
fn name_of(element: &Value) -> Option<&str> {
    let name_in = |value: &'static str, field: &'static str| element.get(value)?.get(field)?.as_str();
    element
        .get("name")
        .and_then(Value::as_str)
        .or_else(|| name_in("cluster", "name"))
        .or_else(|| name_in("listener", "name"))
        .or_else(|| name_in("route_config", "name"))
        .or_else(|| name_in("scoped_route_config", "name"))
        .or_else(|| name_in("endpoint_config", "cluster_name"))
        .or_else(|| name_in("ecds_filter", "name"))
}

fn one_resource(
    parts: Vec<(&'static str, Value)>,
    resource: &str,
    mask: Option<&str>,
    names: Option<&Regex>,
) -> Result<Vec<Value>, Reply> {
    for (type_name, mut tree) in parts {
        let field = MessageType::find(type_name).and_then(|message| message.field_by_name(resource));
        let Some(field) = field else { continue };
        if !field.is_repeated() {
            let reason =
                format!("{resource} is not a repeated field. Use ?mask={resource} to get only this field");
            return Err(failure(400, reason));
        }
        let Kind::Message(element_type) = field.kind() else { continue };
        let elements = match tree.get_mut(resource).map(Value::take) {
            Some(Value::Array(elements)) => elements,
            _ => Vec::new(),
        };
        let matching = |element: &Value| {
            names.is_none_or(|names| name_of(element).is_some_and(|name| names.is_match(name)))
        };
        let mut configs = Vec::new();
        for element in elements.into_iter().filter(matching) {
            let element = typed(element_type.full_name(), element);
            match mask {
                None => configs.push(element),
                Some(mask) => {
                    configs.push(field_mask::keep(&element, element_type, mask).ok_or_else(|| {
                        failure(400, format!("FieldMask {mask} could not be successfully used."))
                    })?)
                }
            }
        }
        return Ok(configs);
    }
    Err(failure(404, format!("{resource} not found in config dump")))
}
