//! The rows of the table: what each measures, with which peers, and what it has to reach.

use clap::ValueEnum;
use dhow_testkit::certs::KeyExchange;

use super::peer::Peer;

/// A row by the name it has on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowName {
    /// Every row.
    All,
    /// HTTP/1.1 keep-alive, router only.
    Http1,
    /// The same through an Istio-like chain of filters with an access log.
    Chain,
    /// HTTP/1.1 at a fixed rate.
    FixedRate,
    /// HTTP/2 to HTTP/1.1.
    #[value(name = "h2-h1")]
    H2H1,
    /// HTTP/2 to HTTP/2.
    #[value(name = "h2-h2")]
    H2H2,
    /// The same with an upstream that takes more time than the proxy and sends each response by itself.
    #[value(name = "h2-h2-nginx")]
    H2H2Nginx,
    /// A new connection per request.
    Connections,
    /// TLS 1.3, keep-alive.
    Tls,
    /// TLS 1.3, a full handshake per request.
    TlsHandshakes,
    /// The same with a hybrid post-quantum key exchange.
    TlsPq,
    /// Resident memory: idle, per connection, with a large configuration.
    Memory,
    /// From the start of the process until it serves, with a large configuration.
    Start,
}

/// What a proxy speaks on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2 with prior knowledge.
    Two,
}

/// The program that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// nginx, over HTTP/1.1.
    Nginx,
    /// nginx, over HTTP/2: it needs more time for a request than a proxy, and writes each response by itself.
    NginxHttp2,
    /// nghttpd, over HTTP/2; nginx where it is not installed.
    Nghttpd,
}

impl Server {
    /// What it speaks.
    pub fn speaks(self) -> Http {
        if self == Self::Nginx { Http::One } else { Http::Two }
    }
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// As fast as the answers, on connections that stay.
    ClosedLoop,
    /// At a fixed rate, on connections that stay.
    FixedRate,
    /// As fast as the answers, each on a connection of its own.
    Connections,
}

/// A row that is measured in CPU time per request.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name on the command line and in the table.
    pub name: &'static str,
    /// What it is about, for a reader of the table.
    pub about: &'static str,
    /// The side of the clients.
    pub downstream: Http,
    /// The upstream.
    pub server: Server,
    /// TLS with this key exchange on the side of the clients.
    pub tls: Option<KeyExchange>,
    /// An Istio-like chain of filters and a JSON access log.
    pub chain: bool,
    /// How requests come.
    pub arrival: Arrival,
    /// Who can do it.
    pub peers: &'static [Peer],
    /// Figures with the largest value that meets the target.
    pub targets: &'static [(Figure, f64)],
}

/// Figures that have targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// CPU time per request as a ratio to Envoy's.
    CpuOfEnvoy,
    /// The same to HAProxy's.
    CpuOfHaproxy,
    /// The 99th percentile of latency as a ratio to HAProxy's.
    P99OfHaproxy,
    /// User instructions per request.
    Instructions,
    /// System calls per request.
    Syscalls,
}

impl Figure {
    /// Its words in the table.
    pub fn text(self) -> &'static str {
        match self {
            Self::CpuOfEnvoy => "CPU per request, of Envoy's",
            Self::CpuOfHaproxy => "CPU per request, of HAProxy's",
            Self::P99OfHaproxy => "p99 latency, of HAProxy's",
            Self::Instructions => "user instructions per request",
            Self::Syscalls => "system calls per request",
        }
    }

    /// Whether the load of the machine leaves it alone, so that one run is enough to judge it.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Instructions | Self::Syscalls)
    }
}

const EVERYBODY: &[Peer] = &[Peer::Ours, Peer::Envoy, Peer::Haproxy, Peer::Nginx];
const HTTP2_BOTH_SIDES: &[Peer] = &[Peer::Ours, Peer::Envoy, Peer::Haproxy];
const ENVOY_ALONE: &[Peer] = &[Peer::Ours, Peer::Envoy];

const PLAIN: Job = Job {
    name: "http1",
    about: "HTTP/1.1 keep-alive, router only",
    downstream: Http::One,
    server: Server::Nginx,
    tls: None,
    chain: false,
    arrival: Arrival::ClosedLoop,
    peers: EVERYBODY,
    targets: &[
        (Figure::CpuOfEnvoy, 0.40),
        (Figure::CpuOfHaproxy, 0.90),
        (Figure::Instructions, 16_000.0),
        (Figure::Syscalls, 4.5),
    ],
};

impl RowName {
    /// The job of a row that is measured in CPU time per request; none for the others.
    pub fn job(self) -> Option<Job> {
        Some(match self {
            Self::All | Self::Memory | Self::Start => return None,
            Self::Http1 => PLAIN,
            Self::Chain => Job {
                name: "chain",
                about: "HTTP/1.1 keep-alive through an Istio-like chain with a JSON access log",
                chain: true,
                peers: ENVOY_ALONE,
                targets: &[(Figure::CpuOfEnvoy, 0.45), (Figure::Instructions, 30_000.0)],
                ..PLAIN
            },
            Self::FixedRate => Job {
                name: "fixed-rate",
                about: "HTTP/1.1 keep-alive at a fixed rate",
                arrival: Arrival::FixedRate,
                targets: &[(Figure::CpuOfEnvoy, 0.30), (Figure::P99OfHaproxy, 1.0)],
                ..PLAIN
            },
            Self::H2H1 => Job {
                name: "h2-h1",
                about: "HTTP/2 to HTTP/1.1",
                downstream: Http::Two,
                targets: &[(Figure::CpuOfEnvoy, 0.50)],
                ..PLAIN
            },
            Self::H2H2 => Job {
                name: "h2-h2",
                about: "HTTP/2 to HTTP/2",
                downstream: Http::Two,
                server: Server::Nghttpd,
                peers: HTTP2_BOTH_SIDES,
                targets: &[(Figure::CpuOfEnvoy, 0.55)],
                ..PLAIN
            },
            Self::H2H2Nginx => Job {
                name: "h2-h2-nginx",
                about: "HTTP/2 to HTTP/2 of an upstream that is busier than the proxy",
                downstream: Http::Two,
                server: Server::NginxHttp2,
                peers: HTTP2_BOTH_SIDES,
                targets: &[(Figure::CpuOfEnvoy, 0.55)],
                ..PLAIN
            },
            Self::Connections => Job {
                name: "connections",
                about: "a new connection per request",
                arrival: Arrival::Connections,
                targets: &[(Figure::CpuOfEnvoy, 0.58)],
                ..PLAIN
            },
            Self::Tls => Job {
                name: "tls",
                about: "TLS 1.3 keep-alive",
                tls: Some(KeyExchange::Classic),
                targets: &[(Figure::CpuOfEnvoy, 0.35)],
                ..PLAIN
            },
            Self::TlsHandshakes => Job {
                name: "tls-handshakes",
                about: "a full TLS 1.3 handshake per request, X25519",
                tls: Some(KeyExchange::Classic),
                arrival: Arrival::Connections,
                targets: &[(Figure::CpuOfEnvoy, 0.75)],
                ..PLAIN
            },
            Self::TlsPq => Job {
                name: "tls-pq",
                about: "a full TLS 1.3 handshake per request, X25519MLKEM768",
                tls: Some(KeyExchange::PostQuantum),
                arrival: Arrival::Connections,
                peers: ENVOY_ALONE,
                targets: &[(Figure::CpuOfEnvoy, 0.70)],
                ..PLAIN
            },
        })
    }

    /// The rows that are meant: every one for [`RowName::All`].
    pub fn expand(self) -> Vec<Self> {
        if self != Self::All {
            return vec![self];
        }
        Self::value_variants().iter().copied().filter(|row| *row != Self::All).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_names_of_the_command_line() {
        for row in RowName::All.expand() {
            let value = row.to_possible_value().unwrap();
            assert!(row.job().is_none_or(|job| job.name == value.get_name()), "{row:?}");
        }
    }
}
