//! The JSON page of `/stats`.

use std::fmt::Write;

use crate::bins::{Bins, QUANTILES};
use crate::buckets::{HistogramBuckets, bounds_of, buckets, quantile};
use crate::number::shortest;
use crate::store::{HistogramValue, Snapshot, SnapshotValue, Store};

/// Renders stats as Envoy's `/stats?format=json`.
pub fn render_json(store: &Store, snapshot: &Snapshot, mode: HistogramBuckets) -> String {
    let mut items = Vec::with_capacity(snapshot.stats.len());
    let mut histograms = Vec::new();
    for (name, value) in snapshot.in_order() {
        let name = string(name);
        match value {
            SnapshotValue::Counter(number) | SnapshotValue::Gauge(number) => {
                items.push(format!("{{\"name\":{name},\"value\":{number}}}"));
            }
            SnapshotValue::Text(text) => {
                items.push(format!("{{\"name\":{name},\"value\":{}}}", string(text)));
            }
            SnapshotValue::Histogram(value) => histograms.push((name, value)),
        }
    }
    if !histograms.is_empty() {
        items.push(format!("{{\"histograms\":{}}}", render_histograms(store, snapshot, &histograms, mode)));
    }
    format!("{{\"stats\":[{}]}}", items.join(","))
}

fn render_histograms(
    store: &Store,
    snapshot: &Snapshot,
    histograms: &[(String, &HistogramValue)],
    mode: HistogramBuckets,
) -> String {
    let percentiles: Vec<String> = QUANTILES.iter().map(|(q, _)| number(q * 100.0)).collect();
    let percentiles = percentiles.join(",");
    match mode {
        HistogramBuckets::Summary => {
            let each = histograms
                .iter()
                .map(|(name, value)| format!("{{\"name\":{name},\"values\":[{}]}}", quantiles(value)));
            let each: Vec<_> = each.collect();
            format!("{{\"supported_quantiles\":[{percentiles}],\"computed_quantiles\":[{}]}}", each.join(","))
        }
        HistogramBuckets::Detailed => {
            let each = histograms.iter().map(|(name, value)| {
                format!(
                    "{{\"name\":{name},\"totals\":[{}],\"intervals\":[{}],\"percentiles\":[{}]}}",
                    bins(&value.cumulative),
                    bins(&value.interval),
                    quantiles(value)
                )
            });
            let each: Vec<_> = each.collect();
            format!("{{\"supported_percentiles\":[{percentiles}],\"details\":[{}]}}", each.join(","))
        }
        HistogramBuckets::Cumulative | HistogramBuckets::Disjoint => {
            let names =
                snapshot.stats.iter().filter(|(_, value)| matches!(value, SnapshotValue::Histogram(_)));
            let each = names.zip(histograms).map(|((full, _), (name, value))| {
                let shown = buckets(value, &bounds_of(store, full), mode == HistogramBuckets::Disjoint);
                let shown = shown.iter().map(|bucket| {
                    format!(
                        "{{\"upper_bound\":{},\"interval\":{},\"cumulative\":{}}}",
                        number(bucket.bound),
                        bucket.interval,
                        bucket.cumulative
                    )
                });
                let shown: Vec<_> = shown.collect();
                format!("{{\"name\":{name},\"buckets\":[{}]}}", shown.join(","))
            });
            let each: Vec<_> = each.collect();
            format!("[{}]", each.join(","))
        }
    }
}

fn quantiles(value: &HistogramValue) -> String {
    let each = QUANTILES.iter().map(|&(q, _)| {
        let cumulative = number(quantile(value, &value.cumulative, q));
        let interval = number(quantile(value, &value.interval, q));
        format!("{{\"cumulative\":{cumulative},\"interval\":{interval}}}")
    });
    each.collect::<Vec<_>>().join(",")
}

fn bins(bins: &Bins) -> String {
    let each = bins.iter().map(|(low, width, count)| {
        format!("{{\"lower_bound\":{},\"width\":{},\"count\":{count}}}", number(low), number(width))
    });
    each.collect::<Vec<_>>().join(",")
}

/// A number in the shorter of its two forms, plain and with an exponent.
fn number(number: f64) -> String {
    if !number.is_finite() {
        return "null".to_owned();
    }
    let plain = shortest(number);
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return plain };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    let scientific = format!("{digits}e{sign}{exponent:0>2}");
    if scientific.len() < plain.len() { scientific } else { plain }
}

fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
