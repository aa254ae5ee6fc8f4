//! User instructions per request: the difference of two runs under callgrind, so that starting up cancels out.

use std::time::Duration;

use anyhow::{Context, Result};

use super::installed;
use super::load::{LoadArgs, own};
use super::peers::{Lab, Proxy};
use super::rounds::Results;

/// Requests of the two runs.
const FEW: u64 = 400;
const MANY: u64 = 2400;

/// Measures every proxy; does nothing where valgrind is not installed.
pub fn measure(lab: &Lab, results: &mut Results) -> Result<()> {
    let Some(valgrind) = installed("valgrind") else {
        eprintln!("valgrind is not installed: no instructions");
        return Ok(());
    };
    for (proxy, figures) in lab.proxies().iter().zip(&mut results.figures) {
        eprintln!("counting instructions of {}", proxy.peer.name());
        let few = count(lab, proxy, &valgrind, FEW).context("short run")?;
        let many = count(lab, proxy, &valgrind, MANY).context("long run")?;
        figures.instructions = Some((many - few) / (MANY - FEW) as f64);
    }
    Ok(())
}

fn count(lab: &Lab, proxy: &Proxy, valgrind: &std::path::Path, requests: u64) -> Result<f64> {
    let out = lab.dir().join(format!("{}-{requests}.callgrind", proxy.peer.name()));
    let wrapper = [
        valgrind.display().to_string(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
    ];
    let mut child = lab.launch(proxy, &wrapper)?;
    let load = LoadArgs { port: proxy.address.port(), connections: 16, millis: 0, requests, rate: 0 };
    own(&load)?;
    child.terminate(Duration::from_secs(60)).context("does not end under valgrind")?;
    let text = std::fs::read_to_string(&out).with_context(|| format!("no {}", out.display()))?;
    let totals =
        text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    Ok(totals.context("no totals")?.split(' ').next().unwrap_or_default().parse()?)
}
