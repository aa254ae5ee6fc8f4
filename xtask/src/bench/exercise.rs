//! A little of every kind of work, so that a program can be optimised for it.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use super::job::{Arrival, Job, RowName, Server};
use super::lab::Lab;
use super::{Options, Programs};
use crate::build::installed;
use dhow_load::Spec;

/// The options of a run, as a command line of their own.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// Sends the load of every row through `ours`, which is ended after each so that it can leave what it has counted.
///
/// # Errors
/// When a row cannot be served. Rows whose programs are not installed are left out and named.
pub fn exercise(ours: &Path, load: &Path) -> Result<()> {
    let options = Line::try_parse_from(["bench", "all", "--peers", "ours"])?.options;
    let programs = Programs { ours: Some(ours.to_owned()), load: load.to_owned() };
    for job in RowName::value_variants().iter().filter_map(|row| row.job()) {
        if job.arrival == Arrival::FixedRate || job.server == Server::NginxHttp2 {
            // The same requests as those of another row.
            continue;
        }
        if job.server == Server::Nghttpd && installed("nghttpd").or_else(|| installed("nginx")).is_none() {
            eprintln!("{} is left out: neither nghttpd nor nginx is installed", job.name);
            continue;
        }
        eprintln!("counting {}", job.name);
        let mut lab = Lab::start(&job, &options, &programs).with_context(|| format!("row {}", job.name))?;
        for proxy in lab.proxies() {
            let spec = Spec { requests: requests(&job), ..lab.spec(proxy, options.connections) };
            lab.send(&spec)?;
        }
        lab.stop();
    }
    Ok(())
}

/// How many requests are sent. A handshake counts as much as hundreds of requests, and would hide what is usual for them.
fn requests(job: &Job) -> u64 {
    match (job.arrival, job.tls.is_some()) {
        (Arrival::Connections, true) => 200,
        (Arrival::Connections, false) => 20_000,
        _ => 60_000,
    }
}
