//! The running programs of one row: the upstream, and every peer that can be had.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use dhow_load::{Pass, Spec};
use dhow_testkit::certs::TestCa;
use dhow_testkit::{ChildGuard, ChildSpec, HeldPort, TempDir, poll_until};

use super::config::{self, Setting, TlsFiles};
use super::job::{Arrival, Http, Job};
use super::load::Tools;
use super::peer::Peer;
use super::{Options, Programs, START_LIMIT, WRAPPED_START_LIMIT, chain, pinned, upstream};

/// How long a proxy may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

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
    job: Job,
    dir: TempDir,
    tls: Option<TlsFiles>,
    load: Tools,
    proxies: Vec<Proxy>,
    notes: Vec<String>,
    _upstream: ChildGuard,
    _upstream_port: HeldPort,
}

impl Lab {
    /// Starts the upstream and every peer of `job` that can be had.
    pub fn start(job: &Job, options: &Options, programs: &Programs) -> Result<Self> {
        let dir = TempDir::new("bench")?;
        let tls = job.tls.map(|_| certificates(&dir)).transpose()?;
        let upstream_port = HeldPort::new()?;
        let port = upstream_port.port();
        let mut notes = Vec::new();
        let mut upstream = upstream::start(&dir, port, job.server, options.body, programs, &mut notes)?;
        upstream.wait_listening(upstream_port.address(), START_LIMIT).map_err(|e| anyhow!("upstream {e}"))?;
        let mut lab = Self {
            job: job.clone(),
            dir,
            tls,
            load: Tools { own: programs.load.clone() },
            proxies: Vec::new(),
            notes,
            _upstream: upstream,
            _upstream_port: upstream_port,
        };
        let filters = lab.filters(programs)?;
        for peer in job.peers.iter().filter(|peer| options.peers.contains(peer)) {
            match peer.find(programs) {
                Ok(binary) => {
                    let proxy = lab.prepare(*peer, binary, port, &filters)?;
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

    /// The filters of the chain that ours has; those that it lacks are left out for everybody and named in the notes.
    fn filters(&mut self, programs: &Programs) -> Result<Vec<&'static str>> {
        if !self.job.chain {
            return Ok(Vec::new());
        }
        let Some(ours) = &programs.ours else { return Ok(chain::FILTERS.to_vec()) };
        let known = chain::known_to(ours)?;
        let missing: Vec<&str> = chain::FILTERS.iter().copied().filter(|f| !known.contains(f)).collect();
        if !missing.is_empty() {
            self.notes
                .push(format!("left out of every chain because ours refuses it: {}", missing.join(", ")));
        }
        Ok(known)
    }

    fn prepare(&self, peer: Peer, binary: PathBuf, upstream: u16, filters: &[&'static str]) -> Result<Proxy> {
        let port = HeldPort::new()?;
        let setting =
            Setting { port: port.port(), upstream, tls: self.tls.as_ref(), filters, dir: self.dir.path() };
        let extension = if peer.takes_bootstrap() { "json" } else { "conf" };
        let file = format!("{}.{extension}", peer.name());
        let config = self.dir.write(&file, config::text(peer, &self.job, &setting))?;
        Ok(Proxy { peer, address: port.address(), binary, config, _port: port, child: None })
    }

    /// Starts a proxy, under a wrapping command such as valgrind if one is given, and waits for its first good answer.
    pub fn launch(&self, proxy: &Proxy, wrapper: &[String]) -> Result<ChildGuard> {
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
        let child = ChildSpec::new(program, log).args(args).current_dir(self.dir.path()).spawn()?;
        let limit = if wrapper.is_empty() { START_LIMIT } else { WRAPPED_START_LIMIT };
        let one = Spec { requests: 1, connections: 1, streams: 1, ..self.spec(proxy, 1) };
        serving(child, limit, proxy.peer, || {
            match self.job.tls.is_none() && self.job.downstream == Http::One {
                true => get(proxy.address),
                false => dhow_load::send(&one).and_then(|pass| {
                    ensure!(pass.requests == 1, "no good answer");
                    Ok(())
                }),
            }
        })
    }

    /// The load of this row on `proxy`, without a limit; `connections` in total, as streams where that is the row's way.
    pub fn spec(&self, proxy: &Proxy, connections: usize) -> Spec {
        // Eight streams on each connection, so that as many requests are under way as in the other rows.
        let streams = if self.job.downstream == Http::Two { 8 } else { 1 };
        Spec {
            port: proxy.address.port(),
            connections: connections.div_ceil(streams),
            streams,
            http2: self.job.downstream == Http::Two,
            per_connection: self.job.arrival == Arrival::Connections,
            ca: self.tls.as_ref().map(|tls| tls.ca.clone()),
            key_exchange: self.job.tls,
            ..Spec::default()
        }
    }

    /// Sends load from core 1.
    pub fn send(&self, spec: &Spec) -> Result<Pass> {
        self.load.run(spec)
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

    /// Ends all proxies, which may do what they do at their end; the upstream stays.
    pub fn stop(&mut self) {
        for mut child in self.proxies.iter_mut().filter_map(|proxy| proxy.child.take()) {
            // One that does not end in time is killed with its guard.
            let _ = child.terminate(END_LIMIT);
        }
    }
}

fn certificates(dir: &TempDir) -> Result<TlsFiles> {
    let ca = TestCa::new("bench CA")?;
    let server = ca.issue("server", &["localhost"])?;
    let (cert, key) = server.write(dir, "server")?;
    let both = dir.write("both.pem", format!("{}{}", server.cert_pem, server.key_pem))?;
    let ca = dir.write("ca.pem", &ca.cert_pem)?;
    Ok(TlsFiles { cert, key, both, ca })
}

/// Waits until `answers` succeeds, and explains why it never will.
pub fn serving(
    mut child: ChildGuard,
    limit: Duration,
    peer: Peer,
    answers: impl Fn() -> Result<()>,
) -> Result<ChildGuard> {
    let start = Instant::now();
    let served = poll_until(limit, || match child.exited() {
        Some(status) => Some(Err(anyhow!("ended with {status}"))),
        None => match answers() {
            Ok(()) => Some(Ok(())),
            Err(error) if start.elapsed() > limit => Some(Err(error)),
            Err(_) => None,
        },
    });
    match served {
        Ok(Ok(())) => Ok(child),
        Ok(Err(error)) => Err(anyhow!("{} does not serve: {error}:\n{}", peer.name(), child.log())),
        Err(error) => Err(anyhow!("{} does not serve: {error}:\n{}", peer.name(), child.log())),
    }
}

/// One request on a connection of its own; fails unless the answer is 200.
pub fn get(address: SocketAddr) -> Result<()> {
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
