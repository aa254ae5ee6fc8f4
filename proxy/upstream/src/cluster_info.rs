//! What all workers share for a cluster, and the words for its settings.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use dhow_http::SpellingRules;
use dhow_http::h2::FrameLimits;
use dhow_net::socket_option::SocketOption;
use dhow_proto::envoy::config::core::v3::Metadata;

use crate::circuit_breakers::CircuitBreakers;
use crate::cluster_settings::ClusterSettings;
use crate::forwarding_options::ForwardingOptions;
use crate::metadata::MetadataPath;
use crate::outlier::{HostReports, OutlierDetector};
use crate::stats::ClusterStats;

/// How the hosts of a cluster are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryType {
    /// `STATIC`: listed in the configuration.
    Static,
    /// `STRICT_DNS`: one host per address of each name.
    StrictDns,
    /// `LOGICAL_DNS`: one host, whose address follows the name.
    LogicalDns,
    /// `EDS`: assigned by a management server or a file.
    Eds,
    /// `ORIGINAL_DST`: where the downstream connection was going.
    OriginalDst,
    /// `envoy.clusters.aggregate`: those of other clusters.
    Aggregate,
    /// `envoy.clusters.dynamic_forward_proxy`: the hosts that requests name.
    DynamicForwardProxy,
}

impl DiscoveryType {
    /// Envoy's enum name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::StrictDns => "STRICT_DNS",
            Self::LogicalDns => "LOGICAL_DNS",
            Self::Eds => "EDS",
            Self::OriginalDst => "ORIGINAL_DST",
            Self::Aggregate => "envoy.clusters.aggregate",
            Self::DynamicForwardProxy => "envoy.clusters.dynamic_forward_proxy",
        }
    }
}

/// The protocol spoken to the hosts (`HttpProtocolOptions.upstream_protocol_options`).
#[derive(Clone, Debug, PartialEq)]
pub enum UpstreamProtocol {
    /// `explicit_http_config.http_protocol_options`, and the default.
    Http1(Http1Options),
    /// `explicit_http_config.http2_protocol_options`: with prior knowledge, or over TLS whatever ALPN says.
    Http2(Http2Options),
    /// `auto_config`: what ALPN chooses; HTTP/1.1 when it chooses nothing.
    Auto(Http1Options, Http2Options),
    /// `use_downstream_protocol_config`: the protocol of the request.
    Downstream(Http1Options, Http2Options),
}

impl UpstreamProtocol {
    /// What to put in [`crate::SecureOptions::alpn`] for a connection that is to carry HTTP, the first choice first.
    /// `downstream_http2` says what the request came by.
    pub fn alpn(&self, downstream_http2: bool) -> Vec<Vec<u8>> {
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        match self {
            Self::Http1(_) => vec![http1],
            Self::Http2(_) => vec![http2],
            Self::Auto(..) => vec![http2, http1],
            Self::Downstream(..) => vec![if downstream_http2 { http2 } else { http1 }],
        }
    }
}

/// `envoy.config.core.v3.Http1ProtocolOptions` as far as it concerns an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http1Options {
    /// `header_key_format`.
    pub header_key_format: HeaderKeyFormat,
    /// `enable_trailers`.
    pub enable_trailers: bool,
    /// `allow_chunked_length`: a response may carry both `transfer-encoding: chunked` and `content-length`.
    pub allow_chunked_length: bool,
    /// `send_fully_qualified_url`: absolute form in the request line.
    pub send_fully_qualified_url: bool,
}

/// How header names are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderKeyFormat {
    /// In lower case.
    #[default]
    Lower,
    /// `proper_case_words`: `Content-Type`.
    ProperCaseWords,
    /// `envoy.http.stateful_header_formatters.preserve_case`: messages from the peer are passed on with their spelling.
    PreserveCase(SpellingRules),
}

/// `envoy.config.core.v3.Http2ProtocolOptions` as far as it concerns an upstream. `None` stands for Envoy's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http2Options {
    /// `hpack_table_size` in bytes.
    pub hpack_table_size: Option<u32>,
    /// `max_concurrent_streams` per connection.
    pub max_concurrent_streams: Option<u32>,
    /// `initial_stream_window_size` in bytes.
    pub initial_stream_window_size: Option<u32>,
    /// `initial_connection_window_size` in bytes.
    pub initial_connection_window_size: Option<u32>,
    /// `custom_settings_parameters`: settings to announce, by their numbers.
    pub custom_settings: Vec<(u16, u32)>,
    /// `allow_connect`: announce that extended CONNECT is known.
    pub allow_connect: bool,
    /// `allow_metadata`: METADATA frames are passed on.
    pub allow_metadata: bool,
    /// `max_metadata_size`: bytes of METADATA that a response may bring; `None` for the default.
    pub max_metadata_size: Option<usize>,
    /// `override_stream_error_on_invalid_http_message`: reset the stream instead of closing the connection.
    pub stream_error_on_invalid_message: bool,
    /// `connection_keepalive`.
    pub keepalive: Option<Http2Keepalive>,
    /// `max_consecutive_inbound_frames_with_empty_payload` and its like.
    pub limits: FrameLimits,
}

impl Http2Options {
    /// Envoy's defaults throughout.
    pub const DEFAULT: Self = Self {
        hpack_table_size: None,
        max_concurrent_streams: None,
        initial_stream_window_size: None,
        initial_connection_window_size: None,
        custom_settings: Vec::new(),
        allow_connect: false,
        allow_metadata: false,
        max_metadata_size: None,
        stream_error_on_invalid_message: false,
        keepalive: None,
        limits: FrameLimits::DEFAULT,
    };
}

/// `envoy.config.core.v3.KeepaliveSettings`: PING frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Http2Keepalive {
    /// Time between two PINGs; `None` sends none by time.
    pub interval: Option<Duration>,
    /// How long an answer may take before the connection is closed.
    pub timeout: Duration,
    /// `interval_jitter` in percent of the interval; 15 by default.
    pub jitter_percent: f64,
    /// `connection_idle_interval`: a PING is sent before a request on a connection that was idle for this long.
    pub idle_interval: Option<Duration>,
}

/// The HTTP options of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpOptions {
    /// The protocol.
    pub protocol: UpstreamProtocol,
    /// `idle_timeout` of a connection without requests; one hour by default, `None` for never.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `max_stream_duration` of the cluster.
    pub max_stream_duration: Option<Duration>,
    /// `max_headers_count` of a response; 100 by default.
    pub max_headers_count: u32,
    /// `max_response_headers_kb`; 60 by default.
    pub max_response_headers_kb: u32,
    /// `max_requests_per_connection`; `None` for no limit.
    pub max_requests_per_connection: Option<u32>,
    /// `auto_sni`: the SNI is the request's host.
    pub auto_sni: bool,
    /// `auto_san_validation`: the certificate must be for the request's host.
    pub auto_san_validation: bool,
    /// `override_auto_sni_header`: the header to take the SNI from instead of the host; empty when unset.
    pub override_auto_sni_header: String,
    /// `http_filters`, `retry_policy`, `hash_policy`, `request_mirror_policies`; `None` when none is set.
    pub forwarding: Option<ForwardingOptions>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            protocol: UpstreamProtocol::Http1(Http1Options::default()),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            max_headers_count: 100,
            max_response_headers_kb: 60,
            max_requests_per_connection: None,
            auto_sni: false,
            auto_san_validation: false,
            override_auto_sni_header: String::new(),
            forwarding: None,
        }
    }
}

/// `upstream_connection_options.tcp_keepalive`; `None` leaves the kernel's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// `keepalive_probes`: unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// `keepalive_time` before the first probe.
    pub time: Option<Duration>,
    /// `keepalive_interval` between probes.
    pub interval: Option<Duration>,
}

/// `upstream_bind_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamBind {
    /// Source addresses in order of preference; the first of the same family as the host is used.
    pub sources: Vec<BindSource>,
    /// `freebind`: the address need not exist yet.
    pub freebind: bool,
}

/// One source address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSource {
    /// The address.
    pub address: SocketAddr,
    /// `extra_source_addresses.socket_options`: the options of connections from here instead of those of all.
    pub socket_options: Option<Arc<[SocketOption]>>,
}

/// `original_dst_lb_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginalDstOptions {
    /// The header that names the destination, `x-envoy-original-dst-host` unless configured; `None` when headers do not
    /// count.
    pub header: Option<String>,
    /// `upstream_port_override`.
    pub port_override: Option<u16>,
    /// `metadata_key`: where the stream's dynamic metadata names the destination.
    pub metadata_key: Option<MetadataPath>,
}

/// A cluster and the things that all workers share for it. Its [`ClusterSettings`] are read as if they were its own.
#[derive(Debug)]
pub struct ClusterInfo {
    /// `name`.
    pub name: Arc<str>,
    /// `alt_stat_name`, or the name: what stats and logs show.
    pub observability_name: Arc<str>,
    /// How its hosts are found.
    pub discovery: DiscoveryType,
    /// What may be the same for many clusters.
    pub settings: Arc<ClusterSettings>,
    /// The clusters of an aggregate cluster, in order of preference.
    pub aggregate: Option<Box<[String]>>,
    /// `metadata` of the cluster, when there is some.
    pub metadata: Option<Arc<Metadata>>,
    /// Limits.
    pub circuit_breakers: CircuitBreakers,
    /// `outlier_detection`; results are noted through [`crate::WorkerCluster::note_result`].
    pub outlier: Option<Box<OutlierDetector>>,
    /// Where to tell of hosts that want no more traffic; only where hosts are actively checked.
    pub unwilling: Option<Box<HostReports>>,
    /// Stats under `cluster.<observability_name>.`.
    pub stats: ClusterStats,
}

impl Deref for ClusterInfo {
    type Target = ClusterSettings;

    fn deref(&self) -> &ClusterSettings {
        &self.settings
    }
}
