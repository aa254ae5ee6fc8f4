//! Load for measurements and soak runs: generators of requests and upstreams that answer them, well or badly; it must not know
//! which proxy is between them.

mod http1;
mod http2;
pub mod soak;
pub mod upstream;

use std::path::PathBuf;

use anyhow::Result;
use dhow_testkit::certs::KeyExchange;
use serde::{Deserialize, Serialize};

/// What one pass of load brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
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
}

impl Pass {
    /// Sums up latencies in nanoseconds.
    pub fn of(mut latencies: Vec<u64>, errors: u64, seconds: f64) -> Self {
        latencies.sort_unstable();
        let percentile = |part: f64| {
            let index = (latencies.len() as f64 * part) as usize;
            latencies.get(index.min(latencies.len().saturating_sub(1))).map_or(0.0, |ns| *ns as f64 / 1e3)
        };
        Self {
            requests: latencies.len() as u64,
            errors,
            seconds,
            p50_us: percentile(0.5),
            p99_us: percentile(0.99),
        }
    }
}

/// What to send.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spec {
    /// Port of 127.0.0.1.
    pub port: u16,
    /// Connections at a time.
    pub connections: usize,
    /// Requests under way on each; more than one only for HTTP/2.
    pub streams: usize,
    /// Stop after this long; 0 for no limit.
    pub millis: u64,
    /// Stop after this many requests instead; 0 for no limit.
    pub requests: u64,
    /// Requests per second over all connections; 0 for as fast as the answers come.
    pub rate: u64,
    /// HTTP/2 with prior knowledge instead of HTTP/1.1.
    pub http2: bool,
    /// A new connection for every request.
    pub per_connection: bool,
    /// The authority to trust, PEM: over TLS, where it is given.
    pub ca: Option<PathBuf>,
    /// The key exchange over TLS.
    pub key_exchange: Option<KeyExchange>,
}

/// Sends the load from this thread and waits for its end.
pub fn send(spec: &Spec) -> Result<Pass> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(http1::generate(spec))
}

#[cfg(test)]
mod tests {
    use dhow_testkit::HeldPort;
    use dhow_testkit::upstream::{Reply, Script, Speaks, Upstream};

    use super::*;

    fn server() -> Upstream {
        let script = Script::always(Reply::ok("hello"));
        Upstream::start(HeldPort::new().unwrap().listen().unwrap(), Speaks::Http(script), None).unwrap()
    }

    #[test]
    fn a_number_of_requests_is_sent_over_each_kind_of_connection() {
        let upstream = server();
        let port = upstream.address().port();
        let plain = Spec { port, connections: 3, streams: 1, requests: 20, ..Spec::default() };
        let http2 = Spec { streams: 2, http2: true, ..plain.clone() };
        let connections = Spec { per_connection: true, ..plain.clone() };
        for spec in [&plain, &http2, &connections] {
            let pass = send(spec).unwrap();
            assert_eq!((pass.requests, pass.errors), (20, 0), "{spec:?}");
            assert!(pass.p99_us >= pass.p50_us && pass.p50_us > 0.0);
        }
        let used: std::collections::HashSet<usize> =
            upstream.record().requests().iter().map(|request| request.connection).collect();
        assert_eq!(used.len(), 3 + 3 + 20);
    }

    #[test]
    fn a_fixed_rate_is_kept() {
        let upstream = server();
        let port = upstream.address().port();
        let spec = Spec { port, connections: 4, streams: 1, requests: 50, rate: 200, ..Spec::default() };
        let pass = send(&spec).unwrap();
        assert_eq!((pass.requests, pass.errors), (50, 0));
        // The last of 50 requests is due 245 ms after the first; a slow machine only takes longer.
        assert!(pass.seconds >= 0.24, "{pass:?}");
    }
}
