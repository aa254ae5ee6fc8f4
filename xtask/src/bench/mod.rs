//! `cargo xtask bench`: dhow-proxy beside its peers, in interleaved rounds.
//!
//! The proxy is pinned to core 0, load tool and upstream to core 1. The figure to trust on a busy machine is the CPU time of
//! the proxy process per request, from the kernel's accounting, as a ratio to Envoy's in the same run.

mod accounting;
mod instructions;
mod load;
mod peers;
mod report;
mod rounds;
mod startup;
mod syscalls;
mod upstream;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::workspace::root;
use peers::Peer;

/// What to measure, and the roles that a measurement gives to child processes of itself.
#[derive(Subcommand)]
pub enum What {
    /// HTTP/1.1 keep-alive: small responses over many connections.
    Http1(Http1),
    /// The load generator of a measurement.
    #[command(hide = true)]
    Load(load::LoadArgs),
    /// The upstream of a measurement, where nginx is missing.
    #[command(hide = true)]
    Upstream(upstream::UpstreamArgs),
}

/// Options of `bench http1`.
#[derive(Args)]
pub struct Http1 {
    /// Seconds of load per proxy and round.
    #[arg(long, default_value_t = 3)]
    pub duration: u64,
    /// Rounds; each proxy has its turn in every round.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Connections to the proxy.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Bytes of each response body.
    #[arg(long, default_value_t = 1024)]
    pub body: usize,
    /// Requests per second for one more pass that measures latency at a fixed rate; 0 leaves it out.
    #[arg(long, default_value_t = 4000)]
    pub rate: u64,
    /// What to measure; missing programs are left out and named.
    #[arg(long, value_delimiter = ',', default_value = "ours,envoy,haproxy,nginx")]
    pub peers: Vec<Peer>,
    /// Count user instructions per request with valgrind.
    #[arg(long)]
    pub instructions: bool,
    /// Write the results to this file as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Measure this dhow-proxy instead of building one.
    #[arg(long)]
    pub ours: Option<PathBuf>,
}

/// Carries out what was asked for.
pub fn run(what: What) -> Result<()> {
    match what {
        What::Http1(options) => http1(&options),
        What::Load(args) => load::main(&args),
        What::Upstream(args) => upstream::main(&args),
    }
}

fn http1(options: &Http1) -> Result<()> {
    let ours = if options.peers.contains(&Peer::Ours) { Some(our_binary(options)?) } else { None };
    let mut lab = peers::Lab::start(options, ours)?;
    let mut results = rounds::measure(&mut lab, options)?;
    syscalls::measure(&lab, &mut results)?;
    lab.stop();
    startup::measure(&lab, &mut results)?;
    if options.instructions {
        instructions::measure(&lab, &mut results)?;
    }
    let report = report::Report::new(options, results, lab.notes());
    println!("{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).with_context(|| path.display().to_string())?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn our_binary(options: &Http1) -> Result<PathBuf> {
    if let Some(path) = &options.ours {
        ensure!(path.is_file(), "{} is not a file", path.display());
        return Ok(path.canonicalize()?);
    }
    let root = root()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building the release dhow-proxy");
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", "dhow-proxy-bin"])
        .current_dir(&root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the release build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/dhow-proxy"))
}

/// A command line that pins `program` to one core, where the machine can do that.
fn pinned(core: usize, program: &std::path::Path) -> (PathBuf, Vec<String>) {
    let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > core);
    if several && installed("taskset").is_some() {
        return (
            PathBuf::from("taskset"),
            vec!["-c".into(), core.to_string(), program.display().to_string()],
        );
    }
    (program.to_owned(), Vec::new())
}

/// This program, also after a build has replaced its file.
fn own_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

/// The path of a program on `PATH`, if it is installed. Administrative folders are searched too.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// How long a program may take to start listening.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The same for a program that runs inside valgrind.
const WRAPPED_START_LIMIT: Duration = Duration::from_secs(240);
