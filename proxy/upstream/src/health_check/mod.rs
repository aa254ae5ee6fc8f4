//! Active health checks: what each host of a cluster is asked, how often, and what its answers make of it.
//!
//! Runs on the main thread: one task for each host. Workers see the outcome in the sets of hosts that are published.

mod check;
mod context;
mod event;
mod exchange;
mod interval;
mod payload;
mod session;
mod sessions;
mod stats;

use std::ops::Range;
use std::time::Duration;

use dhow_matching::StringMatcher;
use dhow_net::proxy_protocol::ProxyVersion;
use dhow_proto::google::protobuf::Struct;
use dhow_routing::HeaderMutations;

pub(crate) use interval::Intervals;
pub(crate) use payload::find_in_order;
pub(crate) use session::Failure;
pub(crate) use sessions::{HealthChecks, OnChecked};

/// `envoy.config.core.v3.HealthCheck`, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct HealthCheckConfig {
    /// How long one check may take.
    pub(crate) timeout: Duration,
    pub(crate) intervals: Intervals,
    /// Up to this much is waited before the first check.
    pub(crate) initial_jitter: Duration,
    /// Failures in a row that make a host unhealthy, where one does not suffice.
    pub(crate) unhealthy_threshold: u32,
    /// Successes in a row that make a host healthy again.
    pub(crate) healthy_threshold: u32,
    /// Whether one connection serves many checks.
    pub(crate) reuse_connection: bool,
    /// Files that events are appended to.
    pub(crate) event_logs: Vec<String>,
    /// Failures are logged even when they change nothing.
    pub(crate) log_failures: bool,
    /// Successes are logged even when they change nothing.
    pub(crate) log_successes: bool,
    /// `tls_options.alpn_protocols`; empty keeps those of the transport socket.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// Chooses among `transport_socket_matches` instead of the endpoint's metadata.
    pub(crate) socket_criteria: Option<Struct>,
    pub(crate) check: Check,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    Http(Box<HttpCheck>),
    Tcp(TcpCheck),
    Grpc(Box<GrpcCheck>),
}

/// `HttpHealthCheck`.
#[derive(Clone, Debug)]
pub(crate) struct HttpCheck {
    /// `Host`; the cluster's name when empty.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) method: &'static str,
    pub(crate) send: Vec<u8>,
    /// Blocks that the body must hold in this order.
    pub(crate) receive: Vec<Vec<u8>>,
    /// Bytes of the body that are looked at; `None` looks at all.
    pub(crate) response_buffer: Option<usize>,
    pub(crate) expected: Vec<Range<u16>>,
    pub(crate) retriable: Vec<Range<u16>>,
    pub(crate) headers: HeaderMutations,
    pub(crate) service_name: Option<StringMatcher>,
    pub(crate) http2: bool,
}

/// `TcpHealthCheck`.
#[derive(Clone, Debug)]
pub(crate) struct TcpCheck {
    pub(crate) send: Vec<u8>,
    /// Blocks that must arrive in this order; without any, a connection is all that is asked for.
    pub(crate) receive: Vec<Vec<u8>>,
    /// A PROXY header goes first.
    pub(crate) proxy_header: Option<ProxyVersion>,
}

/// `GrpcHealthCheck`.
#[derive(Clone, Debug)]
pub(crate) struct GrpcCheck {
    pub(crate) service: String,
    /// `:authority`; the cluster's name when empty.
    pub(crate) authority: String,
    pub(crate) metadata: HeaderMutations,
}

impl Check {
    /// `HealthCheckerType` of events.
    pub(crate) const fn type_name(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTP",
            Self::Tcp(_) => "TCP",
            Self::Grpc(_) => "GRPC",
        }
    }
}
