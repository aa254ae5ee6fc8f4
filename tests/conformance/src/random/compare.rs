//! What two outcomes of a random case differ in, request by request.
//!
//! Upstreams and access logs are sorted by the number that each request carries, because a mirrored request or a log line may come
//! late: which step it falls into is a matter of the moment.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::case::{Case, NUMBER, SOURCE};
use crate::outcome::{Outcome, RequestFacts, Seen, StepOutcome};
use crate::report::differences;

/// One thing that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The request it belongs to, if it belongs to one.
    pub request: Option<usize>,
    /// Where, and both sides.
    pub text: String,
}

/// The differences between two outcomes of `case`, whose requests are those that `numbers` names.
pub fn compare(case: &Case, numbers: &[usize], ours: &Outcome, envoy: &Outcome) -> Vec<Difference> {
    let mut found = Vec::new();
    for (at, step) in ours.steps.iter().enumerate() {
        let Some(other) = envoy.steps.get(at) else { continue };
        let lines = step_differences(bare(step), bare(other));
        let request = numbers.get(at).copied();
        found.extend(lines.into_iter().map(|text| Difference { request, text }));
    }
    compare_upstreams(numbers, ours, envoy, &mut found);
    compare_logs(case, ours, envoy, &mut found);
    let stats = |outcome: &Outcome| Outcome { all_stats: outcome.all_stats.clone(), ..Outcome::default() };
    found.extend(
        differences(&stats(ours), &stats(envoy), true)
            .into_iter()
            .map(|text| Difference { request: None, text: text.replace("all_stats / ", "") }),
    );
    found
}

/// A step without what upstreams saw.
fn bare(step: &StepOutcome) -> StepOutcome {
    StepOutcome { upstreams: IndexMap::new(), step: String::new(), ..step.clone() }
}

fn step_differences(ours: StepOutcome, envoy: StepOutcome) -> Vec<String> {
    let outcome = |step| Outcome { steps: vec![step], ..Outcome::default() };
    let lines = differences(&outcome(ours), &outcome(envoy), true);
    lines.into_iter().map(|line| line.replacen("steps / [] / ", "", 1)).collect()
}

type Arrivals = BTreeMap<usize, IndexMap<String, Vec<RequestFacts>>>;

/// What upstreams saw of each request.
fn arrivals(numbers: &[usize], outcome: &Outcome) -> Arrivals {
    let mut found = Arrivals::new();
    for (at, step) in outcome.steps.iter().enumerate() {
        for (name, requests) in &step.upstreams {
            for request in requests {
                let number = header(request, NUMBER).and_then(|value| value.parse().ok());
                let Some(number) = number.or(numbers.get(at).copied()) else { continue };
                found.entry(number).or_default().entry(name.clone()).or_default().push(request.clone());
            }
        }
    }
    for upstreams in found.values_mut() {
        upstreams.sort_unstable_keys();
        // A request and its mirror image arrive in either order.
        upstreams.values_mut().for_each(|seen| seen.sort_by_key(|request| authority(request).to_owned()));
    }
    found
}

fn header<'a>(request: &'a RequestFacts, wanted: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    found.map(|(_, value)| value.as_str())
}

fn authority(request: &RequestFacts) -> &str {
    request.authority.as_deref().or(header(request, "host")).unwrap_or_default()
}

fn compare_upstreams(numbers: &[usize], ours: &Outcome, envoy: &Outcome, found: &mut Vec<Difference>) {
    let (mut a, mut b) = (arrivals(numbers, ours), arrivals(numbers, envoy));
    let all: BTreeSet<usize> = a.keys().chain(b.keys()).copied().collect();
    for number in all {
        let step = |upstreams: Option<IndexMap<String, Vec<RequestFacts>>>| StepOutcome {
            step: String::new(),
            differs: None,
            client: Seen::Nothing,
            upstreams: upstreams.unwrap_or_default(),
        };
        let lines = step_differences(step(a.remove(&number)), step(b.remove(&number)));
        found.extend(lines.into_iter().map(|text| Difference { request: Some(number), text }));
    }
}

/// The number of the request that a line of an access log tells: in its first column, where it may be that of a client's address, or
/// in JSON as `n`.
fn number_of(line: &str) -> Option<String> {
    let first = match serde_json::from_str::<serde_json::Value>(line) {
        Ok(serde_json::Value::Object(fields)) => fields.get("n")?.as_str()?.to_owned(),
        _ => line.split('\t').next()?.to_owned(),
    };
    let first = first.strip_prefix(SOURCE).unwrap_or(&first).to_owned();
    first.parse::<usize>().is_ok().then_some(first)
}

/// The lines of an access log by the number of their request. Those without one are sorted and come under the empty text.
fn lines_by_number(outcome: &Outcome) -> BTreeMap<String, Vec<&str>> {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in outcome.access_log.iter().flatten() {
        found.entry(number_of(line).unwrap_or_default()).or_default().push(line);
    }
    // Connections are logged by the listener and by filters, whose ends come in either order.
    let sorted = found.iter_mut().filter(|(number, lines)| number.is_empty() || lines[0].starts_with(SOURCE));
    sorted.for_each(|(_, lines)| lines.sort_unstable());
    found
}

fn compare_logs(case: &Case, ours: &Outcome, envoy: &Outcome, found: &mut Vec<Difference>) {
    let columns: Vec<&str> = case.log_columns.split('\t').collect();
    let (a, b) = (lines_by_number(ours), lines_by_number(envoy));
    let all: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in all {
        let request = key.parse().ok();
        let empty = Vec::new();
        let (mine, theirs) = (a.get(key).unwrap_or(&empty), b.get(key).unwrap_or(&empty));
        if mine.len() != theirs.len() {
            let text =
                format!("access log\n    ours:  {}\n    envoy: {}", mine.join(" // "), theirs.join(" // "));
            found.push(Difference { request, text });
            continue;
        }
        for (mine, theirs) in mine.iter().zip(theirs).filter(|(mine, theirs)| mine != theirs) {
            let mut text = "access log".to_owned();
            let (mine, theirs): (Vec<&str>, Vec<&str>) =
                (mine.split('\t').collect(), theirs.split('\t').collect());
            for index in 0..mine.len().max(theirs.len()) {
                let (m, t) = (mine.get(index).unwrap_or(&""), theirs.get(index).unwrap_or(&""));
                if m != t {
                    let column = columns.get(index).unwrap_or(&"");
                    text.push_str(&format!(" {column}\n    ours:  {m}\n    envoy: {t}"));
                }
            }
            found.push(Difference { request, text });
        }
    }
}
