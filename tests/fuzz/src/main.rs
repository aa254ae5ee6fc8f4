//! The `dhow-fuzz` command: the driver that needs no special toolchain, and the first inputs for libFuzzer.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use dhow_fuzz::{Limit, TARGETS, Target, drive, find, generate};

/// Feeds fuzz targets.
#[derive(Parser)]
#[command(name = "dhow-fuzz")]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print the targets and what each shows.
    List,
    /// Feed targets with generated and damaged inputs.
    Run {
        /// Targets; all unless given.
        targets: Vec<String>,
        /// Seconds for each.
        #[arg(long, default_value_t = 10)]
        time: u64,
        /// Seed of the inputs.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to write an input that fails.
        #[arg(long, default_value = ".")]
        failures: PathBuf,
    },
    /// Feed one target with the bytes of files.
    Replay {
        /// The target.
        target: String,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Write first inputs of a target into a folder.
    Corpus {
        /// The target.
        target: String,
        /// The folder.
        folder: PathBuf,
        /// Seed of the inputs.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Inputs that `corpus` writes.
const CORPUS: usize = 200;

fn main() -> ExitCode {
    match act(Command::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhow-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Result<&'static Target> {
    find(name).with_context(|| format!("there is no target `{name}`"))
}

fn act(action: Action) -> Result<()> {
    match action {
        Action::List => {
            for target in TARGETS {
                println!("{:<14} {}", target.name, target.about);
            }
        }
        Action::Run { targets, time, seed, failures } => {
            let chosen: Vec<&Target> = match targets.is_empty() {
                true => TARGETS.iter().collect(),
                false => targets.iter().map(|name| named(name)).collect::<Result<_>>()?,
            };
            for target in chosen {
                let outcome = drive(target, seed, Limit::Time(Duration::from_secs(time)));
                println!("{:<14} {} inputs, seed {seed}", target.name, outcome.inputs);
                if let Some(input) = outcome.failing {
                    let file = failures.join(format!("{}-{seed}-{}", target.name, outcome.inputs));
                    std::fs::write(&file, &input).with_context(|| file.display().to_string())?;
                    bail!("{} fails for {} ({})", target.name, input.escape_ascii(), file.display());
                }
            }
        }
        Action::Replay { target, files } => {
            let target = named(&target)?;
            for file in files {
                let input = std::fs::read(&file).with_context(|| file.display().to_string())?;
                println!("{}: {}", file.display(), input.escape_ascii());
                (target.run)(&input);
            }
        }
        Action::Corpus { target, folder, seed } => {
            std::fs::create_dir_all(&folder)?;
            for (number, input) in generate(named(&target)?, seed, CORPUS).into_iter().enumerate() {
                std::fs::write(folder.join(format!("first-{number}")), input)?;
            }
        }
    }
    Ok(())
}
