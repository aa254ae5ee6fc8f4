//! What the kernel and the admin interface say about the proxy while it runs.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dhow_testkit::client::Http1Client;

/// How long one answer of the admin interface may take; a debug build on a busy machine is slow.
const ADMIN_LIMIT: Duration = Duration::from_secs(20);

/// One look at the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds since the traffic began.
    pub at: f64,
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

/// Looks at the process `pid`.
pub fn sample(pid: u32, at: f64) -> Result<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the proxy has ended")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let resident_kib = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(Sample { at, resident_kib, descriptors })
}

/// The trend of resident memory over `samples` as a line of least squares, in KiB per second.
pub fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, memory) = (mean(&|s| s.at), mean(&|s| s.resident_kib as f64));
    let spread: f64 = samples.iter().map(|s| (s.at - time).powi(2)).sum();
    let common: f64 = samples.iter().map(|s| (s.at - time) * (s.resident_kib as f64 - memory)).sum();
    if spread == 0.0 { 0.0 } else { common / spread }
}

/// Statistics by name.
pub type Stats = BTreeMap<String, u64>;

/// Every counter and every gauge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings {
    /// What only grows.
    pub counters: Stats,
    /// What goes up and down.
    pub gauges: Stats,
}

impl Readings {
    /// Asks the admin interface.
    pub async fn of(admin: SocketAddr) -> Result<Self> {
        Ok(Self {
            counters: parse(&ask(admin, "/stats?type=Counters").await?),
            gauges: parse(&ask(admin, "/stats?type=Gauges").await?),
        })
    }

    /// A counter; 0 when there is none.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

/// Asks the admin interface for a page.
pub async fn ask(admin: SocketAddr, target: &str) -> Result<String> {
    let mut client = Http1Client::connect(admin, None).await.context("admin interface")?;
    let response =
        client.get("admin", target, ADMIN_LIMIT).await.with_context(|| format!("admin {target}"))?;
    ensure!(response.status == 200, "admin {target} answered {}", response.status);
    Ok(String::from_utf8_lossy(&response.body).into_owned())
}

fn parse(text: &str) -> Stats {
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(": ")?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trend_ignores_ups_and_downs() {
        let sample = |at: u32, resident_kib| Sample { at: f64::from(at), resident_kib, descriptors: 0 };
        let flat: Vec<Sample> = (0..100).map(|at| sample(at, 20_000 + u64::from(at % 2) * 300)).collect();
        assert!(slope(&flat).abs() < 0.5, "{}", slope(&flat));
        let leak: Vec<Sample> = (0..100).map(|at| sample(at, 20_000 + u64::from(at) * 12)).collect();
        assert!((slope(&leak) - 12.0).abs() < 0.01);
        assert_eq!(slope(&flat[..1]), 0.0);
    }

    #[test]
    fn statistics_are_read_from_text() {
        let stats = parse("a.b: 3\nhistogram: P0(nan,1) P25(nan,2)\nc: text\n");
        assert_eq!(stats, Stats::from([("a.b".to_owned(), 3)]));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let sample = sample(std::process::id(), 1.0).unwrap();
        assert!(sample.resident_kib > 100 && sample.descriptors > 2);
    }
}
