//! What must be true after a soak run. Every rule holds for Envoy 1.40.0 as well.

use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context, Result};

use super::process::{Readings, Sample, slope};
use super::topology::{STEADY, cluster_names};
use super::traffic::{Door, Tally};

/// By how much resident memory may grow, by its trend, between the end of the warm-up and the end of the traffic: what
/// fragmentation and the extremes of random traffic make up, however long the run is.
pub const GROWTH_LIMIT_KIB: f64 = 6.0 * 1024.0;

/// The share of the traffic that counts as warm-up: buffers, pools and the allocator find their size.
pub const WARM_UP: f64 = 0.3;

/// Descriptors that may be open beyond those at the start: a connection to the admin interface, health checks under way.
const DESCRIPTORS_MORE: usize = 4;

/// Everything that is judged.
pub struct Evidence<'a> {
    /// Statistics once everything came to rest.
    pub readings: &'a Readings,
    /// What clients did.
    pub doors: &'a [Door],
    /// What clients found.
    pub tally: &'a Tally,
    /// The access logs of the doors.
    pub logs: Vec<LogCounts>,
    /// Requests that the origins of [`STEADY`] got.
    pub arrivals: [u64; 3],
    /// Looks at the process during the traffic.
    pub samples: &'a [Sample],
    /// Before the traffic.
    pub base: Sample,
    /// After everything came to rest.
    pub rest: Sample,
    /// How the process ended when it was asked to; `None` when it did not.
    pub exit: Option<ExitStatus>,
    /// What it wrote.
    pub log: &'a str,
}

/// An access log, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Lines.
    pub lines: u64,
    /// Lines with response code 0.
    pub unanswered: u64,
    /// Lines by the first digit of the response code, from 1.
    pub classes: [u64; 5],
}

impl LogCounts {
    /// Counts the file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self::of(&std::fs::read_to_string(path).with_context(|| path.display().to_string())?))
    }

    fn of(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            counts.lines += 1;
            match line.as_bytes().first() {
                Some(digit @ b'1'..=b'5') => counts.classes[usize::from(digit - b'1')] += 1,
                _ => counts.unanswered += 1,
            }
        }
        counts
    }
}

/// Violations as they are found.
struct Rules<'a> {
    readings: &'a Readings,
    found: Vec<String>,
}

impl Rules<'_> {
    fn equal(&mut self, what: &str, left: u64, right: u64) {
        if left != right {
            self.found.push(format!("{what}: {left} is not {right}"));
        }
    }

    fn at_most(&mut self, what: &str, left: u64, right: u64) {
        if left > right {
            self.found.push(format!("{what}: {left} is more than {right}"));
        }
    }

    /// The sum of counters `PREFIX.SUFFIX`.
    fn sum(&self, prefix: &str, suffixes: &[&str]) -> u64 {
        suffixes.iter().map(|suffix| self.readings.counter(&format!("{prefix}.{suffix}"))).sum()
    }
}

/// All violations, a line each.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut rules = Rules { readings: evidence.readings, found: Vec::new() };
    for (door, log) in evidence.doors.iter().zip(&evidence.logs) {
        listener(&mut rules, door, log);
    }
    bytes(&mut rules, evidence.tally);
    for name in cluster_names() {
        cluster(&mut rules, name);
    }
    for (name, arrivals) in STEADY.iter().zip(evidence.arrivals) {
        origin(&mut rules, name, arrivals);
    }
    let mut found = rules.found;
    found.extend(busy(evidence.readings).into_iter().map(|line| format!("not at rest: {line}")));
    found.extend(descriptors(&evidence.base, &evidence.rest));
    found.extend(memory(evidence.samples));
    let wrong = evidence.tally.wrong_count.get();
    if wrong > 0 {
        found.push(format!("{wrong} wrong answers, such as {}", evidence.tally.wrong.borrow().join("; ")));
    }
    match evidence.exit {
        Some(status) if status.success() => {}
        Some(status) => found.push(format!("the process ended with {status}")),
        None => found.push("the process did not end when it was asked to".to_owned()),
    }
    let panics = |line: &&str| line.contains("panicked") || line.contains("[critical]");
    found.extend(evidence.log.lines().filter(panics).map(|line| format!("logged: {line}")));
    found
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests in are responses and resets, and every connection has ended.
fn listener(rules: &mut Rules<'_>, door: &Door, log: &LogCounts) {
    let prefix = format!("http.{}", door.name);
    let of = |rules: &Rules<'_>, suffixes: &[&str]| rules.sum(&prefix, suffixes);
    let total = of(rules, &["downstream_rq_total"]);
    let completed = of(rules, &["downstream_rq_completed"]);
    let by_protocol = of(rules, &["downstream_rq_http1_total", "downstream_rq_http2_total"]);
    rules.equal(&format!("{prefix}: requests and requests by protocol"), total, by_protocol);
    rules.equal(&format!("{prefix}: requests and access log lines"), total, log.lines);
    rules.equal(
        &format!("{prefix}: responses and access log lines with a code"),
        completed,
        log.lines - log.unanswered,
    );
    for (class, logged) in CLASSES.iter().zip(log.classes) {
        let counted = of(rules, &[&format!("downstream_rq_{class}")]);
        rules.equal(&format!("{prefix}: {class} responses and access log lines"), counted, logged);
    }
    let resets = of(rules, &["downstream_rq_rx_reset", "downstream_rq_tx_reset"]);
    rules.at_most(
        &format!("{prefix}: requests without an answer and resets"),
        total - completed.min(total),
        resets,
    );
    rules.at_most(&format!("{prefix}: requests and what clients began"), total, door.counts.requests.get());
    rules.at_most(&format!("{prefix}: what clients got and responses"), door.counts.answers.get(), completed);
    let connections = of(rules, &["downstream_cx_total"]);
    let opened = door.counts.connections.get();
    let what = format!("{prefix}: connections and what clients opened");
    match door.tls1 {
        None => rules.equal(&what, connections, opened),
        // A client may leave before the handshake is complete for the other side too.
        Some(_) => rules.at_most(&what, connections, opened),
    }
    let ended = of(rules, &["downstream_cx_destroy"]);
    rules.equal(&format!("{prefix}: connections and ended ones"), connections, ended);
}

fn bytes(rules: &mut Rules<'_>, tally: &Tally) {
    let opened = tally.tcp_connections.get();
    let down = rules.sum("tcp.bytes", &["downstream_cx_total"]);
    rules.equal("tcp.bytes: connections and what clients opened", down, opened);
    let up = rules.sum("cluster.echo", &["upstream_cx_total"]);
    rules.equal("cluster.echo: connections and those of clients", up, opened);
}

/// Every connection has ended, and codes add up.
fn cluster(rules: &mut Rules<'_>, name: &str) {
    let prefix = format!("cluster.{name}");
    let of = |rules: &Rules<'_>, suffixes: &[&str]| rules.sum(&prefix, suffixes);
    let total = of(rules, &["upstream_cx_total"]);
    rules.equal(&format!("{prefix}: connections and ended ones"), total, of(rules, &["upstream_cx_destroy"]));
    let by_class =
        of(rules, &CLASSES.map(|class| format!("upstream_rq_{class}")).each_ref().map(String::as_str));
    let completed = of(rules, &["upstream_rq_completed"]);
    rules.equal(&format!("{prefix}: responses and responses by class"), completed, by_class);
}

/// What a host got is what was sent to it, less what was taken back.
fn origin(rules: &mut Rules<'_>, name: &str, arrivals: u64) {
    let prefix = format!("cluster.{name}");
    // The narrow cluster has the same host.
    let more = if name == "steady" { rules.sum("cluster.narrow", &["upstream_rq_total"]) } else { 0 };
    // HTTP/1 has no resets: a stream that is given up takes its connection with it.
    let resets = ["upstream_rq_rx_reset", "upstream_rq_tx_reset", "upstream_cx_destroy_with_active_rq"];
    let mut taken_back = rules.sum(&prefix, &resets);
    if name == "steady" {
        taken_back += rules.sum("cluster.narrow", &resets);
    }
    let sent = rules.sum(&prefix, &["upstream_rq_total"]) + more;
    rules.at_most(&format!("{prefix}: what the host got and requests"), arrivals, sent);
    rules.at_most(
        &format!("{prefix}: requests less resets and what the host got"),
        sent.saturating_sub(taken_back),
        arrivals,
    );
}

/// Gauges that have to be 0 at rest and are not.
pub fn busy(readings: &Readings) -> Vec<String> {
    const ENDINGS: [&str; 5] = ["_active", "_buffered", "_pending", "_open", "pending_send_bytes"];
    // The interface that is asked counts its own connection and request.
    const ALWAYS: [&str; 4] = ["http.admin.", "listener.admin.", "listener_manager.", "cluster_manager."];
    let counts = |name: &str| {
        ENDINGS.iter().any(|ending| name.ends_with(ending))
            && !name.contains(".remaining_")
            && !ALWAYS.iter().any(|start| name.starts_with(start))
    };
    let busy = readings.gauges.iter().filter(|(name, value)| counts(name) && **value != 0);
    busy.map(|(name, value)| format!("{name} is {value}")).collect()
}

/// What is wrong with the number of descriptors, if something is.
pub fn descriptors(base: &Sample, rest: &Sample) -> Option<String> {
    (rest.descriptors > base.descriptors + DESCRIPTORS_MORE)
        .then(|| format!("descriptors: {} at rest, {} at the start", rest.descriptors, base.descriptors))
}

/// The looks after the warm-up.
fn steady_state(samples: &[Sample]) -> &[Sample] {
    let end = samples.last().map_or(0.0, |sample| sample.at);
    let first = samples.iter().position(|sample| sample.at >= end * WARM_UP).unwrap_or(0);
    &samples[first..]
}

/// By how much memory grew after the warm-up, by its trend, in KiB.
fn growth(samples: &[Sample]) -> f64 {
    let steady = steady_state(samples);
    match (steady.first(), steady.last()) {
        (Some(first), Some(last)) => slope(steady) * (last.at - first.at),
        _ => 0.0,
    }
}

fn memory(samples: &[Sample]) -> Option<String> {
    let growth = growth(samples);
    (growth > GROWTH_LIMIT_KIB).then(|| {
        format!("memory: grows by {growth:.0} KiB after the warm-up, more than {GROWTH_LIMIT_KIB:.0}")
    })
}

/// Memory and descriptors in a line.
pub fn describe_memory(evidence: &Evidence<'_>) -> String {
    let largest = evidence.samples.iter().map(|sample| sample.resident_kib).max().unwrap_or(0);
    format!(
        "memory: {} KiB before, {largest} at most, {} at rest, trend after the warm-up {:+.0} KiB (at most {GROWTH_LIMIT_KIB:.0}); \
         descriptors: {} before, {} at rest",
        evidence.base.resident_kib,
        evidence.rest.resident_kib,
        growth(evidence.samples),
        evidence.base.descriptors,
        evidence.rest.descriptors,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_log_is_counted_by_class() {
        let counts = LogCounts::of("200 - via_upstream\n0 DC downstream_remote_disconnect\n503 UF x\n");
        assert_eq!(counts, LogCounts { lines: 3, unanswered: 1, classes: [0, 1, 0, 0, 1] });
    }

    #[test]
    fn what_is_not_at_rest_is_named() {
        let gauges =
            [("cluster.a.upstream_cx_active", 2), ("http.admin.downstream_cx_active", 1), ("server.live", 1)];
        let gauges = gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let readings = Readings { gauges, ..Readings::default() };
        assert_eq!(busy(&readings), ["cluster.a.upstream_cx_active is 2"]);
    }

    #[test]
    fn growth_counts_only_after_the_warm_up() {
        let sample = |at: u32, resident_kib| Sample { at: f64::from(at), resident_kib, descriptors: 9 };
        let warm: Vec<Sample> =
            (0..100).map(|at| sample(at, 10_000 + u64::from(at.min(25)) * 1000)).collect();
        assert_eq!(memory(&warm), None);
        let leak: Vec<Sample> = (0..100).map(|at| sample(at, 10_000 + u64::from(at) * 200)).collect();
        assert!(memory(&leak).unwrap().starts_with("memory: grows by 13"));
    }

    #[test]
    fn missing_responses_are_violations() {
        let counters = [("cluster.a.upstream_rq_completed", 3), ("cluster.a.upstream_rq_2xx", 2)];
        let counters = counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let readings = Readings { counters, ..Readings::default() };
        let mut rules = Rules { readings: &readings, found: Vec::new() };
        cluster(&mut rules, "a");
        assert_eq!(rules.found, ["cluster.a: responses and responses by class: 3 is not 2"]);
        rules.found.clear();
        origin(&mut rules, "a", 1);
        assert_eq!(rules.found, ["cluster.a: what the host got and requests: 1 is more than 0"]);
    }
}
