//! `HttpConnectionManager` messages lowered into what the request path needs. Every field is honoured, refused or warned
//! about by name.

mod cluster_options;
mod connection_manager;
mod filters;
mod forwarding;
mod protocol_options;
mod routes;
mod runtime_defaults;
mod scalar;
mod upgrades;
mod upstream_filters;

use std::sync::Arc;
use std::time::Duration;

use dhow_http::{h1, h2};
use dhow_matching::CidrSet;
use dhow_proxy_access_log::AccessLog;
use dhow_proxy_api::HttpFilterFactory;
use dhow_proxy_upstream::Http2Keepalive;
use dhow_routing::{HeaderEdit, RouteTable};

use crate::client_certificate::{CertificateChoice, ClientCertificateConfig};
use crate::local_reply::LocalReplyConfig;
use crate::original_ip::AddressDetector;
use crate::proxy_status::ProxyStatusConfig;
use crate::scoped_routes::ScopedRoutes;

pub(crate) use cluster_options::ClusterOptions;
pub use cluster_options::lower_cluster_options;
pub use connection_manager::{LowerContext, lower};
pub use filters::FilterRegistry;
pub use routes::compile_routes;
pub(crate) use routes::read_source;

/// `codec_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecType {
    /// By ALPN, else by the HTTP/2 connection preface.
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// `server_header_transformation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    /// Always our name.
    Overwrite,
    /// Our name when upstream sent none.
    AppendIfAbsent,
    /// Never touched.
    PassThrough,
}

/// `path_with_escaped_slashes_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Leave `%2F` and `%5C` as they are.
    Keep,
    /// Answer 400.
    Reject,
    /// Unescape and redirect to the result.
    UnescapeAndRedirect,
    /// Unescape and go on.
    UnescapeAndForward,
}

/// `strip_matching_host_port` and `strip_any_host_port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StripPort {
    /// Keep the port of the host.
    Keep,
    /// Drop it when it is the listener's.
    Matching,
    /// Drop any port.
    Any,
}

/// Where the routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// Inline `route_config`.
    Static(Arc<RouteTable>),
    /// Inline `scoped_routes`.
    Scoped(Arc<ScopedRoutes>),
    /// `rds`: the name of the route configuration, delivered by the aggregated or a path subscription.
    Rds {
        /// `route_config_name`.
        name: Arc<str>,
        /// `config_source.path_config_source`; the aggregated stream when absent.
        file: Option<RouteFile>,
        /// `initial_fetch_timeout`; zero waits for ever.
        initial_fetch_timeout: Duration,
    },
}

/// `path_config_source` of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFile {
    /// `path`.
    pub path: Arc<str>,
    /// `watched_directory.path`.
    pub watched_directory: Option<Arc<str>>,
}

/// One filter of the chain in front of the router.
#[derive(Clone, Debug)]
pub struct ConfiguredFilter {
    /// Configured name: the key of per-route configuration.
    pub name: Arc<str>,
    /// What kind of filter it is.
    pub descriptor: dhow_proxy_api::HttpFilterDescriptor,
    /// `disabled`: off unless a route switches it on.
    pub disabled: bool,
    /// Makes the filter of a stream.
    pub factory: Arc<dyn HttpFilterFactory>,
}

/// A header of `strict_check_headers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the header of the same name with x-envoy- in front")]
pub enum StrictHeader {
    UpstreamRqTimeoutMs,
    UpstreamRqPerTryTimeoutMs,
    MaxRetries,
    RetryOn,
    RetryGrpcOn,
}

/// The router filter's configuration.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The filter's name in the chain, by which routes can disable it.
    pub name: Arc<str>,
    /// `dynamic_stats`: whether responses are counted by code; true.
    pub dynamic_stats: bool,
    /// `suppress_grpc_request_failure_code_stats`: gRPC requests that fail are not counted by code.
    pub suppress_grpc_failure_stats: bool,
    /// `strict_check_headers`: requests in which one of these is not understood are refused.
    pub strict_headers: Arc<[StrictHeader]>,
    /// `suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
    /// `upstream_http_filters` in front of the codec: each attempt passes them.
    pub upstream_filters: Vec<ConfiguredFilter>,
    /// `respect_expected_rq_timeout`.
    pub respect_expected_rq_timeout: bool,
    /// `reject_connect_request_early_data`: what a client sends behind CONNECT has to wait for the answer.
    pub rejects_early_data: bool,
    /// `upstream_log`; none when there is no log.
    pub upstream_logs: Option<Arc<UpstreamLogs>>,
}

/// Logs of attempts.
#[derive(Clone, Debug)]
pub struct UpstreamLogs {
    /// `upstream_log`.
    pub logs: Vec<AccessLog>,
    /// `upstream_log_options.flush_upstream_log_on_upstream_stream`: there is an entry, too, when an attempt has its stream.
    pub on_stream: bool,
    /// `upstream_log_options.upstream_log_flush_interval`: there is an entry, too, as often while an attempt goes on.
    pub interval: Option<Duration>,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            name: "".into(),
            dynamic_stats: true,
            suppress_grpc_failure_stats: false,
            strict_headers: [].into(),
            suppress_envoy_headers: false,
            respect_expected_rq_timeout: false,
            upstream_filters: Vec::new(),
            rejects_early_data: false,
            upstream_logs: None,
        }
    }
}

/// A list of `http_filters`.
#[derive(Debug, Default)]
pub struct HttpFilterChain {
    /// Filters in front of the router, in order.
    pub filters: Vec<ConfiguredFilter>,
    /// The router; none when the list is empty, and then every request is answered 404.
    pub router: Option<RouterConfig>,
}

/// `UpgradeConfig`: an upgrade that routes may use unless they say otherwise.
#[derive(Debug)]
pub struct UpgradeRule {
    /// `upgrade_type` in lower case; `connect` for CONNECT.
    pub kind: Arc<str>,
    /// `enabled`: whether routes that say nothing about it allow it.
    pub enabled: bool,
    /// `filters`, where the upgrade has some of its own.
    pub chain: Option<HttpFilterChain>,
}

/// Who this proxy is, for `add_user_agent`.
#[derive(Clone, Debug)]
pub struct UserAgent {
    /// `node.cluster`: the `user-agent` of requests without one, and `x-envoy-downstream-service-cluster`.
    pub cluster: Arc<str>,
    /// `node.id`: `x-envoy-downstream-service-node`, when it is not empty.
    pub node: Arc<str>,
}

/// `scheme_header_transformation`.
#[derive(Clone, Debug, Default)]
pub struct SchemeTransformation {
    /// `scheme_to_overwrite`: the scheme of every request.
    pub overwrite: Option<Box<[u8]>>,
    /// `match_upstream`: the scheme is that of the transport to upstream.
    pub match_upstream: bool,
}

/// `internal_address_config`.
#[derive(Debug)]
pub struct InternalAddresses {
    /// `cidr_ranges`.
    pub ranges: CidrSet,
    /// `unix_sockets`: clients of Unix sockets count too.
    pub unix_sockets: bool,
}

/// Request identity and forwarding: what the connection manager does to `x-forwarded-*`, `x-request-id` and `via`.
#[derive(Debug)]
pub struct ForwardingConfig {
    /// `use_remote_address`.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub xff_num_trusted_hops: u32,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `append_x_forwarded_port`.
    pub append_x_forwarded_port: bool,
    /// `forward_proto_config`: ports that a connection was meant for before a listener filter restored that.
    pub proto_ports: Option<Box<ProtoPorts>>,
    /// `internal_address_config`: nobody is internal when it is absent.
    pub internal_addresses: Option<InternalAddresses>,
    /// `generate_request_id`.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub always_set_request_id_in_response: bool,
    /// `via`; empty is off.
    pub via: Vec<u8>,
    /// `add_user_agent`: what upstream is told about this proxy; none is off.
    pub user_agent: Option<UserAgent>,
    /// `original_ip_detection_extensions`.
    pub detectors: Vec<AddressDetector>,
    /// `scheme_header_transformation`.
    pub scheme: SchemeTransformation,
    /// `early_header_mutation_extensions`.
    pub early_mutations: Box<[HeaderEdit]>,
    /// The address that is appended to `x-forwarded-for` for peers on the loopback: the node's own.
    pub node_address: std::net::IpAddr,
}

/// What `x-forwarded-proto` is for connections to certain ports, whatever they speak.
#[derive(Debug)]
pub struct ProtoPorts {
    /// `https_destination_ports`.
    pub https: Box<[u32]>,
    /// `http_destination_ports`; a port that is among both is one of HTTPS.
    pub http: Box<[u32]>,
}

/// Path and host normalisation.
#[derive(Clone, Copy, Debug)]
pub struct NormalizationConfig {
    /// `normalize_path`.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `strip_matching_host_port`, `strip_any_host_port`.
    pub strip_port: StripPort,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_host_dot: bool,
}

/// Time limits; `None` is off.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// `common_http_protocol_options.idle_timeout`, 1 h.
    pub idle: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration_jitter`: by how many percent it may be longer.
    pub max_connection_duration_jitter: f64,
    /// `common_http_protocol_options.max_stream_duration`.
    pub max_stream_duration: Option<Duration>,
    /// `stream_idle_timeout`, 5 min.
    pub stream_idle: Option<Duration>,
    /// `stream_flush_timeout`: for a client of HTTP/2 to take the next part of a response that is complete;
    /// `stream_idle_timeout` unless set.
    pub stream_flush: Option<Duration>,
    /// `request_timeout`.
    pub request: Option<Duration>,
    /// `request_headers_timeout`.
    pub request_headers: Option<Duration>,
    /// `drain_timeout`, 5 s.
    pub drain: Duration,
    /// `drain_timeout_jitter`: by how many percent it may be longer.
    pub drain_jitter: f64,
    /// `http1_safe_max_connection_duration`: HTTP/1 connections that are too old end with a response, never idle.
    pub safe_max_connection_duration: bool,
    /// `delayed_close_timeout`, 1 s.
    pub delayed_close: Option<Duration>,
}

/// Moments at which access logs are written besides the end of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogMoments {
    /// `flush_access_log_on_new_request`.
    pub start: bool,
    /// `flush_log_on_tunnel_successfully_established`.
    pub tunnel: bool,
    /// `access_log_flush_interval`: again and again while the stream lasts.
    pub interval: Option<Duration>,
}

/// A connection manager as configured. Immutable; shared by all workers.
#[derive(Debug)]
pub struct ConnectionManagerConfig {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// `codec_type`.
    pub codec: CodecType,
    /// HTTP/1 parsing.
    pub http1: h1::RequestOptions,
    /// How header names of HTTP/1 responses are written.
    pub http1_keys: h1::HeaderKeyFormat,
    /// `http_protocol_options.enable_trailers`.
    pub http1_trailers: bool,
    /// `stream_error_on_invalid_http_message`, or what the options of HTTP/1 say instead: answers with status 400 leave
    /// the connection open.
    pub http1_stream_errors: bool,
    /// HTTP/2 settings.
    pub http2: h2::Settings,
    /// `http2_protocol_options.connection_keepalive`.
    pub keepalive: Option<Http2Keepalive>,
    /// `server_name`.
    pub server_name: Vec<u8>,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `append_local_overload`: say in the answers to requests that are not accepted why they are not.
    pub append_local_overload: bool,
    /// `common_http_protocol_options.max_requests_per_connection`; 0 is no limit.
    pub max_requests_per_connection: u32,
    /// `proxy_100_continue`.
    pub proxy_100_continue: bool,
    /// `upgrade_configs`.
    pub upgrades: Vec<UpgradeRule>,
    /// Forwarding headers.
    pub forwarding: ForwardingConfig,
    /// `x-forwarded-client-cert`.
    pub client_certificate: ClientCertificateConfig,
    /// `forward_client_cert_matcher`: what is done instead for requests that it matches.
    pub client_certificate_by: Option<CertificateChoice>,
    /// Path and host normalisation.
    pub normalization: NormalizationConfig,
    /// Time limits.
    pub timeouts: Timeouts,
    /// `local_reply_config`.
    pub local_replies: Option<LocalReplyConfig>,
    /// `proxy_status_config`.
    pub proxy_status: Option<ProxyStatusConfig>,
    /// Where routes come from.
    pub routes: RouteSource,
    /// `http_filters`.
    pub chain: HttpFilterChain,
    /// Access logs.
    pub access_logs: Vec<AccessLog>,
    /// `access_log_options`: when they are written besides the end of a stream.
    pub log_moments: LogMoments,
}

impl ConnectionManagerConfig {
    /// The chain that serves an ordinary stream, or one of the upgrade with this index.
    pub(crate) fn chain_of(&self, upgrade: Option<usize>) -> &HttpFilterChain {
        upgrade.and_then(|at| self.upgrades[at].chain.as_ref()).unwrap_or(&self.chain)
    }
}
