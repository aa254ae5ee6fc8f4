//! The `dhowd` binary: the control plane.

use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_control_server::main(std::env::args_os().skip(1).collect())
}
