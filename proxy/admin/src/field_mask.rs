//! Field masks over JSON trees.

use serde_json::{Map, Value};

/// Keeps the fields at the paths (`a.b.c`), `@type` always. `None` when a path leads into a list, which masks cannot do, or when no path finds
/// anything.
pub(crate) fn keep(tree: &Value, mask: &str) -> Option<Value> {
    let mut kept = Value::Object(Map::new());
    copy_type(tree, &mut kept);
    let mut any = false;
    for path in mask.split(',').map(str::trim).filter(|path| !path.is_empty()) {
        let segments: Vec<&str> = path.split('.').collect();
        any |= copy(tree, &mut kept, &segments)?;
    }
    any.then_some(kept)
}

fn copy_type(from: &Value, to: &mut Value) {
    if let (Some(url), Some(to)) = (from.get("@type"), to.as_object_mut()) {
        to.insert("@type".to_owned(), url.clone());
    }
}

fn copy(from: &Value, to: &mut Value, path: &[&str]) -> Option<bool> {
    let Some((first, rest)) = path.split_first() else { return Some(false) };
    let (Some(from), Some(to)) = (from.as_object(), to.as_object_mut()) else { return None };
    // Both spellings of a field name are in use.
    let Some((name, value)) = from.get_key_value(*first).or_else(|| from.get_key_value(&snake(first))) else {
        return Some(false);
    };
    if rest.is_empty() {
        to.insert(name.clone(), value.clone());
        return Some(true);
    }
    let inner = to.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
    copy_type(value, inner);
    copy(value, inner, rest)
}

fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::keep;

    #[test]
    fn only_the_named_fields_stay() {
        let tree = json!({"@type": "t", "a": {"@type": "u", "b": 1, "c": 2}, "d_e": [1], "f": 3});
        assert_eq!(
            keep(&tree, "a.b,dE"),
            Some(json!({"@type": "t", "a": {"@type": "u", "b": 1}, "d_e": [1]}))
        );
        assert_eq!(keep(&tree, "nope"), None);
        assert_eq!(keep(&tree, "d_e.x"), None);
    }
}
