//! Chores of this repository: rule checks, generated lists, benchmarks and proofs that take long; it must not know what the product does.

mod bench;
mod build;
mod dist;
mod filters;
mod fuzz;
mod memcheck;
mod soak;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Command {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check the rules of the repository: layers, sizes, READMEs, dependencies, generated lists.
    Tidy,
    /// Write the list of filters from the folders present.
    Filters,
    /// Measure dhow-proxy beside Envoy, HAProxy and nginx.
    Bench(bench::Options),
    /// Build dhow-proxy for production, optimised by a profile of its own work.
    Dist(dist::Options),
    /// Send mixed traffic through dhow-proxy while its upstreams fail and come back, and check what it says afterwards.
    Soak(soak::Options),
    /// Feed the fuzz targets by coverage.
    Fuzz(fuzz::Options),
    /// Run the tests of crates with `unsafe` under valgrind or a sanitizer.
    Memcheck(memcheck::Options),
}

fn main() -> ExitCode {
    match act(Command::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(chore: Chore) -> Result<()> {
    match chore {
        Chore::Tidy => tidy::run(),
        Chore::Filters => filters::write(),
        Chore::Bench(options) => bench::run(options),
        Chore::Dist(options) => dist::run(&options),
        Chore::Soak(options) => soak::run(options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Memcheck(options) => memcheck::run(&options),
    }
}
