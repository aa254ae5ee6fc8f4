//! The load: `wrk` for a closed loop where it is installed, else our own generator; always our own for a fixed rate or a fixed
//! number of requests.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{installed, own_program, pinned};

/// What one pass of load brought.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Pass {
    /// Requests answered with 200.
    pub requests: u64,
    /// Anything else: other statuses, broken connections.
    pub errors: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
}

/// Options of our own generator.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Port of 127.0.0.1.
    #[arg(long)]
    pub port: u16,
    /// Connections.
    #[arg(long)]
    pub connections: usize,
    /// Stop after this long.
    #[arg(long, default_value_t = 0)]
    pub millis: u64,
    /// Stop after this many requests instead.
    #[arg(long, default_value_t = 0)]
    pub requests: u64,
    /// Requests per second over all connections; 0 for as fast as the answers come.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
}

/// Runs our own generator on core 1 in a process of its own.
pub fn own(args: &LoadArgs) -> Result<Pass> {
    let (program, mut line) = pinned(1, &own_program());
    line.extend(["bench".into(), "load".into()]);
    for (name, value) in [
        ("--port", u64::from(args.port)),
        ("--connections", args.connections as u64),
        ("--millis", args.millis),
        ("--requests", args.requests),
        ("--rate", args.rate),
    ] {
        line.extend([name.to_owned(), value.to_string()]);
    }
    let output = Command::new(program).args(line).output().context("load generator")?;
    ensure!(output.status.success(), "load generator: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A closed loop for `seconds`, with `wrk` where it is installed.
pub fn closed_loop(port: u16, connections: usize, seconds: u64) -> Result<Pass> {
    let Some(wrk) = installed("wrk") else {
        let args = LoadArgs { port, connections, millis: seconds * 1000, requests: 0, rate: 0 };
        return own(&args);
    };
    let (program, mut line) = pinned(1, &wrk);
    line.extend(["-t1".into(), format!("-c{connections}"), format!("-d{seconds}s"), "--latency".into()]);
    line.push(format!("http://127.0.0.1:{port}/bench"));
    let output = Command::new(program).args(line).output().context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_wrk(&text).with_context(|| format!("unexpected output of wrk:\n{text}"))
}

fn parse_wrk(text: &str) -> Result<Pass> {
    let mut pass = Pass::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", latency] => pass.p50_us = micros(latency)?,
            ["99%", latency] => pass.p99_us = micros(latency)?,
            [count, "requests", "in", time, ..] => {
                pass.requests = count.parse()?;
                pass.seconds = micros(time.trim_end_matches(','))? / 1e6;
            }
            ["Non-2xx", .., count] => pass.errors += count.parse::<u64>()?,
            ["Socket", "errors:", rest @ ..] => {
                let numbers = rest.iter().filter_map(|w| w.trim_end_matches(',').parse::<u64>().ok());
                pass.errors += numbers.sum::<u64>();
            }
            _ => {}
        }
    }
    ensure!(pass.requests > 0 && pass.seconds > 0.0, "no requests");
    pass.requests -= pass.errors.min(pass.requests);
    Ok(pass)
}

/// A time as wrk writes it: `12.34us`, `1.20ms`, `3.00s`, `1.00m`.
fn micros(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("m", 60e6), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return Ok(number * factor);
        }
    }
    bail!("`{text}` is not a time")
}

/// The generator's own process: prints a [`Pass`] as JSON.
pub fn main(args: &LoadArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", serde_json::to_string(&runtime.block_on(generate(args)))?);
    Ok(())
}

async fn generate(args: &LoadArgs) -> Pass {
    let left = std::sync::Arc::new(AtomicU64::new(if args.requests > 0 { args.requests } else { u64::MAX }));
    let start = Instant::now();
    let end = (args.millis > 0).then(|| start + Duration::from_millis(args.millis));
    let tasks: Vec<_> = (0..args.connections)
        .map(|number| {
            let pace = (args.rate > 0).then(|| Pace::new(args, number, start));
            tokio::spawn(connection(([127, 0, 0, 1], args.port).into(), left.clone(), end, pace))
        })
        .collect();
    let mut pass = Pass::default();
    let mut latencies = Vec::new();
    for task in tasks {
        match task.await {
            Ok((errors, more)) => {
                pass.errors += errors;
                latencies.extend(more);
            }
            Err(_) => pass.errors += 1,
        }
    }
    pass.seconds = start.elapsed().as_secs_f64();
    pass.requests = latencies.len() as u64;
    latencies.sort_unstable();
    let percentile = |part: f64| {
        let index = (latencies.len() as f64 * part) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).map_or(0.0, |ns: &u64| *ns as f64 / 1e3)
    };
    (pass.p50_us, pass.p99_us, pass.p999_us) = (percentile(0.5), percentile(0.99), percentile(0.999));
    pass
}

/// When the requests of one connection are due. Latency counts from then, so a stall is charged to every request it delays.
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    fn new(args: &LoadArgs, number: usize, start: Instant) -> Self {
        let interval = Duration::from_secs_f64(args.connections as f64 / args.rate as f64);
        Self { next: start + interval.mul_f64(number as f64 / args.connections as f64), interval }
    }
}

async fn connection(
    address: SocketAddr,
    left: std::sync::Arc<AtomicU64>,
    end: Option<Instant>,
    mut pace: Option<Pace>,
) -> (u64, Vec<u64>) {
    let mut latencies = Vec::new();
    let Ok(mut stream) = TcpStream::connect(address).await else { return (1, latencies) };
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        if end.is_some_and(|end| Instant::now() >= end) {
            return (0, latencies);
        }
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err() {
            return (0, latencies);
        }
        let mut sent = Instant::now();
        if let Some(pace) = &mut pace {
            tokio::time::sleep_until(pace.next.into()).await;
            sent = pace.next;
            pace.next += pace.interval;
        }
        if stream.write_all(b"GET /bench HTTP/1.1\r\nhost: bench.test\r\n\r\n").await.is_err() {
            return (1, latencies);
        }
        match read_response(&mut stream, &mut buffer).await {
            Some(200) => latencies.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            _ => return (1, latencies),
        }
    }
}

/// Reads one response with a content length; its status.
async fn read_response(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<u16> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_read() {
        let text = "Running 2s test\n  Latency Distribution\n     50%  617.00us\n     75%    0.70ms\n     99%    1.02ms\n  \
                    204134 requests in 2.00s, 250.00MB read\n  Socket errors: connect 0, read 1, write 0, timeout 0\n\
                    Requests/sec: 101000.0\n";
        let pass = parse_wrk(text).unwrap();
        assert_eq!((pass.requests, pass.errors), (204_133, 1));
        assert_eq!((pass.p50_us, pass.p99_us, pass.seconds), (617.0, 1020.0, 2.0));
        assert!(parse_wrk("unable to connect").is_err());
    }
}
