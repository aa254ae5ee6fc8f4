//! The command line of `dhow`: one file per command, which reads flags and prints results; it must not know how a command does its work, nor what
//! the proxy and the control plane are made of.

mod apply;
mod delete;
mod manifest_source;
mod running_mesh;
mod up;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dhow_up::Validate;

/// A program that is part of this one; it gets the arguments after its name.
pub type Program = fn(Vec<OsString>) -> ExitCode;

/// What the commands need from other parts of the product.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The proxy.
    pub proxy: Program,
    /// The control plane; its arguments begin with its own command, such as `discovery`.
    pub control_plane: Program,
    /// Sample applications by name.
    pub samples: &'static [(&'static str, Program)],
    /// Says whether the control plane accepts an object.
    pub validate: Validate,
}

/// Service mesh with an Envoy-compatible proxy and an Istio-compatible control plane.
#[derive(Debug, Parser)]
#[command(name = "dhow", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Apply(apply::Args),
    Delete(delete::Args),
    Version(version::Args),
    /// Experimental commands: try out and check configuration without a running mesh.
    #[command(name = "x", visible_alias = "experimental", subcommand)]
    Experimental(Experimental),
    /// Run the proxy, with Envoy's flags.
    #[command(disable_help_flag = true)]
    Proxy(Rest),
    /// Run the control plane, with the flags of `dhowd discovery`.
    #[command(disable_help_flag = true)]
    Discovery(Rest),
    /// Print the configuration that a proxy would get, with the flags of `dhowd xds-dump`.
    #[command(disable_help_flag = true)]
    XdsDump(Rest),
    /// Run a sample application: `dhow sample bookinfo ROLE`.
    #[command(disable_help_flag = true)]
    Sample(Rest),
    /// Run a command that ends when the `dhow up` that started it ends.
    #[command(hide = true, disable_help_flag = true)]
    Exec(Rest),
    /// Wait for the end of the input, then end a mesh's processes and remove its folder.
    #[command(hide = true)]
    Sweep {
        mesh: OsString,
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Experimental {
    RouteCheck(dhow_route_check::Args),
}

/// Arguments that are somebody else's.
#[derive(Debug, clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Runs the command in `arguments`, the first of which is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>, parts: &Parts) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match cli.command {
        Command::Up(args) => up::run(args, parts.validate),
        Command::Apply(args) => apply::run(&args, parts.validate),
        Command::Delete(args) => delete::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Experimental(Experimental::RouteCheck(args)) => return dhow_route_check::run(&args),
        Command::Proxy(rest) => return (parts.proxy)(rest.arguments),
        Command::Discovery(rest) => return control_plane(parts, "discovery", rest),
        Command::XdsDump(rest) => return control_plane(parts, "xds-dump", rest),
        Command::Sample(rest) => return sample(parts, rest.arguments),
        Command::Exec(rest) => return dhow_up::exec(rest.arguments),
        Command::Sweep { mesh, folder } => return dhow_up::sweep_main(&mesh, &folder),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn control_plane(parts: &Parts, command: &str, rest: Rest) -> ExitCode {
    (parts.control_plane)(std::iter::once(OsString::from(command)).chain(rest.arguments).collect())
}

fn sample(parts: &Parts, mut arguments: Vec<OsString>) -> ExitCode {
    let name = if arguments.is_empty() { OsString::new() } else { arguments.remove(0) };
    match parts.samples.iter().find(|(known, _)| name == *known) {
        Some((_, program)) => program(arguments),
        None => {
            let known: Vec<_> = parts.samples.iter().map(|(name, _)| *name).collect();
            eprintln!("Error: no sample is called {name:?}; there is: {}", known.join(", "));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Command {
        Cli::try_parse_from(line.split(' ')).unwrap().command
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_the_proxy_are_passed_on_untouched() {
        let Command::Proxy(rest) = parse("dhow proxy --help -c a.yaml --version -- x") else { panic!() };
        assert_eq!(rest.arguments, ["--help", "-c", "a.yaml", "--version", "--", "x"]);
        let Command::Experimental(Experimental::RouteCheck(args)) =
            parse("dhow x route-check -c a.yaml -t b.yaml --details --only-show-failures -f 50.5 --covall")
        else {
            panic!()
        };
        assert!(args.details && args.only_show_failures && args.covall && args.fail_under == 50.5);
        let Command::Exec(rest) = parse("dhow exec -- sleep 1") else { panic!() };
        assert_eq!(rest.arguments, ["sleep", "1"]);
    }
}
