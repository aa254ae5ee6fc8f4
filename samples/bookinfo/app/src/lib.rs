//! The Bookinfo sample application, one small binary that plays any of its four services; it must not know about
//! proxies, configuration or deployment, beyond the `HTTP_PROXY` that any HTTP client honours.

mod args;
mod client;
mod details;
mod form;
mod forward;
mod page;
mod productpage;
mod ratings;
mod reviews;
mod server;
mod settings;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

pub use args::{Args, Role, Version};

/// Runs one service until it is told to stop. `args` are the arguments after the program's name.
///
/// Exit code 0 after SIGTERM or SIGINT or when help was asked for, 1 when the service cannot start, 2 when the arguments are wrong.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args = match Args::parse_after_name(args) {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match server::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookinfo {}: {error}", args.role.name());
            ExitCode::FAILURE
        }
    }
}
