//! The differences between two outcomes, as a few readable lines.

use serde_json::Value;

use crate::outcome::Outcome;

/// Longest text shown of one value.
const SHOWN: usize = 300;

/// Compares what happened on our proxy with what happened on Envoy. Each line names the place; no line means no difference.
///
/// Header lists are compared without regard to the order of different names unless `header_order` is set; the values of one
/// name always keep their order.
pub fn differences(ours: &Outcome, envoy: &Outcome, header_order: bool) -> Vec<String> {
    let as_value = |outcome: &Outcome| serde_json::to_value(outcome).unwrap_or(Value::Null);
    let mut lines = Vec::new();
    compare("", &as_value(ours), &as_value(envoy), header_order, &mut lines);
    lines
}

fn compare(at: &str, ours: &Value, envoy: &Value, header_order: bool, lines: &mut Vec<String>) {
    match (ours, envoy) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                compare(&join(at, key), value, b.get(key).unwrap_or(&Value::Null), header_order, lines);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                compare(&join(at, key), &Value::Null, value, header_order, lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if is_headers(at) => {
            compare_headers(at, a, b, header_order, lines)
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                let null = Value::Null;
                let name = step_name(a.get(index).or(b.get(index)));
                let at = join(at, &name.unwrap_or_else(|| index.to_string()));
                compare(
                    &at,
                    a.get(index).unwrap_or(&null),
                    b.get(index).unwrap_or(&null),
                    header_order,
                    lines,
                );
            }
        }
        (a, b) if a == b => {}
        (a, b) => lines.push(format!("{at}\n    ours:  {}\n    envoy: {}", shown(a), shown(b))),
    }
}

fn compare_headers(at: &str, ours: &[Value], envoy: &[Value], ordered: bool, lines: &mut Vec<String>) {
    let (mut a, mut b): (Vec<String>, Vec<String>) =
        (ours.iter().map(header_line).collect(), envoy.iter().map(header_line).collect());
    if ordered {
        if a != b {
            lines.push(format!(
                "{at} (in order)\n    ours:  {}\n    envoy: {}",
                a.join(" | "),
                b.join(" | ")
            ));
        }
        return;
    }
    // A stable sort by name keeps the order of values within one name.
    let name = |line: &String| line.split(':').next().unwrap_or_default().to_owned();
    a.sort_by_key(name);
    b.sort_by_key(name);
    if a == b {
        return;
    }
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| count(these, line) != count(those, line)).cloned().collect()
    };
    let (only_ours, only_envoy) = (only(&a, &b), only(&b, &a));
    if only_ours.is_empty() && only_envoy.is_empty() {
        lines.push(format!(
            "{at} (values of one name in another order)\n    ours:  {}\n    envoy: {}",
            a.join(" | "),
            b.join(" | ")
        ));
        return;
    }
    let mut text = at.to_owned();
    for line in only_ours {
        text.push_str(&format!("\n    ours:  {line}"));
    }
    for line in only_envoy {
        text.push_str(&format!("\n    envoy: {line}"));
    }
    lines.push(text);
}

fn count(lines: &[String], line: &str) -> usize {
    lines.iter().filter(|l| *l == line).count()
}

fn is_headers(at: &str) -> bool {
    at.ends_with("headers") || at.ends_with("trailers")
}

fn header_line(pair: &Value) -> String {
    let text = |index| pair.get(index).and_then(Value::as_str).unwrap_or_default();
    format!("{}: {}", text(0), text(1))
}

fn step_name(value: Option<&Value>) -> Option<String> {
    value?.get("step")?.as_str().map(|s| format!("[{s}]"))
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at} / {key}") }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{ResponseFacts, Seen, StepOutcome};

    fn outcome(status: u16, headers: &[(&str, &str)]) -> Outcome {
        let response = ResponseFacts {
            status,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            ..ResponseFacts::default()
        };
        let step = StepOutcome {
            step: "GET /".into(),
            differs: None,
            client: Seen::Responses(vec![response]),
            upstreams: indexmap::IndexMap::new(),
        };
        Outcome { steps: vec![step], ..Outcome::default() }
    }

    #[test]
    fn equal_outcomes_have_no_lines_whatever_the_order_of_header_names() {
        let (a, b) = (outcome(200, &[("a", "1"), ("b", "2")]), outcome(200, &[("b", "2"), ("a", "1")]));
        assert_eq!(differences(&a, &b, false), Vec::<String>::new());
        assert_eq!(differences(&a, &b, true).len(), 1);
    }

    #[test]
    fn a_difference_names_its_place_and_both_sides() {
        let lines =
            differences(&outcome(200, &[("a", "1")]), &outcome(404, &[("a", "1"), ("b", "2")]), false);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            "steps / [GET /] / client / responses / 0 / status\n    ours:  200\n    envoy: 404"
        );
        assert_eq!(lines[1], "steps / [GET /] / client / responses / 0 / headers\n    envoy: b: 2");
    }

    #[test]
    fn the_order_of_values_of_one_name_counts() {
        let (a, b) = (outcome(200, &[("a", "1"), ("a", "2")]), outcome(200, &[("a", "2"), ("a", "1")]));
        assert_eq!(differences(&a, &b, false).len(), 1);
    }
}
