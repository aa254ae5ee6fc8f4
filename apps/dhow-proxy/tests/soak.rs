//! A short soak run against this build; `cargo xtask soak` is the long one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dhow_load::soak::{Options, run};

/// Long enough for every kind of client and several disturbances.
const DURATION: Duration = Duration::from_secs(12);

fn main() -> ExitCode {
    let options = Options {
        proxy: PathBuf::from(env!("CARGO_BIN_EXE_dhow-proxy")),
        duration: DURATION,
        clients: 16,
        ..Options::default()
    };
    match run(&options) {
        Ok(summary) => {
            print!("{}", summary.text);
            for violation in &summary.violations {
                println!("  does not hold: {violation}");
            }
            if summary.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}
