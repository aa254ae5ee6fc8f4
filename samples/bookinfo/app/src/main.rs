//! The `bookinfo` binary: wiring only.

use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_bookinfo::main(std::env::args_os().skip(1).collect())
}
