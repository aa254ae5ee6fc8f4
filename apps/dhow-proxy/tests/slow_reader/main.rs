//! A receiver that does not read a body of many megabytes, be it the client or the upstream, costs the proxy no more
//! memory than its buffer limits say.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod peer;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dhow_testkit::{ChildGuard, ChildSpec, HeldPort, TempDir, poll_until};
use serde_json::{Value, json};

use peer::{Peer, Wire};

/// What is sent; without back-pressure the proxy would hold most of it.
const BODY: u64 = 96 << 20;

/// `per_connection_buffer_limit_bytes` of both sides, and the windows that the proxy opens.
const BUFFER_LIMIT: u64 = 64 << 10;

/// By how much the proxy may grow over all: its buffers, and what the first request of each kind costs beside.
const ALLOWANCE_KIB: u64 = 12 << 10;

const LIMIT: Duration = Duration::from_secs(60);

/// For how long nothing moves before that counts as standing still.
const STILL: Duration = Duration::from_millis(500);

/// Who does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    Client,
    Upstream,
}

/// One exchange, over a cluster of its own.
struct Case {
    client: Wire,
    upstream: Wire,
    slow: Slow,
    name: String,
    port: u16,
    /// Bytes of the body that its sender got rid of.
    moved: Arc<AtomicU64>,
    server: Option<JoinHandle<std::io::Result<()>>>,
    /// Lets an upstream that does not read go on.
    release: Sender<()>,
}

impl Case {
    fn new(client: Wire, upstream: Wire, slow: Slow) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let moved = Arc::new(AtomicU64::new(0));
        let (release, released) = channel();
        let counted = moved.clone();
        let server = thread::spawn(move || serve(&listener, upstream, slow, &counted, &released));
        let name = format!("{client:?}-{upstream:?}-{slow:?}").to_lowercase();
        Self { client, upstream, slow, name, port, moved, server: Some(server), release }
    }

    /// What counts that the sender is not read any more.
    fn paused(&self) -> String {
        match self.slow {
            Slow::Client => format!("cluster.{}.upstream_flow_control_paused_reading_total", self.name),
            Slow::Upstream => "http.test.downstream_flow_control_paused_reading_total".to_owned(),
        }
    }
}

/// An upstream that answers one connection.
fn serve(
    listener: &TcpListener,
    wire: Wire,
    slow: Slow,
    moved: &AtomicU64,
    released: &Receiver<()>,
) -> std::io::Result<()> {
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut peer = Peer::upstream(stream, wire)?;
    match slow {
        Slow::Client => {
            peer.respond(BODY)?;
            peer.send(BODY, moved)
        }
        Slow::Upstream => {
            released.recv().map_err(|_| std::io::ErrorKind::TimedOut)?;
            peer.take(BODY)
        }
    }
}

#[test]
fn a_slow_reader_bounds_the_memory_of_the_proxy() {
    let dir = TempDir::new("slow-reader").unwrap();
    let [admin, http] = [(); 2].map(|()| HeldPort::new().unwrap());
    let wires = [Wire::Http1, Wire::Http2];
    let mut cases = Vec::new();
    for slow in [Slow::Client, Slow::Upstream] {
        for client in wires {
            cases.extend(wires.map(|upstream| Case::new(client, upstream, slow)));
        }
    }
    let config = bootstrap(admin.port(), http.port(), &cases).to_string();
    let config = dir.write("bootstrap.json", config).unwrap();
    let (admin, address) = (admin.address(), http.address());
    let args = ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"];
    let spec =
        ChildSpec::new(env!("CARGO_BIN_EXE_dhow-proxy"), dir.path().join("log")).args(args).arg(config);
    let mut proxy = spec.spawn().unwrap();
    proxy.wait_listening(address, LIMIT).unwrap();
    // A first answer, so that what the proxy needs only to start is not counted.
    count(admin, "server.live");
    let before = resident_kib(&proxy);
    println!("{before} KiB at rest");
    for case in &mut cases {
        exchange(case, address, admin, &proxy, before);
    }
}

fn exchange(case: &mut Case, address: SocketAddr, admin: SocketAddr, proxy: &ChildGuard, before: u64) {
    let name = &case.name;
    let grown = || resident_kib(proxy).saturating_sub(before);
    let earlier = count(admin, &case.paused());
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = (case.slow == Slow::Upstream).then_some(BODY);
    let mut client = Peer::client(stream, case.client, &format!("/{name}"), length).unwrap();
    let (mut reading, mut sending) = (None, None);
    match case.slow {
        Slow::Client => reading = Some(client),
        Slow::Upstream => {
            let moved = case.moved.clone();
            sending = Some(thread::spawn(move || client.send(BODY, &moved).map(|()| client)));
        }
    }

    poll_until(LIMIT, || (count(admin, &case.paused()) > earlier).then_some(()))
        .unwrap_or_else(|_| panic!("{name}: the sender is read on and on"));
    let sent = stand_still(&case.moved).unwrap_or_else(|| panic!("{name}: the sender does not stop"));
    println!("{name}: stopped after {sent} bytes, {} KiB more", grown());
    assert!(sent < BODY / 2, "{name}: {sent} bytes were taken from the sender");
    assert!(grown() < ALLOWANCE_KIB, "{name}: {} KiB more for a receiver that does not read", grown());

    if let Some(client) = &mut reading {
        client.read_response_head().unwrap();
        client.take(BODY).unwrap();
    }
    // The connection of a client that sends stays open until the upstream has everything.
    let _client = sending.map(|sending| {
        case.release.send(()).unwrap();
        sending.join().unwrap().unwrap()
    });
    case.server.take().unwrap().join().unwrap().unwrap();
    println!("{name}: through, {} KiB more", grown());
    assert!(grown() < ALLOWANCE_KIB, "{name}: {} KiB more after a large body", grown());
}

/// Waits until the number does not change for a while.
fn stand_still(moved: &AtomicU64) -> Option<u64> {
    let (mut last, mut since) = (u64::MAX, Instant::now());
    poll_until(LIMIT, || {
        let now = moved.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > STILL).then_some(now)
    })
    .ok()
}

fn resident_kib(proxy: &ChildGuard) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The value of a statistic.
fn count(admin: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET /stats?filter=^{name}$ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

fn bootstrap(admin: u16, http: u16, cases: &[Case]) -> Value {
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let types = "type.googleapis.com/envoy.extensions";
    let windows = json!({
        "initial_stream_window_size": BUFFER_LIMIT, "initial_connection_window_size": BUFFER_LIMIT,
    });
    let clusters = cases.iter().map(|case| {
        let protocol = match case.upstream {
            Wire::Http1 => json!({ "http_protocol_options": {} }),
            Wire::Http2 => json!({ "http2_protocol_options": windows }),
        };
        json!({
            "name": case.name,
            "per_connection_buffer_limit_bytes": BUFFER_LIMIT,
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{types}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": protocol,
            } },
            "load_assignment": { "cluster_name": case.name, "endpoints": [{ "lb_endpoints": [{
                "endpoint": { "address": address(case.port) },
            }] }] },
        })
    });
    let routes = cases.iter().map(|case| {
        let path = format!("/{}", case.name);
        json!({ "match": { "path": path }, "route": { "cluster": case.name, "timeout": "0s" } })
    });
    json!({
        "admin": { "address": address(admin) },
        "static_resources": {
            "listeners": [{
                "address": address(http),
                "per_connection_buffer_limit_bytes": BUFFER_LIMIT,
                // SO_SNDBUF: what the kernel holds is not what is looked at here.
                "socket_options": [{ "level": 1, "name": 7, "int_value": 65536, "state": "STATE_PREBIND" }],
                "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": {
                    "@type": format!("{types}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "test",
                    "http2_protocol_options": windows,
                    "route_config": { "virtual_hosts": [{
                        "name": "all", "domains": ["*"], "routes": routes.collect::<Vec<_>>(),
                    }] },
                    "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
                        "@type": format!("{types}.filters.http.router.v3.Router"),
                    } }],
                } }] }],
            }],
            "clusters": clusters.collect::<Vec<_>>(),
        },
    })
}
