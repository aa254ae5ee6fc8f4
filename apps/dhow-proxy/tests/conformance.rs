//! Runs every conformance scenario against this build and, where it can be had, the real Envoy.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_conformance::test_main(Path::new(env!("CARGO_BIN_EXE_dhow-proxy")))
}
