//! The `dhow-load` command: the two ends of a measurement as processes of their own.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dhow_load::{Spec, send, upstream};

/// Sends load, or answers it.
#[derive(Parser)]
#[command(name = "dhow-load")]
struct Command {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Send requests and print what came of them as JSON.
    Load {
        /// What to send, as JSON.
        spec: String,
    },
    /// Answer every request with the same bytes until killed.
    Upstream(upstream::UpstreamArgs),
}

fn main() -> ExitCode {
    match act(Command::parse().role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhow-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(role: Role) -> Result<()> {
    match role {
        Role::Load { spec } => {
            let spec: Spec = serde_json::from_str(&spec)?;
            println!("{}", serde_json::to_string(&send(&spec)?)?);
        }
        Role::Upstream(args) => upstream::serve(&args)?,
    }
    Ok(())
}
