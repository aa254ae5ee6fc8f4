//! What a random run is about.

use super::case::Case;
use super::generate;

/// The areas that have a generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Area {
    /// Connection manager, routes, header rules and filters, under HTTP/1 requests.
    #[default]
    Http,
    /// Hosts that fail in every way, and retries, timeouts, hedging, mirroring, redirects, limits, outlier detection.
    Resilience,
    /// As `http`, under HTTP/2 requests, with upstreams of both protocols.
    Http2,
    /// Access logs in random formats behind random filters, and local replies with random bodies, under HTTP/1 requests.
    Log,
    /// TLS contexts of both sides, filter chains chosen by what clients say, and clients with and without certificates.
    Tls,
    /// TCP proxies behind listeners of all kinds, and clients that send, finish, reset and wait.
    Tcp,
    /// Questions to the admin interface with random parameters, forms and methods, between requests that change the answers.
    Admin,
    /// Configurations changed in one place so that they may be invalid, and the verdict and reason of `--mode validate`.
    Invalid,
}

impl Area {
    /// The name as it is given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Resilience => "resilience",
            Self::Http2 => "http2",
            Self::Log => "log",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Admin => "admin",
            Self::Invalid => "invalid",
        }
    }

    /// The case of `seed` with this many requests; none where configurations get no requests.
    pub fn case(self, seed: u64, requests: usize) -> Option<Case> {
        match self {
            Self::Http => Some(generate::http(seed, requests)),
            Self::Resilience => Some(generate::resilience(seed, requests)),
            Self::Http2 => Some(generate::http2(seed, requests)),
            Self::Log => Some(generate::log(seed, requests)),
            Self::Tls => Some(generate::tls(seed, requests)),
            Self::Tcp => Some(generate::tcp(seed, requests)),
            Self::Admin => Some(generate::admin(seed, requests)),
            Self::Invalid => None,
        }
    }
}
