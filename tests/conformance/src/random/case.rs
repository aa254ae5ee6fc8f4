//! One random case: a configuration and the requests sent through it, as the parts of a scenario.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::scenario::Scenario;

/// A generated scenario whose requests can be taken one by one.
#[derive(Debug, Clone)]
pub struct Case {
    /// The fields of the scenario other than its steps.
    pub fields: Map<String, Value>,
    /// The steps of each request: what upstreams will answer to it, if that matters, and then the request itself.
    pub requests: Vec<Vec<Value>>,
    /// Steps after the last request.
    pub last: Vec<Value>,
    /// What the columns of the access log stand for, separated by tabs.
    pub log_columns: String,
}

/// The header that numbers requests. Upstreams and access logs show it, so that what belongs together is found.
pub const NUMBER: &str = "x-n";

/// What the addresses begin with from which clients of numbered connections come; the number is the rest.
pub const SOURCE: &str = "127.1.0.";

/// Longest title of a request.
const TITLE: usize = 120;

impl Case {
    /// The scenario as it would be written, with all requests or with one.
    pub fn value(&self, only: Option<usize>) -> Value {
        let mut fields = self.fields.clone();
        let chosen = self.requests.iter().enumerate().filter(|(n, _)| only.is_none_or(|only| only == *n));
        let steps: Vec<Value> =
            chosen.flat_map(|(_, steps)| steps.clone()).chain(self.last.clone()).collect();
        fields.insert("steps".to_owned(), json!(steps));
        Value::Object(fields)
    }

    /// The scenario, ready to run.
    pub fn scenario(&self, name: String, only: Option<usize>) -> Result<Scenario> {
        let mut scenario: Scenario =
            serde_json::from_value(self.value(only)).context("a generated scenario")?;
        scenario.name = name;
        Ok(scenario)
    }

    /// One line that names request `number`.
    pub fn title(&self, number: usize) -> String {
        let step = self.requests.get(number).and_then(|steps| steps.last());
        let text = |name| step.and_then(|step| step.get(name)).and_then(Value::as_str);
        let line = text("raw").or(text("request")).and_then(|text| text.lines().next()).unwrap_or_default();
        line.chars().take(TITLE).collect()
    }
}
