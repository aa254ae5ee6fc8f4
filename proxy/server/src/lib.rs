//! The proxy process: command line, bootstrap, xDS subscriptions, lifecycle. It must not know how requests are served.

mod admin_listener;
mod admin_state;
mod bootstrap;
mod cli;
mod config_dump;
mod configuration;
mod deprecation;
mod endpoint_stats;
mod lifecycle;
mod load;
mod log_pattern;
mod logging;
mod network_filters;
mod node_address;
mod overload;
mod route_tables;
mod runtime;
mod secrets;
mod server_stats;
mod stats_config;
mod stats_sink;
mod subscription_stats;
mod subscriptions;
mod watchdog;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the proxy with the arguments that follow the program's name, until it is told to end.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match cli::parse(arguments) {
        Ok(options) => lifecycle::run(options),
        Err(exit) => exit,
    }
}
