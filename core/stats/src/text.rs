//! The text page of `/stats`.

use std::fmt::Write;

use crate::bins::{Bins, QUANTILES};
use crate::buckets::{HistogramBuckets, bounds_of, buckets, quantile};
use crate::number::{general, shortest};
use crate::store::{HistogramValue, Snapshot, SnapshotValue, Store};

/// Renders stats as lines `name: value`, histograms after all others, as Envoy's `/stats`.
pub fn render_text(store: &Store, snapshot: &Snapshot, mode: HistogramBuckets) -> String {
    let mut out = String::with_capacity(snapshot.stats.len() * 48);
    // Writing to a String cannot fail.
    for (name, value) in snapshot.in_order() {
        let _ = match value {
            SnapshotValue::Counter(number) | SnapshotValue::Gauge(number) => {
                writeln!(out, "{name}: {number}")
            }
            SnapshotValue::Text(text) => writeln!(out, "{name}: \"{text}\""),
            SnapshotValue::Histogram(_) => Ok(()),
        };
    }
    for (name, value) in &snapshot.stats {
        if let SnapshotValue::Histogram(value) = value {
            histogram(store, name, value, mode, &mut out);
        }
    }
    out
}

fn histogram(store: &Store, name: &str, value: &HistogramValue, mode: HistogramBuckets, out: &mut String) {
    out.push_str(name);
    if value.cumulative.is_empty() {
        out.push_str(": No recorded values\n");
        return;
    }
    match mode {
        HistogramBuckets::Summary => {
            out.push_str(": ");
            summary(value, out);
        }
        HistogramBuckets::Cumulative | HistogramBuckets::Disjoint => {
            let disjoint = mode == HistogramBuckets::Disjoint;
            let shown = buckets(value, &bounds_of(store, name), disjoint);
            let shown =
                shown.iter().map(|b| format!("B{}({},{})", general(b.bound, 6), b.interval, b.cumulative));
            out.push_str(": ");
            out.push_str(&shown.collect::<Vec<_>>().join(" "));
        }
        HistogramBuckets::Detailed => {
            let _ = write!(
                out,
                ":\n  totals={}\n  intervals={}\n  summary=",
                bins(&value.cumulative),
                bins(&value.interval)
            );
            summary(value, out);
        }
    }
    out.push('\n');
}

fn bins(bins: &Bins) -> String {
    let shown =
        bins.iter().map(|(low, width, count)| format!("{},{}:{count}", general(low, 6), general(width, 6)));
    shown.collect::<Vec<_>>().join(", ")
}

fn summary(value: &HistogramValue, out: &mut String) {
    for (at, (q, label)) in QUANTILES.into_iter().enumerate() {
        let blank = if at == 0 { "" } else { " " };
        let interval = shortest(quantile(value, &value.interval, q));
        let cumulative = shortest(quantile(value, &value.cumulative, q));
        let _ = write!(out, "{blank}{label}({interval},{cumulative})");
    }
}
