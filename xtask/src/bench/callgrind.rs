//! User instructions and allocations per request: the difference of two runs under callgrind, so that starting up cancels out.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dhow_load::Spec;

use super::job::{Arrival, Job};
use super::lab::{Lab, Proxy};
use super::rounds::Results;
use crate::build::installed;

/// Connections of the counted load.
const CONNECTIONS: usize = 16;

/// Functions of the C library that give memory out.
const ALLOCATORS: &[&str] = &["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// What one run cost.
#[derive(Debug, Default, PartialEq)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

/// Measures every proxy; does nothing where valgrind is not installed.
pub fn measure(lab: &Lab, job: &Job, results: &mut Results) -> Result<()> {
    let Some(valgrind) = installed("valgrind") else {
        eprintln!("valgrind is not installed: no instructions");
        return Ok(());
    };
    // Handshakes cost a hundred times a request.
    let (few, many) =
        if job.arrival == Arrival::Connections && job.tls.is_some() { (50, 250) } else { (400, 2400) };
    for (proxy, figures) in lab.proxies().iter().zip(&mut results.figures) {
        eprintln!("{} counting instructions of {}", job.name, proxy.peer.name());
        let short = count(lab, proxy, &valgrind, few).context("short run")?;
        let long = count(lab, proxy, &valgrind, many).context("long run")?;
        let per_request = |short: f64, long: f64| (long - short) / (many - few) as f64;
        figures.instructions = Some(per_request(short.instructions, long.instructions));
        // A program with an allocator of its own calls the system's hardly at all.
        let allocations = per_request(short.allocations, long.allocations);
        figures.allocations = proxy.peer.uses_system_allocator().then_some(allocations);
    }
    Ok(())
}

fn count(lab: &Lab, proxy: &Proxy, valgrind: &Path, requests: u64) -> Result<Cost> {
    let out = lab.dir().join(format!("{}-{requests}.callgrind", proxy.peer.name()));
    let wrapper = [
        valgrind.display().to_string(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
    ];
    let mut child = lab.launch(proxy, &wrapper)?;
    let pass = lab.send(&Spec { requests, ..lab.spec(proxy, CONNECTIONS) })?;
    ensure!(pass.errors == 0, "{} of {requests} requests failed under valgrind", pass.errors);
    child.terminate(Duration::from_secs(60)).context("does not end under valgrind")?;
    read(&std::fs::read_to_string(&out).with_context(|| format!("no {}", out.display()))?)
}

/// Reads a profile: its total, and how often the allocators were called from elsewhere.
fn read(profile: &str) -> Result<Cost> {
    let mut cost = Cost::default();
    let mut allocators: Vec<&str> = Vec::new();
    let (mut total, mut from_allocator, mut to_allocator) = (None, false, false);
    for line in profile.lines() {
        if let Some(rest) = line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")) {
            total = rest.split(' ').next().and_then(|count| count.parse().ok()).or(total);
        } else if let Some(name) = line.strip_prefix("fn=") {
            from_allocator = is_allocator(name, &mut allocators);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            to_allocator = is_allocator(name, &mut allocators);
        } else if let Some(rest) = line.strip_prefix("calls=")
            && to_allocator
            && !from_allocator
        {
            cost.allocations += rest.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    cost.instructions = total.context("no totals in the profile")?;
    Ok(cost)
}

/// Whether a function is an allocator. Profiles write `(7) name` once and `(7)` afterwards; `known` keeps the numbers.
fn is_allocator<'a>(name: &'a str, known: &mut Vec<&'a str>) -> bool {
    let (number, name) = name.split_once(' ').unwrap_or((name, ""));
    if ALLOCATORS.contains(&name.split('\'').next().unwrap_or_default()) && !known.contains(&number) {
        known.push(number);
    }
    known.contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_allocators_are_counted_once_each() {
        let profile = "fn=(1) serve\n10 5\ncfn=(2) malloc\ncalls=3 0\n10 90\ncfn=(3) memcpy\ncalls=7 0\n10 9\n\
                       fn=(2)\n1 80\ncfn=(4) realloc\ncalls=2 0\n1 1\nfn=(5) other\ncfn=(4)\ncalls=4 0\n1 2\n\
                       totals: 1234\n";
        assert_eq!(read(profile).unwrap(), Cost { instructions: 1234.0, allocations: 7.0 });
        assert!(read("fn=(1) serve\n").is_err());
    }
}
