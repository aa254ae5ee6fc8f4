//! `h2load`: a closed loop of HTTP/2, for a given time or a given number of requests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dhow_testkit::TempDir;

use super::wrk::micros;
use dhow_load::{Pass, Spec};

use super::pinned;

/// Runs it on core 1.
pub fn run(h2load: &Path, spec: &Spec) -> Result<Pass> {
    let dir = TempDir::new("h2load")?;
    let log = dir.path().join("log");
    let (program, mut line) = pinned(1, h2load);
    line.extend(["-t1".into(), format!("-c{}", spec.connections), format!("-m{}", spec.streams)]);
    line.push(match spec.requests {
        0 => format!("-D{}", spec.millis.div_ceil(1000)),
        requests => format!("-n{requests}"),
    });
    line.push(format!("--log-file={}", log.display()));
    line.push(format!("http://127.0.0.1:{}/bench", spec.port));
    let output = Command::new(program).args(line).output().context("h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = std::fs::read_to_string(&log).unwrap_or_default();
    parse(&text, &lines, spec.requests == 0).with_context(|| format!("unexpected output of h2load:\n{text}"))
}

/// Reads the summary for the time and the log of requests for everything else. When time runs out, h2load gives up the requests
/// that are under way and counts them as failed; in a run by time those are not errors of the proxy.
fn parse(summary: &str, log: &str, by_time: bool) -> Result<Pass> {
    let mut latencies = Vec::new();
    let mut errors = 0;
    for line in log.lines() {
        let mut columns = line.split('\t').skip(1);
        match (columns.next(), columns.next().and_then(|us| us.parse::<u64>().ok())) {
            (Some("200"), Some(us)) => latencies.push(us * 1000),
            (Some("-1"), _) if by_time => {}
            _ => errors += 1,
        }
    }
    let finished = summary.lines().find_map(|line| line.strip_prefix("finished in "));
    let time = finished.and_then(|rest| rest.split(',').next()).context("no time")?;
    ensure!(!latencies.is_empty(), "no requests");
    Ok(Pass::of(latencies, errors, micros(time)? / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_and_log_are_read() {
        let summary = "starting benchmark...\n\nfinished in 1.50s, 2000.00 req/s, 138.80KB/s\n";
        let log = "1\t200\t100\n2\t200\t300\n3\t503\t50\n4\t-1\t7\n";
        let pass = parse(summary, log, true).unwrap();
        assert_eq!((pass.requests, pass.errors, pass.seconds), (2, 1, 1.5));
        assert_eq!((pass.p50_us, pass.p99_us), (300.0, 300.0));
        assert_eq!(parse(summary, log, false).unwrap().errors, 2);
        assert!(parse(summary, "", true).is_err());
    }
}
