//! System calls per request, counted by strace where it is installed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use dhow_load::Spec;
use dhow_testkit::{ChildSpec, poll_until};

use super::lab::{Lab, Proxy};
use super::rounds::Results;
use crate::build::installed;

/// Requests and connections of the counted load.
const REQUESTS: u64 = 4000;
const CONNECTIONS: usize = 16;

/// Counts for every proxy.
pub fn measure(lab: &Lab, results: &mut Results) -> Result<()> {
    let Some(strace) = installed("strace") else { return Ok(()) };
    for (proxy, figures) in lab.proxies().iter().zip(&mut results.figures) {
        // The first load opens the upstream connections, so that only steady state is counted.
        lab.send(&spec(lab, proxy))?;
        figures.syscalls = count(lab, proxy, &strace).ok();
    }
    Ok(())
}

fn spec(lab: &Lab, proxy: &Proxy) -> Spec {
    Spec { requests: REQUESTS, ..lab.spec(proxy, CONNECTIONS) }
}

fn count(lab: &Lab, proxy: &Proxy, strace: &Path) -> Result<f64> {
    let summary = lab.dir().join(format!("{}.strace", proxy.peer.name()));
    let mut tracer =
        ChildSpec::new(strace, lab.dir().join("strace.log")).args(["-f", "-c", "-o"]).arg(&summary);
    for pid in proxy.pids() {
        tracer = tracer.args(["-p".to_owned(), pid.to_string()]);
    }
    let mut tracer = tracer.spawn()?;
    let pids = proxy.pids();
    poll_until(Duration::from_secs(5), || pids.iter().all(|pid| traced(*pid)).then_some(()))
        .context("strace did not attach")?;
    let pass = lab.send(&spec(lab, proxy))?;
    tracer.terminate(Duration::from_secs(5)).context("strace does not end")?;
    let text = std::fs::read_to_string(summary)?;
    // The last line is `100.00  seconds  usecs/call  calls [errors] total`.
    let total = text.lines().find(|line| line.ends_with("total")).context("no total")?;
    let calls: f64 = total.split_whitespace().nth(3).context("no calls")?.parse()?;
    Ok(calls / pass.requests.max(1) as f64)
}

fn traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
}
