//! The load: `wrk` or `h2load` for a closed loop where they are installed and can do it, else our own generator, which is also
//! the one for a fixed rate, for a connection per request and for post-quantum key exchange.

mod h2load;
mod wrk;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dhow_load::{Pass, Spec};

use super::pinned;
use crate::build::installed;

/// The programs that a load may be sent with.
pub struct Tools {
    /// `dhow-load`.
    pub own: PathBuf,
}

impl Tools {
    /// Sends the load on core 1, in a process of its own, with the best tool that is there.
    pub fn run(&self, spec: &Spec) -> Result<Pass> {
        let loops = spec.rate == 0 && !spec.per_connection && spec.ca.is_none();
        if spec.http2
            && loops
            && let Some(program) = installed("h2load")
        {
            return h2load::run(&program, spec);
        }
        // A fixed number of requests is beyond wrk.
        if !spec.http2
            && loops
            && spec.requests == 0
            && let Some(program) = installed("wrk")
        {
            return wrk::run(&program, spec);
        }
        let (program, mut line) = pinned(1, &self.own);
        line.extend(["load".to_owned(), serde_json::to_string(spec)?]);
        let output = Command::new(program).args(line).output().context("load generator")?;
        ensure!(output.status.success(), "load generator: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
