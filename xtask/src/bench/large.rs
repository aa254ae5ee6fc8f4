//! A configuration as large as a big mesh gives to a sidecar: thousands of clusters, each with a virtual host of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use dhow_testkit::{ChildGuard, ChildSpec, HeldPort, TempDir};
use serde_json::{Value, json};

use super::job::Server;
use super::lab::{get, serving};
use super::peer::Peer;
use super::{Programs, START_LIMIT, config, pinned, upstream};

/// The upstream and the configuration.
pub struct Large {
    dir: TempDir,
    config: PathBuf,
    port: HeldPort,
    _upstream: ChildGuard,
    _upstream_port: HeldPort,
}

impl Large {
    /// Writes a configuration with `size` clusters and as many routes besides the one that answers.
    pub fn new(size: usize, programs: &Programs) -> Result<Self> {
        let dir = TempDir::new("bench-large")?;
        let (port, upstream_port) = (HeldPort::new()?, HeldPort::new()?);
        let mut upstream =
            upstream::start(&dir, upstream_port.port(), Server::Nginx, 16, programs, &mut Vec::new())?;
        upstream
            .wait_listening(upstream_port.address(), START_LIMIT)
            .map_err(|e| anyhow::anyhow!("upstream {e}"))?;
        let config =
            dir.write("large.json", bootstrap(size, port.port(), upstream_port.port()).to_string())?;
        Ok(Self { dir, config, port, _upstream: upstream, _upstream_port: upstream_port })
    }

    /// Starts `peer` and waits for its first good answer; how long that took.
    pub fn launch(&self, peer: Peer, binary: &Path) -> Result<(ChildGuard, Duration)> {
        let (program, mut args) = pinned(0, binary);
        args.extend(peer.args(&self.config, self.dir.path()));
        let log = self.dir.path().join(format!("{}.log", peer.name()));
        let start = Instant::now();
        let child = ChildSpec::new(program, log).args(args).current_dir(self.dir.path()).spawn()?;
        let child = serving(child, START_LIMIT, peer, || get(self.port.address()))?;
        Ok((child, start.elapsed()))
    }
}

fn bootstrap(size: usize, port: u16, upstream: u16) -> Value {
    let name = |number: usize| format!("outbound|8080||service-{number}.default.svc.cluster.local");
    let mut hosts: Vec<Value> = (0..size)
        .map(|number| {
            let host = format!("service-{number}.default.svc.cluster.local");
            json!({
                "name": format!("{host}:8080"),
                "domains": [host, format!("{host}:8080"), format!("service-{number}"), format!("service-{number}.default")],
                "routes": [{
                    "name": "default",
                    "match": { "prefix": "/" },
                    "route": { "cluster": name(number), "timeout": "0s", "retry_policy": {
                        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                        "num_retries": 2, "retriable_status_codes": [503],
                    } },
                }],
            })
        })
        .collect();
    hosts.push(config::everything());
    let mut clusters: Vec<Value> = (0..size).map(|number| config::cluster(&name(number), upstream)).collect();
    clusters.push(config::cluster("upstream", upstream));
    let manager = config::connection_manager(hosts.into(), Vec::new());
    let chain = json!({ "filters": [{ "name": "hcm", "typed_config": manager }] });
    config::static_resources(chain, port, clusters.into())
}
