//! Questions to the admin interface.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use dhow_testkit::client::{Http1Client, Http1Response};
use dhow_testkit::poll_until_async;
use indexmap::IndexMap;
use regex::Regex;
use serde_json::Value;

use crate::environment::Environment;
use crate::normalise::Normaliser;
use crate::outcome::{AdminFacts, Seen};
use crate::scenario::AllStats;
use crate::steps::Step;
use crate::target::ADMIN_LIMIT;

/// How long statistics may take to settle after the traffic that they count.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// How long all statistics have to stay the same to count as final.
const QUIET: Duration = Duration::from_millis(100);

async fn request(environment: &Environment, line: &str) -> Result<Http1Response> {
    let (method, target) =
        line.split_once(' ').with_context(|| format!("`{line}` is not `METHOD target`"))?;
    let mut client =
        Http1Client::connect(environment.port("admin")?, None).await.context("admin interface")?;
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    client.send(format!("{method} {target} HTTP/1.1\r\nhost: admin\r\n{length}\r\n")).await?;
    Ok(client.response(method, ADMIN_LIMIT).await?)
}

/// Carries out an `admin` step.
pub async fn ask(environment: &Environment, step: &Step) -> Result<Seen> {
    let normaliser = environment.normaliser();
    let response = request(environment, step.admin.as_deref().unwrap_or_default()).await?;
    let body = String::from_utf8_lossy(&response.body).into_owned();
    let mut facts = AdminFacts {
        status: response.status,
        content_type: response.header("content-type").unwrap_or_default().to_owned(),
        ..AdminFacts::default()
    };
    if !step.pick.is_empty() {
        let json: Value = serde_json::from_str(&body).context("the admin reply is not JSON")?;
        for pointer in &step.pick {
            facts.picked.insert(pointer.clone(), normalised(pick(&json, pointer), &normaliser));
        }
    }
    if let Some(expression) = &step.lines {
        let expression = Regex::new(expression)?;
        let mut lines: Vec<String> = body.lines().map(|line| normaliser.text(line)).collect();
        lines.retain(|line| expression.is_match(line));
        lines.sort();
        facts.lines = Some(lines);
    }
    facts.body = if step.lines.is_some() {
        facts.lines.iter().flatten().cloned().collect::<Vec<_>>().join("\n")
    } else {
        normaliser.text(&body)
    };
    Ok(Seen::Admin(facts))
}

/// The values that `pointer` reaches; `*` stands for every element of a list or mapping. One value is returned as it is,
/// several as a sorted list, none as null.
fn pick(json: &Value, pointer: &str) -> Value {
    let mut found = vec![json];
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        found = found
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(items) if part == "*" => items.iter().collect(),
                Value::Object(fields) if part == "*" => fields.values().collect(),
                Value::Array(items) => {
                    part.parse().ok().and_then(|i: usize| items.get(i)).into_iter().collect()
                }
                Value::Object(fields) => fields.get(&part).into_iter().collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .collect();
    }
    if !pointer.contains("/*") {
        return found.first().copied().cloned().unwrap_or(Value::Null);
    }
    let mut several: Vec<Value> = found.into_iter().cloned().collect();
    several.sort_by_key(Value::to_string);
    Value::Array(several)
}

fn normalised(value: Value, normaliser: &Normaliser) -> Value {
    match value {
        Value::String(text) => Value::String(normaliser.text(&text)),
        Value::Array(items) => items.into_iter().map(|item| normalised(item, normaliser)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, v)| (name, normalised(v, normaliser))).collect()
        }
        Value::Number(number) => match number.as_u64().and_then(|n| normaliser.port(n)) {
            Some(port) => Value::String(port),
            None => Value::Number(number),
        },
        other => other,
    }
}

/// The values of the named statistics; `None` for one that does not exist.
pub async fn stats(environment: &Environment, names: &[String]) -> Result<IndexMap<String, Option<u64>>> {
    let response = request(environment, "GET /stats").await?;
    let text = String::from_utf8_lossy(&response.body);
    let all: std::collections::HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut values = IndexMap::new();
    for name in names {
        let resolved = environment.resolve(name)?;
        values.insert(name.clone(), all.get(resolved.as_str()).and_then(|v| v.parse().ok()));
    }
    Ok(values)
}

/// The statistics of a scenario once they have the values expected of them, or have stopped changing; and what is wrong.
pub async fn settled(
    environment: &Environment,
    wanted: &IndexMap<String, Option<u64>>,
) -> Result<(IndexMap<String, Option<u64>>, Vec<String>)> {
    let names: Vec<String> = wanted.keys().cloned().collect();
    let mut last = stats(environment, &names).await?;
    let start = tokio::time::Instant::now();
    loop {
        let faults: Vec<String> = wanted
            .iter()
            .filter(|(name, value)| value.is_some() && last[*name] != **value)
            .map(|(name, value)| {
                format!("stat {name}: expected {}, found {}", shown(*value), shown(last[name]))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let next = stats(environment, &names).await?;
        if (faults.is_empty() && next == last) || start.elapsed() > SETTLE_LIMIT {
            return Ok((next, faults));
        }
        last = next;
    }
}

/// The end of the names of gauges that say that the end of a client's connection may still have to be noticed.
const STILL_BUSY: &str = ".downstream_cx_active";

/// How many rounds without a change then count as the end.
const BUSY_ROUNDS: u32 = 4;

/// Ends of names whose values are a matter of bytes or of time.
const VOLATILE: [&str; 6] =
    ["_bytes_total", "_bytes_buffered", "_ms", "_time", "bytes_sent", "bytes_received"];

/// Every counter and gauge under the prefixes of `all`, once they have stopped changing. Placeholders stand for ports in names.
pub async fn settled_under(environment: &Environment, all: &AllStats) -> Result<IndexMap<String, u64>> {
    let start = tokio::time::Instant::now();
    let mut last = under(environment, all).await?;
    let mut quiet = 0;
    loop {
        tokio::time::sleep(QUIET).await;
        let next = under(environment, all).await?;
        quiet = if next == last { quiet + 1 } else { 0 };
        let busy = next.iter().any(|(name, value)| *value > 0 && name.ends_with(STILL_BUSY));
        if quiet >= (if busy { BUSY_ROUNDS } else { 1 }) || start.elapsed() > SETTLE_LIMIT {
            return Ok(next);
        }
        last = next;
    }
}

async fn under(environment: &Environment, all: &AllStats) -> Result<IndexMap<String, u64>> {
    let response = request(environment, "GET /stats").await?;
    let text = String::from_utf8_lossy(&response.body);
    let normaliser = environment.normaliser();
    let mut found = IndexMap::new();
    for (name, value) in text.lines().filter_map(|line| line.rsplit_once(": ")) {
        let Ok(value) = value.parse() else { continue };
        let left_out = VOLATILE.iter().any(|end| name.ends_with(end))
            || all.except.keys().any(|end| name.ends_with(end.as_str()));
        if !left_out && all.of.iter().any(|prefix| name.starts_with(prefix.as_str())) {
            found.insert(normaliser.text(name), value);
        }
    }
    found.sort_unstable_keys();
    Ok(found)
}

fn shown(value: Option<u64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |v| v.to_string())
}

/// Waits until the named statistics have these values.
pub async fn reach(
    environment: &Environment,
    wanted: &IndexMap<String, u64>,
    is_reached: impl Fn(u64, u64) -> bool,
) -> Result<()> {
    let names: Vec<String> = wanted.keys().cloned().collect();
    let mut found = IndexMap::new();
    let reached = poll_until_async(SETTLE_LIMIT, || async {
        match stats(environment, &names).await {
            Ok(values) => wanted
                .iter()
                .all(|(n, v)| values[n].is_some_and(|found| is_reached(found, *v)))
                .then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    })
    .await;
    match reached {
        Ok(result) => result,
        Err(_) => {
            found.extend(stats(environment, &names).await?);
            bail!("statistics did not reach {wanted:?}, they are {found:?}")
        }
    }
}
