//! The Prometheus page (text exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::bins::QUANTILES;
use crate::buckets::{HistogramBuckets, bounds_of, buckets, quantile};
use crate::number::general;
use crate::store::{HistogramValue, Snapshot, SnapshotValue, Store};
use crate::tags::Tagged;

/// Name prefixes of stats that are exported without `envoy_` and without the prefix.
const CUSTOM_NAMESPACES: [&str; 2] = ["istiocustom.", "wasmcustom."];

/// Stats of one family: labels and value.
type Family<'a> = Vec<(String, &'a str, &'a SnapshotValue)>;

/// Families by name: of counters, gauges, text readouts and histograms.
type Families<'a> = [BTreeMap<String, Family<'a>>; 4];

/// Renders stats with their tags as labels: counters, then gauges, then text readouts (as gauges with the text as a label, when
/// `text_readouts`), then histograms; families in the order of their names. `mode` is `Summary` or, for all others, buckets.
pub fn render_prometheus(
    store: &Store,
    snapshot: &Snapshot,
    mode: HistogramBuckets,
    text_readouts: bool,
) -> String {
    let mut families = Families::default();
    store.with_tag_rules(|rules| {
        for (full, value) in &snapshot.stats {
            add(&mut families, &rules.extract(full), full, value);
        }
    });
    for stat in &snapshot.unstored {
        add(&mut families, &stat.tagged, &stat.name, &stat.value);
    }
    if !text_readouts {
        families[2].clear();
    }
    let mut out = String::with_capacity(snapshot.stats.len() * 96);
    for (section, families) in families.iter().enumerate() {
        for (name, family) in families {
            let name = metric_name(name);
            let kind = match section {
                0 => "counter",
                1 | 2 => "gauge",
                _ if mode == HistogramBuckets::Summary => "summary",
                _ => "histogram",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for (labels, full, value) in family {
                render_one(store, &name, labels, full, value, mode, &mut out);
            }
        }
    }
    out
}

fn add<'a>(families: &mut Families<'a>, tagged: &Tagged, full: &'a str, value: &'a SnapshotValue) {
    let section = match value {
        SnapshotValue::Counter(_) => 0,
        SnapshotValue::Gauge(_) => 1,
        SnapshotValue::Text(_) => 2,
        SnapshotValue::Histogram(_) => 3,
    };
    let mut labels = String::new();
    for (name, value) in &tagged.tags {
        label(&sanitize(name), value, &mut labels);
    }
    families[section].entry(tagged.name.clone()).or_default().push((labels, full, value));
}

fn render_one(
    store: &Store,
    name: &str,
    labels: &str,
    full: &str,
    value: &SnapshotValue,
    mode: HistogramBuckets,
    out: &mut String,
) {
    match value {
        SnapshotValue::Counter(number) | SnapshotValue::Gauge(number) => {
            let _ = writeln!(out, "{name}{{{labels}}} {number}");
        }
        SnapshotValue::Text(text) => {
            let mut labels = labels.to_owned();
            label("text_value", text, &mut labels);
            let _ = writeln!(out, "{name}{{{labels}}} 0");
        }
        SnapshotValue::Histogram(value) if mode == HistogramBuckets::Summary => {
            summary(name, labels, value, out);
        }
        SnapshotValue::Histogram(value) => histogram(name, labels, value, &bounds_of(store, full), out),
    }
}

fn histogram(name: &str, labels: &str, value: &HistogramValue, bounds: &[f64], out: &mut String) {
    let comma = if labels.is_empty() { "" } else { "," };
    let count = value.cumulative.count();
    for bucket in buckets(value, bounds, false) {
        let bound = general(bucket.bound, 32);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {}", bucket.cumulative);
    }
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let sum = value.cumulative.sum() / value.unit.map_or(1.0, |unit| unit.scale());
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", general(sum, 32));
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

/// Quantiles are those of the last interval, as in Envoy.
fn summary(name: &str, labels: &str, value: &HistogramValue, out: &mut String) {
    let comma = if labels.is_empty() { "" } else { "," };
    for (q, _) in QUANTILES {
        let number = general(quantile(value, &value.interval, q), 32);
        let _ = writeln!(out, "{name}{{{labels}{comma}quantile=\"{q}\"}} {number}");
    }
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", general(value.interval.sum(), 32));
    let _ = writeln!(out, "{name}_count{{{labels}}} {}", value.interval.count());
}

fn metric_name(name: &str) -> String {
    for namespace in CUSTOM_NAMESPACES {
        if let Some(custom) = name.strip_prefix(namespace) {
            return sanitize(custom);
        }
    }
    format!("envoy_{}", sanitize(name))
}

/// Byte by byte, as Envoy does: a letter of two bytes becomes two underscores.
fn sanitize(name: &str) -> String {
    name.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b) } else { '_' }).collect()
}

fn label(name: &str, value: &str, labels: &mut String) {
    if !labels.is_empty() {
        labels.push(',');
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let _ = write!(labels, "{name}=\"{value}\"");
}
