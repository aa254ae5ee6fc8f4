//! Resident memory: of an idle process, of idle connections, and with a large configuration.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::accounting::{family, resident_kib};
use super::job::RowName;
use super::lab::{Lab, Proxy};
use super::large::Large;
use super::peer::Peer;
use super::report::{Section, Verdict};
use super::{Options, Programs};

/// Targets: an idle process in KiB, a connection in KiB, a large configuration as a share of Envoy's.
const IDLE_KIB: f64 = 12.0 * 1024.0;
const CONNECTION_KIB: f64 = 2.0;
const LARGE_OF_ENVOY: f64 = 0.10;

/// How long a process's memory has to be the same to count as at rest, and how long that is waited for.
const STANDING_STILL: Duration = Duration::from_secs(2);
const REST_LIMIT: Duration = Duration::from_secs(20);

/// KiB of one proxy.
struct Memory {
    peer: Peer,
    /// Before anything but one request.
    idle: u64,
    /// With the two numbers of idle connections open.
    connections: [u64; 2],
    /// With a large configuration, where it takes Envoy's.
    large: Option<u64>,
}

impl Memory {
    /// KiB for each connection of the second kind, from the first on.
    fn per_connection(&self, counts: [usize; 2]) -> f64 {
        let grown = self.connections[1] as f64 - self.connections[0] as f64;
        grown / (counts[1] - counts[0]) as f64
    }
}

/// Measures every peer but nginx, whose workers have a fixed number of connections.
pub fn measure(options: &Options, programs: &Programs) -> Result<Section> {
    let mut job = RowName::Http1.job().context("the row exists")?;
    job.peers = &[Peer::Ours, Peer::Envoy, Peer::Haproxy];
    let counts = options.idle_connections();
    let lab = Lab::start(&job, options, programs)?;
    let mut rows = Vec::new();
    for proxy in lab.proxies() {
        rows.push(connections(proxy, counts)?);
    }
    let mut notes = lab.notes();
    drop(lab);
    let large = Large::new(options.resources, programs)?;
    for row in rows.iter_mut().filter(|row| row.peer.takes_bootstrap()) {
        match row.peer.find(programs) {
            Ok(binary) => {
                let (child, _) = large.launch(row.peer, &binary)?;
                row.large = Some(at_rest(child.id()));
            }
            Err(error) => notes.push(format!("{} is left out: {error}", row.peer.name())),
        }
    }
    Ok(section(&rows, counts, options.resources, notes))
}

/// Resident memory once it stands still: what building the tables needed is given back some time after the first answer.
fn at_rest(pid: u32) -> u64 {
    let start = Instant::now();
    let mut last = resident_kib(&family(pid));
    let mut since = start;
    while since.elapsed() < STANDING_STILL && start.elapsed() < REST_LIMIT {
        std::thread::sleep(Duration::from_millis(100));
        let now = resident_kib(&family(pid));
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

fn connections(proxy: &Proxy, counts: [usize; 2]) -> Result<Memory> {
    let pids = proxy.pids();
    let idle = resident_kib(&pids);
    let mut open = Vec::with_capacity(counts[1]);
    let mut resident = [0; 2];
    for (resident, count) in resident.iter_mut().zip(counts) {
        while open.len() < count {
            let stream = served(proxy.address);
            open.push(stream.with_context(|| format!("connection {} to {}", open.len(), proxy.peer.name()))?);
        }
        *resident = resident_kib(&pids);
    }
    eprintln!(
        "memory {:<10} {idle} KiB idle, {resident:?} KiB with {counts:?} connections",
        proxy.peer.name()
    );
    Ok(Memory { peer: proxy.peer, idle, connections: resident, large: None })
}

/// A connection that has had one request answered.
fn served(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /bench HTTP/1.1\r\nhost: bench.test\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "closed after {} bytes", answer.len());
        answer.extend_from_slice(&piece[..read]);
        let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        ensure!(text.starts_with("http/1.1 200"), "answered {text}");
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length:")).context("no length")?;
        if answer.len() >= head + 4 + length.trim().parse::<usize>()? {
            return Ok(stream);
        }
    }
}

fn section(rows: &[Memory], counts: [usize; 2], size: usize, notes: Vec<String>) -> Section {
    let mut table = format!(
        "| proxy | idle KiB | with {} connections KiB | with {} KiB | KiB per connection | {size} clusters and routes KiB |\n\
         |---|---|---|---|---|---|\n",
        counts[0], counts[1]
    );
    for row in rows {
        table.push_str(&format!(
            "| {} | {} | {} | {} | {:.1} | {} |\n",
            row.peer.name(),
            row.idle,
            row.connections[0],
            row.connections[1],
            row.per_connection(counts),
            row.large.map_or_else(|| "-".to_owned(), |kib| kib.to_string()),
        ));
    }
    let of = |peer: Peer| rows.iter().find(|row| row.peer == peer);
    let ours = of(Peer::Ours);
    let large = |peer: Peer| of(peer).and_then(|row| row.large).map(|kib| kib as f64);
    let ratio = large(Peer::Ours).zip(large(Peer::Envoy)).map(|(ours, envoy)| ours / envoy);
    Section {
        name: "memory",
        about: format!(
            "resident memory: idle, per idle HTTP/1.1 connection, {size} clusters and {size} routes"
        ),
        table,
        verdicts: vec![
            Verdict::of("memory", "idle process, KiB", IDLE_KIB, ours.map(|row| row.idle as f64), false),
            Verdict::of(
                "memory",
                "idle HTTP/1.1 connection, KiB",
                CONNECTION_KIB,
                ours.map(|row| row.per_connection(counts)),
                false,
            ),
            Verdict::of("memory", "large configuration, of Envoy's", LARGE_OF_ENVOY, ratio, false),
        ],
        notes,
        json: rows
            .iter()
            .map(|row| {
                json!({
                    "proxy": row.peer.name(), "idle_kib": row.idle, "connections_kib": row.connections,
                    "kib_per_connection": row.per_connection(counts), "large_kib": row.large,
                })
            })
            .collect(),
    }
}
