//! Counters with istiod's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

/// What the ADS server counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// `pilot_xds`: streams that are open.
    pub(crate) connected: AtomicI64,
    /// `pilot_xds_pushes{type}`: responses sent.
    pub(crate) pushes: ByType,
    /// `pilot_total_xds_rejects{type}`: responses refused.
    pub(crate) rejects: ByType,
    /// `pilot_xds_expired_nonce{type}`: requests with a stale nonce.
    pub(crate) expired_nonces: ByType,
    /// `pilot_total_xds_internal_errors`: streams that ended because of a fault of ours.
    pub(crate) internal_errors: AtomicU64,
    /// `pilot_xds_config_size_bytes`: sizes of the responses sent.
    pub(crate) config_size: Histogram<4>,
    /// `pilot_xds_push_time`: seconds spent generating and queueing what a stream was due.
    pub(crate) push_time: Histogram<8>,
    /// `pilot_proxy_convergence_time`: seconds from a push being triggered to a proxy having acknowledged all of it.
    pub(crate) convergence_time: Histogram<8>,
}

/// Upper bounds of istiod's buckets, in seconds.
const SECONDS: [f64; 8] = [0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Upper bounds of istiod's buckets, in bytes.
const BYTES: [f64; 4] = [1.0, 10_000.0, 1_000_000.0, 4_000_000.0];

impl Metrics {
    /// How many streams are open.
    pub fn connected(&self) -> i64 {
        self.connected.load(Relaxed)
    }

    /// How many responses of a type (`cds`, `eds`, ...) were sent.
    pub fn pushes(&self, short_type: &str) -> u64 {
        self.pushes.get(short_type)
    }

    /// How many responses of a type (`cds`, `eds`, ...) were refused.
    pub fn rejects(&self, short_type: &str) -> u64 {
        self.rejects.get(short_type)
    }

    /// How many requests about a type (`cds`, `eds`, ...) had a stale nonce.
    pub fn expired_nonces(&self, short_type: &str) -> u64 {
        self.expired_nonces.get(short_type)
    }

    /// Appends everything in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        family(out, "pilot_xds", "gauge", "Number of endpoints connected to this pilot using XDS.");
        line(out, "pilot_xds", "", self.connected());
        self.pushes.render(out, "pilot_xds_pushes", "Total number of XDS responses sent.");
        self.rejects.render(
            out,
            "pilot_total_xds_rejects",
            "Total number of XDS responses rejected by proxies.",
        );
        self.expired_nonces.render(
            out,
            "pilot_xds_expired_nonce",
            "Total number of XDS requests with an expired nonce.",
        );
        family(
            out,
            "pilot_total_xds_internal_errors",
            "counter",
            "Total number of internal XDS errors in pilot.",
        );
        line(out, "pilot_total_xds_internal_errors", "", self.internal_errors.load(Relaxed));
        let size = "Distribution of configuration sizes pushed to clients, in bytes.";
        self.config_size.render(out, "pilot_xds_config_size_bytes", size, &BYTES);
        let push = "Total time in seconds Pilot takes to push lds, rds, cds and eds.";
        self.push_time.render(out, "pilot_xds_push_time", push, &SECONDS);
        let convergence =
            "Delay in seconds between config change and a proxy receiving all required configuration.";
        self.convergence_time.render(out, "pilot_proxy_convergence_time", convergence, &SECONDS);
    }

    pub(crate) fn observe_size(&self, bytes: usize) {
        self.config_size.observe(bytes as f64, &BYTES);
    }

    pub(crate) fn observe_push(&self, took: Duration) {
        self.push_time.observe(took.as_secs_f64(), &SECONDS);
    }

    pub(crate) fn observe_convergence(&self, took: Duration) {
        self.convergence_time.observe(took.as_secs_f64(), &SECONDS);
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{name}{labels} {value}");
}

/// A counter per resource type. Types come from requests, so the number of them is capped.
#[derive(Debug, Default)]
pub(crate) struct ByType(Mutex<BTreeMap<String, u64>>);

/// How many types are told apart; what goes beyond is counted as `other`.
const MAX_TYPES: usize = 64;

impl ByType {
    pub(crate) fn add(&self, type_url: &str) {
        let mut counts = self.0.lock();
        let short = dhow_xds::type_url::short_name(type_url);
        let known = counts.contains_key(short) || counts.len() < MAX_TYPES;
        *counts.entry(if known { short } else { "other" }.to_owned()).or_default() += 1;
    }

    fn get(&self, short_type: &str) -> u64 {
        self.0.lock().get(short_type).copied().unwrap_or_default()
    }

    fn render(&self, out: &mut String, name: &str, help: &str) {
        family(out, name, "counter", help);
        for (short, count) in &*self.0.lock() {
            line(out, name, &format!("{{type=\"{}\"}}", escape(short)), count);
        }
    }
}

/// A label value as Prometheus quotes it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Observations below each of `N` bounds, all of them, and their sum.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    state: Mutex<HistogramState<N>>,
}

#[derive(Debug)]
struct HistogramState<const N: usize> {
    below: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { state: Mutex::new(HistogramState { below: [0; N], count: 0, sum: 0.0 }) }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&self, value: f64, bounds: &[f64; N]) {
        let mut state = self.state.lock();
        for (count, bound) in state.below.iter_mut().zip(bounds) {
            *count += u64::from(value <= *bound);
        }
        state.count += 1;
        state.sum += value;
    }

    fn render(&self, out: &mut String, name: &str, help: &str, bounds: &[f64; N]) {
        let state = self.state.lock();
        family(out, name, "histogram", help);
        for (count, bound) in state.below.iter().zip(bounds) {
            line(out, &format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), count);
        }
        line(out, &format!("{name}_bucket"), "{le=\"+Inf\"}", state.count);
        line(out, &format!("{name}_sum"), "", state.sum);
        line(out, &format!("{name}_count"), "", state.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.pushes.add(dhow_xds::type_url::CLUSTER);
        metrics.pushes.add(dhow_xds::type_url::CLUSTER);
        metrics.observe_push(Duration::from_millis(50));
        metrics.observe_push(Duration::from_secs(60));
        let mut text = String::new();
        metrics.render(&mut text);
        for expected in [
            "# TYPE pilot_xds gauge\npilot_xds 0\n",
            "pilot_xds_pushes{type=\"cds\"} 2\n",
            "pilot_xds_push_time_bucket{le=\"0.01\"} 0\npilot_xds_push_time_bucket{le=\"0.1\"} 1\n",
            "pilot_xds_push_time_bucket{le=\"+Inf\"} 2\n",
            "pilot_xds_push_time_sum 60.05\npilot_xds_push_time_count 2\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
    }

    #[test]
    fn made_up_types_cannot_fill_the_memory() {
        let counts = ByType::default();
        for number in 0..1000 {
            counts.add(&format!("type.googleapis.com/x.T{number}"));
        }
        assert_eq!(counts.get("T3"), 1);
        assert_eq!(counts.get("other"), 1000 - MAX_TYPES as u64);
    }
}
