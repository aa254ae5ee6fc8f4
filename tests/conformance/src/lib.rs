//! Runs scenario files (configuration, traffic, expectations) against a proxy and compares what happened with the real Envoy;
//! it must not know how a proxy works inside, only its command line, its sockets and its files.
//!
//! A scenario is run once per target, each time with fresh ports, upstreams and files. What happened is written down as an
//! [`outcome::Outcome`] whose volatile parts are replaced in one place ([`normalise`]); expectations are checked on it, and the
//! outcomes of the two targets are compared.

mod accepted;
pub mod ads;
pub mod ask;
#[cfg(test)]
mod behaviours;
mod certificates;
pub mod environment;
pub mod expect;
pub mod normalise;
pub mod outcome;
pub mod random;
pub mod report;
pub mod run;
pub mod scenario;
mod shorthand;
pub mod steps;
pub mod target;
mod traffic;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

pub use run::{Options, Summary, Targets};

/// The folder that holds the scenario files of this repository.
pub fn scenario_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// The folder of this repository with lists of values to ask both proxies for ([`ask`]).
pub fn question_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("questions")
}

/// Runs every scenario against the proxy binary `ours` and, where it can be had, against the real Envoy.
///
/// Prints a line per scenario and a summary to standard output. When the real Envoy cannot be had it says so and still checks
/// the expectations on `ours`. Fails when a scenario fails.
pub fn run_all(ours: &Path) -> Result<()> {
    run_matching(ours, None)
}

/// The body of a test binary without harness: [`run_all`], or the scenarios whose name contains the first argument that is not
/// a flag, as `cargo test NAME` passes it.
pub fn test_main(ours: &Path) -> ExitCode {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    match run_matching(ours, filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_matching(ours: &Path, filter: Option<String>) -> Result<()> {
    let options =
        Options { targets: Targets::Both, ours: Some(ours.to_owned()), filter, ..Options::default() };
    let summary = run::run(&options)?;
    anyhow::ensure!(summary.failed == 0, "{} of {} scenarios failed", summary.failed, summary.total());
    Ok(())
}
