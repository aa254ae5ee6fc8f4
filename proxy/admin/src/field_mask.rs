//! Field masks over JSON trees of messages.

use dhow_proto::{Kind, MessageType};
use serde_json::{Map, Value};

/// Keeps the fields at the paths (`a.b.c`) of a message, `@type` always; all of them when there is no path. `None` when the message has no
/// field at one of the paths, or a path leads into a list.
pub(crate) fn keep(tree: &Value, message: MessageType, mask: &str) -> Option<Value> {
    let paths: Vec<Vec<&str>> =
        mask.split(',').filter(|path| !path.is_empty()).map(|path| path.split('.').collect()).collect();
    if paths.is_empty() {
        return Some(tree.clone());
    }
    let valid = paths.iter().all(|path| is_valid(path, message, Some(tree)));
    valid.then(|| trim(tree, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

/// Whether the message has a field at `path`. What is in a packed message is told by its type, if it is there.
fn is_valid(path: &[&str], message: MessageType, tree: Option<&Value>) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    // Masks know nothing of the names that fields have in JSON.
    let Some(field) = message.field_by_name(first).filter(|field| field.name() == *first) else {
        return false;
    };
    if rest.is_empty() {
        return true;
    }
    let value = tree.and_then(|tree| tree.get(first));
    match field.kind() {
        Kind::Message(inner) if !field.is_repeated() && !field.is_map() => {
            if inner.full_name() != "google.protobuf.Any" {
                return is_valid(rest, inner, value);
            }
            let url = value.and_then(|value| value.get("@type")).and_then(Value::as_str);
            let packed = url.and_then(|url| MessageType::find(url.rsplit('/').next().unwrap_or_default()));
            packed.is_none_or(|packed| is_valid(rest, packed, value))
        }
        _ => false,
    }
}

/// What of a message is at the paths or above them.
fn trim(tree: &Value, paths: &[&[&str]]) -> Value {
    let Some(fields) = tree.as_object() else { return tree.clone() };
    let mut kept = Map::new();
    for (name, value) in fields {
        let below: Vec<&[&str]> =
            paths.iter().filter(|path| path.first() == Some(&name.as_str())).map(|path| &path[1..]).collect();
        if name == "@type" || below.iter().any(|path| path.is_empty()) {
            kept.insert(name.clone(), value.clone());
        } else if !below.is_empty() {
            kept.insert(name.clone(), trim(value, &below));
        }
    }
    Value::Object(kept)
}

#[cfg(test)]
mod tests {
    use dhow_proto::MessageType;
    use serde_json::json;

    use super::keep;

    #[test]
    fn only_the_named_fields_stay() {
        let message = MessageType::find("envoy.admin.v3.ListenersConfigDump.StaticListener").unwrap();
        let listener = "type.googleapis.com/envoy.config.listener.v3.Listener";
        let address = json!({ "socket_address": { "address": "::1", "port_value": 1 } });
        let tree = json!({
            "@type": "t",
            "listener": { "@type": listener, "name": "l", "address": address, "filter_chains": [{ "name": "c" }] },
            "last_updated": "now",
        });
        let kept = |mask: &str| keep(&tree, message, mask);
        assert_eq!(kept("last_updated"), Some(json!({ "@type": "t", "last_updated": "now" })));
        assert_eq!(
            kept("listener.address.socket_address.port_value,listener.name"),
            Some(json!({
                "@type": "t",
                "listener": { "@type": listener, "name": "l", "address": { "socket_address": { "port_value": 1 } } },
            }))
        );
        // What is not set is not there, and what it would be in is.
        let empty = json!({ "@type": "t", "listener": { "@type": listener, "address": {} } });
        assert_eq!(kept("listener.address.pipe,listener.metadata"), Some(empty));
        assert_eq!(kept(","), Some(tree.clone()));
        for mask in [
            "nothing",
            "listener.nothing,last_updated",
            "lastUpdated",
            "listener.filter_chains.name",
            "listener.",
        ] {
            assert_eq!(kept(mask), None, "{mask}");
        }
    }
}
