//! The programs under measurement, their configurations, and the upstream behind them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use dhow_testkit::{ChildGuard, ChildSpec, HeldPort, TempDir, envoy, poll_until};
use serde_json::json;

use super::{Http1, START_LIMIT, WRAPPED_START_LIMIT, installed, own_program, pinned};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// `dhow-proxy`.
    Ours,
    /// The real Envoy.
    Envoy,
    /// HAProxy, where it is installed.
    Haproxy,
    /// nginx, where it is installed.
    Nginx,
}

impl Peer {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "dhow-proxy",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    fn find(self, ours: Option<&PathBuf>) -> Result<PathBuf> {
        match self {
            Self::Ours => ours.cloned().context("no binary"),
            Self::Envoy => Ok(envoy::locate()?.canonicalize()?),
            Self::Haproxy | Self::Nginx => installed(self.name()).ok_or_else(|| anyhow!("not installed")),
        }
    }

    fn config(self, dir: &Path, port: u16, upstream: u16) -> String {
        match self {
            Self::Ours | Self::Envoy => bootstrap(port, upstream).to_string(),
            Self::Haproxy => format!(
                "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  \
                 timeout server 60s\n  option http-keep-alive\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:{port}\n  \
                 default_backend b\nbackend b\n  server s 127.0.0.1:{upstream}\n"
            ),
            Self::Nginx => {
                let proxy = format!(
                    "upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}\n\
                     server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; proxy_http_version 1.1; \
                     proxy_set_header Connection \"\"; }} }}\n"
                );
                nginx_config(dir, "proxy", &proxy)
            }
        }
    }

    fn args(self, config: &Path, dir: &Path) -> Vec<String> {
        let config = config.display().to_string();
        let words: Vec<&str> = match self {
            Self::Ours | Self::Envoy => {
                vec!["-c", &config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
            }
            Self::Haproxy => vec!["-db", "-f", &config],
            Self::Nginx => {
                return ["-p", &dir.display().to_string(), "-c", &config].map(str::to_owned).to_vec();
            }
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

fn bootstrap(port: u16, upstream: u16) -> serde_json::Value {
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let types = "type.googleapis.com/envoy.extensions.filters";
    let hcm = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "route_config": { "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
        }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": format!("{types}.http.router.v3.Router") },
        }],
    });
    json!({ "static_resources": {
        "listeners": [{
            "name": "bench", "address": address(port),
            "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": hcm }] }],
        }],
        "clusters": [{
            "name": "upstream", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": { "cluster_name": "upstream", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": address(upstream) } },
            ] }] },
        }],
    } })
}

fn nginx_config(dir: &Path, name: &str, http: &str) -> String {
    let dir = dir.display();
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {dir}/{name}-{kind};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {dir}/{name}.pid;\nerror_log {dir}/{name}.log crit;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n  access_log off;\n  keepalive_requests 100000000;\n{folders}\
         {http}}}\n"
    )
}

/// One proxy of a measurement.
pub struct Proxy {
    /// Which.
    pub peer: Peer,
    /// Where it listens.
    pub address: SocketAddr,
    binary: PathBuf,
    config: PathBuf,
    _port: HeldPort,
    child: Option<ChildGuard>,
}

impl Proxy {
    /// The process and its children.
    pub fn pids(&self) -> Vec<u32> {
        self.child.as_ref().map(|child| super::accounting::family(child.id())).unwrap_or_default()
    }
}

/// The running programs of a measurement.
pub struct Lab {
    dir: TempDir,
    proxies: Vec<Proxy>,
    notes: Vec<String>,
    _upstream: ChildGuard,
}

impl Lab {
    /// Starts the upstream and every peer that can be had.
    pub fn start(options: &Http1, ours: Option<PathBuf>) -> Result<Self> {
        let dir = TempDir::new("bench")?;
        let upstream_port = HeldPort::new()?;
        let mut notes = Vec::new();
        let mut upstream = start_upstream(&dir, upstream_port.port(), options.body, &mut notes)?;
        upstream.wait_listening(upstream_port.address(), START_LIMIT).map_err(|e| anyhow!("upstream {e}"))?;
        let mut lab = Self { dir, proxies: Vec::new(), notes, _upstream: upstream };
        for peer in &options.peers {
            match peer.find(ours.as_ref()) {
                Ok(binary) => {
                    let proxy = lab.prepare(*peer, binary, upstream_port.port())?;
                    lab.proxies.push(proxy);
                }
                Err(error) => lab.notes.push(format!("{} is left out: {error}", peer.name())),
            }
        }
        ensure!(!lab.proxies.is_empty(), "nothing to measure: {}", lab.notes.join("; "));
        for index in 0..lab.proxies.len() {
            let child = lab.launch(&lab.proxies[index], &[])?;
            lab.proxies[index].child = Some(child);
        }
        Ok(lab)
    }

    fn prepare(&self, peer: Peer, binary: PathBuf, upstream: u16) -> Result<Proxy> {
        let port = HeldPort::new()?;
        let text = peer.config(self.dir.path(), port.port(), upstream);
        let extension = if matches!(peer, Peer::Ours | Peer::Envoy) { "json" } else { "conf" };
        let config = self.dir.write(&format!("{}.{extension}", peer.name()), text)?;
        Ok(Proxy { peer, address: port.address(), binary, config, _port: port, child: None })
    }

    /// Starts a proxy, under a wrapping command such as valgrind if one is given, and waits for its first good answer.
    pub fn launch(&self, proxy: &Proxy, wrapper: &[String]) -> Result<ChildGuard> {
        let (child, _) = self.launch_timed(proxy, wrapper)?;
        Ok(child)
    }

    /// [`Lab::launch`], and how long it took from the start of the process to the end of the first answer.
    pub fn launch_timed(&self, proxy: &Proxy, wrapper: &[String]) -> Result<(ChildGuard, Duration)> {
        let args = proxy.peer.args(&proxy.config, self.dir.path());
        let (program, args) = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut line = rest.to_vec();
                line.push(proxy.binary.display().to_string());
                line.extend(args);
                (PathBuf::from(first), line)
            }
            None => {
                let (program, mut line) = pinned(0, &proxy.binary);
                line.extend(args);
                (program, line)
            }
        };
        let log = self.dir.path().join(format!("{}.log", proxy.peer.name()));
        let start = std::time::Instant::now();
        let mut child = ChildSpec::new(program, log).args(args).current_dir(self.dir.path()).spawn()?;
        let limit = if wrapper.is_empty() { START_LIMIT } else { WRAPPED_START_LIMIT };
        let served = poll_until(limit, || match child.exited() {
            Some(status) => Some(Err(status)),
            None => get(proxy.address).ok().map(Ok),
        });
        match served {
            Ok(Ok(())) => Ok((child, start.elapsed())),
            Ok(Err(status)) => Err(anyhow!("{} ended with {status}:\n{}", proxy.peer.name(), child.log())),
            Err(error) => Err(anyhow!("{} does not serve: {error}:\n{}", proxy.peer.name(), child.log())),
        }
    }

    /// The proxies.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// What a reader of the results has to know.
    pub fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// The folder of the measurement.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends all proxies; the upstream stays.
    pub fn stop(&mut self) {
        for proxy in &mut self.proxies {
            proxy.child = None;
        }
    }
}

/// One request on a connection of its own; fails unless the answer is 200.
fn get(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /bench HTTP/1.1\r\nhost: bench.test\r\nconnection: close\r\n\r\n")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    ensure!(start == *b"HTTP/1.1 200", "answered {:?}", String::from_utf8_lossy(&start));
    // The rest is read so that the proxy does not see a reset.
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn start_upstream(dir: &TempDir, port: u16, body: usize, notes: &mut Vec<String>) -> Result<ChildGuard> {
    let log = dir.path().join("upstream.log");
    if let Some(nginx) = installed("nginx") {
        let answer = format!(
            "server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain; return 200 \"{}\"; }} }}\n",
            "x".repeat(body)
        );
        let config = dir.write("upstream.conf", nginx_config(dir.path(), "upstream", &answer))?;
        let (program, mut args) = pinned(1, &nginx);
        args.extend(Peer::Nginx.args(&config, dir.path()));
        return Ok(ChildSpec::new(program, log).args(args).spawn()?);
    }
    notes.push("nginx is not installed: the upstream is our own".to_owned());
    let (program, mut args) = pinned(1, &own_program());
    args.extend(["bench", "upstream"].map(str::to_owned));
    args.extend(["--port".to_owned(), port.to_string(), "--body".to_owned(), body.to_string()]);
    Ok(ChildSpec::new(program, log).args(args).spawn()?)
}
