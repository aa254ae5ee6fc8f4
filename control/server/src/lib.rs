//! The control plane as a program: command line, snapshots of the mesh, monitoring; it must not know how any resource is generated or how a session works.

mod args;
mod discovery;
mod mesh_config_file;
mod mesh_generation;
mod monitoring;
mod publisher;
mod snapshot;
mod xds_dump;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

/// Runs `dhowd` with the arguments after the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let program = OsString::from("dhowd");
    let cli = match Cli::try_parse_from(std::iter::once(program).chain(args)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which is which.
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(1));
        }
    };
    let outcome = match cli.command {
        Command::Discovery(args) => discovery::run(&args),
        Command::XdsDump(args) => xds_dump::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
