//! `dhow-proxy`: the data plane, with Envoy's command line.

use std::process::ExitCode;

// Gives memory back to the system after peaks, which matters for a process that runs beside every workload.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    dhow_proxy_server::main(std::env::args_os().skip(1).collect())
}
