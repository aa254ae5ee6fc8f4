//! Checks a route table against a file of tests as Envoy's router check tool does, with its inputs, texts, coverage and exit codes;
//! it must not know how a route is selected, nor anything about a running proxy.

mod answer;
mod compare;
mod coverage;
mod number;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dhow_base::ConfigError;
use dhow_proto::router_check::{Validation, ValidationItem};
use dhow_proto::{Format, LoadOptions, load};

use crate::coverage::Coverage;
use crate::number::six_digits;
use crate::table::Table;

/// Check a route table against a file of tests, as Envoy's router check tool does.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// File with the route configuration: .yaml, .json, .pb or .pb_text.
    #[arg(short, long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// File with the tests: .yaml, .json, .pb or .pb_text.
    #[arg(short, long, value_name = "FILE")]
    pub test_path: Option<PathBuf>,
    /// Print the name of every test, and what a failed one found.
    #[arg(short, long)]
    pub details: bool,
    /// Print failed tests only, with what they found.
    #[arg(long)]
    pub only_show_failures: bool,
    /// Fail when fewer percent of the routes are covered.
    #[arg(short, long, value_name = "PERCENT", default_value_t = 0.0, hide_default_value = true)]
    pub fail_under: f64,
    /// Let a route count by how many of its properties are checked, and print the matches of routes without tests.
    #[arg(long)]
    pub covall: bool,
    /// Print the names of routes without tests.
    #[arg(long)]
    pub detailed_coverage: bool,
    /// Accept deprecated fields that Envoy disallows by default.
    #[arg(long)]
    pub disable_deprecation_check: bool,
}

/// Runs the tests and prints what the tool prints.
pub fn run(args: &Args) -> ExitCode {
    match check(args, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        // A closed terminal is no reason to call a table good.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Whether all tests pass and enough routes are covered.
fn check(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    let (Some(config), Some(tests)) = (&args.config_path, &args.test_path) else {
        writeln!(err, "error: Both --config-path/c and --test-path/t are mandatory")?;
        return Ok(false);
    };
    let loaded = Table::load(config, args.disable_deprecation_check).and_then(|table| {
        let tests: Validation = read(tests, &LoadOptions::default())?;
        Ok((table, tests.tests))
    });
    let (table, tests) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(false);
        }
    };
    let mut coverage = Coverage::default();
    let all_passed = run_tests(args, &table, &tests, &mut coverage, out, err)?;
    if !all_passed {
        return Ok(false);
    }
    let covered = coverage.percent(&table, args.covall);
    if args.covall {
        coverage.print_matches_without_tests(&table, out)?;
    } else if args.detailed_coverage {
        coverage.print_names_without_tests(&table, out)?;
    }
    writeln!(out, "Current route coverage: {}%", six_digits(covered))?;
    if args.fail_under != 0.0 && covered < args.fail_under {
        writeln!(err, "Failed to meet coverage requirement: {}%", six_digits(args.fail_under))?;
        return Ok(false);
    }
    Ok(true)
}

fn run_tests(
    args: &Args,
    table: &Table,
    tests: &[ValidationItem],
    coverage: &mut Coverage,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let mut all_passed = true;
    for test in tests {
        let failures = match compare::failures_of(table, test, coverage) {
            Ok(failures) => failures,
            Err(error) => {
                writeln!(err, "{error}")?;
                return Ok(false);
            }
        };
        if failures.is_empty() {
            if args.details && !args.only_show_failures {
                writeln!(out, "{}", test.test_name)?;
            }
            continue;
        }
        all_passed = false;
        if args.details || args.only_show_failures {
            writeln!(err, "{}", test.test_name)?;
            failures.iter().try_for_each(|failure| writeln!(err, "{failure}"))?;
        }
    }
    Ok(all_passed)
}

/// Reads a message; the name of the file tells its form.
fn read<M: dhow_proto::Name + Default>(path: &Path, options: &LoadOptions) -> Result<M, ConfigError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| ConfigError::at_root(format!("unable to read file: {name} ({error})")))?;
    let format = Format::of_file_name(&name).unwrap_or(Format::Json);
    Ok(load::<M>(&[(format, &bytes)], options)?.message)
}
