//! `dhow-proxy`: the data plane, with Envoy's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_proxy_server::main(std::env::args_os().skip(1).collect())
}
