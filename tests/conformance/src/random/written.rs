//! A case as the text of a scenario file.

use serde_json::Value;

/// Widest line on which a list or mapping is written in one piece.
const WIDTH: usize = 120;

/// `value` as YAML: short lists and mappings on one line, the others in blocks.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                text.push_str(&format!("{:indent$}{}:", "", word(name)));
                nested(value, indent + 2, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push_str(&format!("{:indent$}-", ""));
                nested(item, indent + 2, text);
            }
        }
        scalar => text.push_str(&format!("{:indent$}{}\n", "", flow(scalar))),
    }
}

/// What follows a name or a dash: on the same line when it fits.
fn nested(value: &Value, indent: usize, text: &mut String) {
    let line = flow(value);
    if line.len() + indent <= WIDTH || !(value.is_object() || value.is_array()) {
        text.push_str(&format!(" {line}\n"));
    } else {
        text.push('\n');
        block(value, indent, text);
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}: {}", word(name), flow(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => word(text),
        other => other.to_string(),
    }
}

/// A text, in quotes unless it reads as itself without them.
fn word(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let value = json!({
            "about": "A: b, {c}", "empty": {}, "list": [1, "two", "y", "", "8s", null, true],
            "@type": "type.googleapis.com/x", "raw": "GET / HTTP/1.1\r\nx: é\r\n\r\n",
            "long": [{ "a": "x".repeat(100), "b": [["y".repeat(130)]] }],
        });
        let read: Value = serde_saphyr::from_str(&yaml(&value)).expect("it is YAML");
        assert_eq!(read, value);
    }
}
