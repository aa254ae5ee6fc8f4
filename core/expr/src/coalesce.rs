//! `%COALESCE({"operators": ["NAME", {"command": "REQ", "param": "x", "max_length": 10}]})%`.

use serde_json::Value;

use crate::cel::CelOptions;
use crate::command::{Command, Kind};
use crate::table;

const UNKNOWN: &str = "Not supported field in StreamInfo: ";

/// Compiles the commands of which the first with a value counts.
pub(crate) fn parse(args: &str) -> Result<Kind, String> {
    let config: Value = serde_json::from_str(args)
        .map_err(|error| format!("COALESCE: failed to parse JSON configuration: {error}"))?;
    let operators =
        config.get("operators").ok_or("COALESCE: JSON configuration must contain 'operators' array")?;
    let Some(operators) = operators.as_array() else {
        return Err(format!("COALESCE: 'operators' must be an array: {}", mistyped("operators", "array")));
    };
    if operators.is_empty() {
        return Err("COALESCE: 'operators' array must not be empty".to_owned());
    }
    let compile = |(at, operator)| {
        operator_of(operator)
            .map_err(|error| format!("COALESCE: failed to parse operator at index {at}: {error}"))
    };
    Ok(Kind::FirstOf(operators.iter().enumerate().map(compile).collect::<Result<_, _>>()?))
}

fn operator_of(operator: &Value) -> Result<Command, String> {
    let fields = match operator {
        Value::String(name) => return command(name, "", None),
        Value::Object(fields) => fields,
        _ => {
            return Err(
                "operator entry must be either a string (command name) or an object with 'command' field"
                    .to_owned(),
            );
        }
    };
    let Some(name) = fields.get("command").and_then(Value::as_str) else {
        return Err(format!("operator object must have 'command' field: {}", mistyped("command", "string")));
    };
    let param = match fields.get("param") {
        None => "",
        Some(param) => param
            .as_str()
            .ok_or_else(|| format!("'param' field must be a string: {}", mistyped("param", "string")))?,
    };
    let limit = match fields.get("max_length") {
        None => None,
        Some(limit) if !limit.is_i64() && !limit.is_u64() => {
            let found = mistyped("max_length", "integer");
            return Err(format!("'max_length' field must be an integer: {found}"));
        }
        Some(limit) => match limit.as_u64().and_then(|limit| usize::try_from(limit).ok()) {
            None | Some(0) => return Err("'max_length' must be a positive integer".to_owned()),
            limit => limit,
        },
    };
    command(name, param, limit)
}

fn command(name: &str, args: &str, limit: Option<usize>) -> Result<Command, String> {
    table::command(name, args, limit, CelOptions::default()).map_err(|error| {
        match error.strip_prefix(UNKNOWN) {
            Some(name) => format!("unknown command: '{name}'"),
            None => error,
        }
    })
}

/// What Envoy says of a field of another type, or none. The arguments of a command are one line.
fn mistyped(key: &str, kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("key '{key}' missing or not {article} {kind} from lines 1-1")
}
