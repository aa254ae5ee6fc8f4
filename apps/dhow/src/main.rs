//! The `dhow` binary: every part of the product in one program, wired together.

mod validate;

use std::process::ExitCode;

use dhow_cli::Parts;

fn main() -> ExitCode {
    dhow_up::attach();
    let parts = Parts {
        proxy: dhow_proxy_server::main,
        control_plane: dhow_control_server::main,
        samples: &[("bookinfo", dhow_bookinfo::main)],
        validate: validate::validate,
    };
    dhow_cli::main(std::env::args_os(), &parts)
}
