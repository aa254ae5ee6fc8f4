//! `cargo xtask bench`: dhow-proxy beside its peers, in interleaved rounds.
//!
//! The proxy is pinned to core 0, load tool and upstream to core 1. The figure to trust on a busy machine is the CPU time of
//! the proxy process per request, from the kernel's accounting, as a ratio to Envoy's in the same run.

mod accounting;
mod callgrind;
mod chain;
mod config;
mod exercise;
mod job;
mod lab;
mod large;
mod load;
mod memory;
mod peer;
mod report;
mod rounds;
mod start;
mod syscalls;
mod upstream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::build::{build, installed};
use crate::dist;
pub use exercise::exercise;
use job::{Arrival, Job, RowName};
use peer::Peer;
use report::Section;

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Rows to measure.
    #[arg(required = true)]
    rows: Vec<RowName>,
    /// Seconds of load per proxy and round.
    #[arg(long, default_value_t = 3)]
    duration: u64,
    /// Rounds; each proxy has its turn in every round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connections to the proxy; requests under way for HTTP/2.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of each response body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
    /// Requests per second of the row `fixed-rate`.
    #[arg(long, default_value_t = 4000)]
    rate: u64,
    /// Clusters and routes of a large configuration.
    #[arg(long, default_value_t = 5000)]
    resources: usize,
    /// What to measure; missing programs are left out and named.
    #[arg(long, value_delimiter = ',', default_value = "ours,envoy,haproxy,nginx")]
    peers: Vec<Peer>,
    /// Count user instructions and allocations per request with valgrind.
    #[arg(long)]
    instructions: bool,
    /// Count system calls per request with strace.
    #[arg(long)]
    syscalls: bool,
    /// One short round with little of everything: shows that the benchmark works, not how fast anything is.
    #[arg(long)]
    quick: bool,
    /// Fail when a figure that noise does not touch (instructions, system calls) misses its target.
    #[arg(long)]
    check: bool,
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure this dhow-proxy instead of building one.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Send load with this dhow-load instead of building one.
    #[arg(long)]
    load: Option<PathBuf>,
}

impl Options {
    /// The command that repeats the measurement.
    fn command(&self) -> String {
        let names = |name: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            name().map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let rows: Vec<String> = self.rows.iter().map(|row| names(&|| row.to_possible_value())).collect();
        let flags = [
            (self.instructions, " --instructions"),
            (self.syscalls, " --syscalls"),
            (self.quick, " --quick"),
            (self.check, " --check"),
        ];
        let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
        format!(
            "cargo xtask bench {} --duration {} --rounds {} --connections {} --body {} --rate {} --resources {}{flags}",
            rows.join(" "),
            self.duration,
            self.rounds,
            self.connections,
            self.body,
            self.rate,
            self.resources
        )
    }

    fn quickened(mut self) -> Self {
        if self.quick {
            self.duration = 1;
            self.rounds = 1;
            self.resources = self.resources.min(500);
        }
        self
    }

    /// Numbers of idle connections between which memory is measured.
    fn idle_connections(&self) -> [usize; 2] {
        if self.quick { [100, 500] } else { [1000, 9500] }
    }
}

/// Measures the rows that were asked for and prints the tables.
pub fn run(options: Options) -> Result<()> {
    let options = options.quickened();
    let programs = Programs::build(&options)?;
    let mut sections = Vec::new();
    for row in options.rows.iter().flat_map(|row| row.expand()) {
        sections.push(match row.job() {
            Some(job) => measure(&job, &options, &programs),
            None if row == RowName::Memory => memory::measure(&options, &programs),
            None => start::measure(&options, &programs),
        }?);
    }
    println!("{}", report::markdown(&options, &sections));
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&options, &sections))
            .with_context(|| path.display().to_string())?;
        println!("wrote {}", path.display());
    }
    let misses = sections.iter().flat_map(|section| &section.verdicts).filter(|v| v.is_certain_miss());
    let misses: Vec<String> = misses.map(report::Verdict::text).collect();
    ensure!(!options.check || misses.is_empty(), "missed: {}", misses.join("; "));
    Ok(())
}

fn measure(job: &Job, options: &Options, programs: &Programs) -> Result<Section> {
    let mut lab = lab::Lab::start(job, options, programs).with_context(|| format!("row {}", job.name))?;
    let mut results = rounds::measure(&lab, job, options)?;
    // At a fixed rate a request costs the same instructions as in the closed loop, which is another row.
    let counted = job.arrival != Arrival::FixedRate;
    if options.syscalls && counted {
        syscalls::measure(&lab, &mut results)?;
    }
    lab.stop();
    if options.instructions && counted {
        callgrind::measure(&lab, job, &mut results)?;
    }
    Ok(report::section(job, results, lab.notes()))
}

/// Programs of this repository that take part.
struct Programs {
    /// `dhow-proxy`, where it is measured.
    ours: Option<PathBuf>,
    /// The load generator and substitute upstream.
    load: PathBuf,
}

impl Programs {
    /// Builds what is not given: the proxy as `cargo xtask dist` does, and the load. Where only their working is to be shown, and
    /// where there is nothing to merge profiles with, the proxy is built without a profile.
    fn build(options: &Options) -> Result<Self> {
        let load = options.load.as_deref().map(given).transpose()?;
        let load = load.map_or_else(|| build("dhow-load", "dhow-load", !options.quick), Ok)?;
        let ours = match options.ours.as_deref() {
            _ if !options.peers.contains(&Peer::Ours) => None,
            Some(ours) => Some(given(ours)?),
            None if options.quick => Some(build("dhow-proxy-bin", "dhow-proxy", true)?),
            None => Some(match dist::merger() {
                Ok(merger) => dist::profiled(&merger, &load)?,
                Err(error) => {
                    eprintln!("dhow-proxy is built without a profile: {error}");
                    build("dhow-proxy-bin", "dhow-proxy", true)?
                }
            }),
        };
        Ok(Self { ours, load })
    }
}

fn given(program: &Path) -> Result<PathBuf> {
    ensure!(program.is_file(), "{} is not a file", program.display());
    Ok(program.canonicalize()?)
}

/// A command line that pins `program` to one core, where the machine can do that.
fn pinned(core: usize, program: &Path) -> (PathBuf, Vec<String>) {
    let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > core);
    if several && installed("taskset").is_some() {
        return (
            PathBuf::from("taskset"),
            vec!["-c".into(), core.to_string(), program.display().to_string()],
        );
    }
    (program.to_owned(), Vec::new())
}

/// How long a program may take to start listening.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The same for a program that runs inside valgrind.
const WRAPPED_START_LIMIT: Duration = Duration::from_secs(240);
