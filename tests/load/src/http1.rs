//! The generator: closed loop or fixed rate, connections that stay or one per request, plain or TLS.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dhow_testkit::certs::{KeyExchange, handshake_config};
use dhow_testkit::client::{TlsOptions, over};
use dhow_testkit::stream::ByteStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::LocalSet;

use crate::{Pass, Spec, http2};

/// What the tasks of one pass share.
pub struct Shared {
    address: SocketAddr,
    tls: Option<TlsOptions>,
    per_connection: bool,
    left: Cell<u64>,
    end: Option<Instant>,
}

impl Shared {
    /// Whether another request may be sent; counts it if so.
    pub fn take(&self) -> bool {
        let left = self.left.get();
        if left == 0 || self.end.is_some_and(|end| Instant::now() >= end) {
            return false;
        }
        self.left.set(left - 1);
        true
    }

    /// Where to send.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to secure it.
    pub fn tls(&self) -> Option<&TlsOptions> {
        self.tls.as_ref()
    }

    async fn connect(&self) -> io::Result<Box<dyn ByteStream>> {
        let socket = TcpSocket::new_v4()?;
        if self.per_connection {
            // Ends with a reset, so that thousands of closed connections do not use up the local ports.
            socket.set_zero_linger()?;
        }
        Ok(over(socket.connect(self.address).await?, self.tls.as_ref()).await?.0)
    }
}

/// Sends everything that `spec` asks for.
pub async fn generate(spec: &Spec) -> Result<Pass> {
    let tls = match &spec.ca {
        Some(path) => {
            let ca = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let alpn: &[&str] = if spec.http2 { &["h2"] } else { &[] };
            let config = handshake_config(&ca, alpn, spec.key_exchange.unwrap_or(KeyExchange::Classic))?;
            Some(TlsOptions { config, server_name: "localhost".to_owned() })
        }
        None => None,
    };
    let start = Instant::now();
    let shared = Rc::new(Shared {
        address: ([127, 0, 0, 1], spec.port).into(),
        tls,
        per_connection: spec.per_connection,
        left: Cell::new(if spec.requests > 0 { spec.requests } else { u64::MAX }),
        end: (spec.millis > 0).then(|| start + Duration::from_millis(spec.millis)),
    });
    let local = LocalSet::new();
    let tasks: Vec<_> = (0..spec.connections)
        .map(|number| {
            let pace = (spec.rate > 0).then(|| Pace::new(spec, number, start));
            let shared = Rc::clone(&shared);
            let streams = spec.streams;
            match spec.http2 {
                true => local.spawn_local(http2::connection(shared, streams)),
                false => local.spawn_local(connection(shared, pace)),
            }
        })
        .collect();
    let mut errors = 0;
    let mut latencies = Vec::new();
    for task in tasks {
        match local.run_until(task).await {
            Ok((failed, more)) => {
                errors += failed;
                latencies.extend(more);
            }
            Err(_) => errors += 1,
        }
    }
    Ok(Pass::of(latencies, errors, start.elapsed().as_secs_f64()))
}

/// When the requests of one connection are due. Latency counts from then, so a stall is charged to every request it delays.
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    fn new(spec: &Spec, number: usize, start: Instant) -> Self {
        let interval = Duration::from_secs_f64(spec.connections as f64 / spec.rate as f64);
        Self { next: start + interval.mul_f64(number as f64 / spec.connections as f64), interval }
    }

    async fn due(&mut self) -> Instant {
        let due = self.next;
        tokio::time::sleep_until(due.into()).await;
        self.next += self.interval;
        due
    }
}

/// The requests of one connection, or of one connection after the other: errors and latencies in nanoseconds.
async fn connection(shared: Rc<Shared>, mut pace: Option<Pace>) -> (u64, Vec<u64>) {
    let mut latencies = Vec::new();
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut stream = None;
    while shared.take() {
        let sent = match &mut pace {
            Some(pace) => pace.due().await,
            None => Instant::now(),
        };
        let open = match stream.take() {
            Some(open) => open,
            None => match shared.connect().await {
                Ok(open) => open,
                Err(_) => return (1, latencies),
            },
        };
        let Some(open) = request(open, &mut buffer).await else { return (1, latencies) };
        latencies.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
        stream = (!shared.per_connection).then_some(open);
    }
    (0, latencies)
}

/// One request and its answer; the connection, if the answer is 200.
async fn request(mut stream: Box<dyn ByteStream>, buffer: &mut Vec<u8>) -> Option<Box<dyn ByteStream>> {
    stream.write_all(b"GET /bench HTTP/1.1\r\nhost: bench.test\r\n\r\n").await.ok()?;
    stream.flush().await.ok()?;
    (read_response(&mut stream, buffer).await? == 200).then_some(stream)
}

/// Reads one response with a content length; its status.
async fn read_response(stream: &mut Box<dyn ByteStream>, buffer: &mut Vec<u8>) -> Option<u16> {
    buffer.clear();
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let length: usize =
                head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
            while buffer.len() < end + 4 + length {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            return Some(status);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
