//! Setting a value at a place of a document.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Sets `value` at the place that `path` names in `document`, its steps parted by `/` (`~1` for a slash within one): keys of
/// mappings and numbers of list entries, `-` for one more entry. What is missing on the way is made; `null` removes what is there.
pub fn set(document: &mut Value, path: &str, value: &Value) -> Result<()> {
    let steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let Some((last, way)) = steps.split_last() else { return Ok(()) };
    let mut at = document;
    for step in way {
        at = child(at, step, path)?;
    }
    if value.is_null() {
        match at {
            Value::Object(fields) => _ = fields.shift_remove(last),
            Value::Array(items) => {
                let place = last.parse().ok().filter(|place| *place < items.len());
                let Some(place) = place else { bail!("{path}: there is no entry {last}") };
                items.remove(place);
            }
            _ => {}
        }
        return Ok(());
    }
    *child(at, last, path)? = value.clone();
    Ok(())
}

/// The place below `at` that `step` names, made if it is missing.
fn child<'a>(at: &'a mut Value, step: &str, path: &str) -> Result<&'a mut Value> {
    if at.is_null() {
        *at = if step == "-" || step == "0" { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    }
    match at {
        Value::Object(fields) => Ok(fields.entry(step.to_owned()).or_insert(Value::Null)),
        Value::Array(items) => {
            let place = if step == "-" { Some(items.len()) } else { step.parse::<usize>().ok() };
            match place {
                Some(place) if place <= items.len() => {
                    if place == items.len() {
                        items.push(Value::Null);
                    }
                    Ok(&mut items[place])
                }
                _ => bail!("{path}: {step} is no place in a list of {}", items.len()),
            }
        }
        _ => bail!("{path}: there is nothing below {step}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_made_and_null_removes() {
        let mut document = json!({ "a": [{ "b": 1 }], "x/y": 1 });
        for (path, value) in [
            ("a/0/b", json!(2)),
            ("a/-/c/0", json!("new")),
            ("d/e", json!({ "f": 1 })),
            ("x~1y", json!(3)),
            ("a/0", Value::Null),
            ("gone/g", Value::Null),
        ] {
            set(&mut document, path, &value).unwrap();
        }
        assert_eq!(
            document,
            json!({ "a": [{ "c": ["new"] }], "x/y": 3, "d": { "e": { "f": 1 } }, "gone": null })
        );
    }

    #[test]
    fn a_place_that_cannot_be_is_told() {
        let mut document = json!({ "a": [1], "b": 2 });
        for path in ["a/5", "a/x", "b/c"] {
            let error = set(&mut document, path, &json!(1)).unwrap_err().to_string();
            assert!(error.starts_with(path), "{error}");
        }
    }
}
