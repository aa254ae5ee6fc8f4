//! `TrafficPolicy` of a DestinationRule: load balancing, connection pools, outlier detection, TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{GoDuration, Percent, PortSelector};

/// `TrafficPolicy`. Sections are inherited one by one: the most specific one that is set wins.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrafficPolicy {
    /// How hosts are chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits on connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// Passive health checking.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the destination.
    pub tls: Option<ClientTls>,
    /// Policies for single ports; they replace the sections above, they do not merge with them.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnelling of TCP through an HTTP proxy.
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol towards the destination.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Retry budget of the cluster.
    pub retry_budget: Option<RetryBudget>,
}

/// `TrafficPolicy.PortTrafficPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PortTrafficPolicy {
    /// The port of the service.
    pub port: PortSelector,
    /// How hosts are chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits on connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// Passive health checking.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the destination.
    pub tls: Option<ClientTls>,
}

/// `LoadBalancerSettings`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancer {
    /// A policy without parameters; excludes `consistentHash`.
    pub simple: Option<SimpleLb>,
    /// A hash of the request chooses the host.
    pub consistent_hash: Option<ConsistentHash>,
    /// Preference for near localities.
    pub locality_lb_setting: Option<LocalityLb>,
    /// Envoy's zone-aware routing.
    pub zone_aware_lb_setting: Option<ZoneAwareLb>,
    /// Slow start of new hosts.
    pub warmup: Option<Warmup>,
    /// Deprecated form of `warmup`.
    pub warmup_duration_secs: Option<GoDuration>,
}

/// `LoadBalancerSettings.SimpleLB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// Istio chooses: least request.
    Unspecified,
    /// A random healthy host.
    Random,
    /// The address that the caller wanted.
    Passthrough,
    /// Hosts in turn.
    RoundRobin,
    /// The less loaded of two random hosts.
    LeastRequest,
    /// Deprecated name of `LEAST_REQUEST`.
    LeastConn,
}

/// `LoadBalancerSettings.ConsistentHashLB`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsistentHash {
    /// Hash of a request header.
    pub http_header_name: Option<String>,
    /// Hash of a cookie, created when absent and a TTL is given.
    pub http_cookie: Option<HttpCookie>,
    /// Hash of the source address.
    pub use_source_ip: Option<bool>,
    /// Hash of a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Ring hash with its size.
    pub ring_hash: Option<RingHash>,
    /// Maglev with its table size.
    pub maglev: Option<Maglev>,
    /// Deprecated form of `ringHash.minimumRingSize`.
    pub minimum_ring_size: Option<u64>,
}

/// What a consistent hash is computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey<'a> {
    /// A request header's value.
    Header(&'a str),
    /// A cookie's value.
    Cookie(&'a HttpCookie),
    /// The caller's address.
    SourceIp,
    /// A query parameter's value.
    QueryParameter(&'a str),
}

impl ConsistentHash {
    /// The key that is set, if any.
    pub fn key(&self) -> Option<HashKey<'_>> {
        if let Some(name) = &self.http_header_name {
            return Some(HashKey::Header(name));
        }
        if let Some(cookie) = &self.http_cookie {
            return Some(HashKey::Cookie(cookie));
        }
        if self.use_source_ip == Some(true) {
            return Some(HashKey::SourceIp);
        }
        self.http_query_parameter_name.as_deref().map(HashKey::QueryParameter)
    }
}

/// `ConsistentHashLB.HTTPCookie`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpCookie {
    /// Cookie name.
    pub name: String,
    /// Path of a cookie that the proxy creates.
    pub path: String,
    /// Lifetime of a cookie that the proxy creates; zero is a session cookie.
    pub ttl: Option<GoDuration>,
    /// Further attributes of a cookie that the proxy creates.
    pub attributes: Vec<HttpCookieAttribute>,
}

/// One attribute of a generated cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpCookieAttribute {
    /// Attribute name, such as `SameSite`.
    pub name: String,
    /// Attribute value.
    pub value: String,
}

/// `ConsistentHashLB.RingHash`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RingHash {
    /// Least number of entries on the ring; absent means 1024.
    pub minimum_ring_size: Option<u64>,
}

/// `ConsistentHashLB.MagLev`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Maglev {
    /// Table size, a prime; absent means 65537.
    pub table_size: Option<u64>,
}

/// `LocalityLoadBalancerSetting`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalityLb {
    /// Explicit shares by locality.
    pub distribute: Vec<LocalityDistribute>,
    /// Explicit next region for each region.
    pub failover: Vec<LocalityFailover>,
    /// Labels compared in turn to rank endpoints.
    pub failover_priority: Vec<String>,
    /// Whether the mesh's setting applies at all.
    pub enabled: Option<bool>,
}

/// `LocalityLoadBalancerSetting.Distribute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalityDistribute {
    /// Locality of the caller: `region/zone/sub-zone`, `*` allowed.
    pub from: String,
    /// Shares by locality of the endpoint; they add up to 100.
    pub to: BTreeMap<String, u32>,
}

/// `LocalityLoadBalancerSetting.Failover`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalityFailover {
    /// Region that fails.
    pub from: String,
    /// Region that takes over.
    pub to: String,
}

/// `ZoneAwareLoadBalancerSetting`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ZoneAwareLb {
    /// Whether it applies.
    pub enabled: Option<bool>,
    /// Explicit next region for each region.
    pub failover: Vec<LocalityFailover>,
    /// Labels compared in turn to rank endpoints.
    pub failover_priority: Vec<String>,
    /// Least number of hosts for zone-aware routing.
    pub min_cluster_size: Option<u64>,
}

/// `WarmupConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Warmup {
    /// Time until a new host gets its full share.
    pub duration: Option<GoDuration>,
    /// Share at the beginning, in percent; absent means 10.
    pub minimum_percent: Option<f64>,
    /// Shape of the curve; absent means 1.0, linear.
    pub aggression: Option<f64>,
}

/// `ConnectionPoolSettings`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionPool {
    /// For HTTP and TCP.
    pub tcp: Option<TcpConnectionPool>,
    /// For HTTP only.
    pub http: Option<HttpConnectionPool>,
}

/// `ConnectionPoolSettings.TCPSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpConnectionPool {
    /// Most connections to all hosts together; 0 means no limit.
    pub max_connections: i32,
    /// Time to establish a connection.
    pub connect_timeout: Option<GoDuration>,
    /// Keep-alive probes of the socket.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<GoDuration>,
    /// Time without bytes after which a TCP connection is closed.
    pub idle_timeout: Option<GoDuration>,
}

/// `TCPSettings.TcpKeepalive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead; 0 means the system's default.
    pub probes: u32,
    /// Idle time before the first probe.
    pub time: Option<GoDuration>,
    /// Time between probes.
    pub interval: Option<GoDuration>,
}

/// `ConnectionPoolSettings.HTTPSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpConnectionPool {
    /// Most requests waiting for a connection.
    pub http1_max_pending_requests: i32,
    /// Most requests in flight, of either protocol.
    pub http2_max_requests: i32,
    /// Requests after which a connection is closed; 0 means no limit.
    pub max_requests_per_connection: i32,
    /// Most retries in flight.
    pub max_retries: i32,
    /// Time without requests after which a connection is closed.
    pub idle_timeout: Option<GoDuration>,
    /// Whether HTTP/1.1 is upgraded to HTTP/2 towards the destination.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Whether the destination is spoken to in the client's protocol.
    pub use_client_protocol: bool,
    /// Most streams of one HTTP/2 connection.
    pub max_concurrent_streams: i32,
    /// HTTP/2 PING frames.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// `HTTPSettings.H2UpgradePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// The mesh's setting.
    Default,
    /// No upgrade.
    DoNotUpgrade,
    /// Upgrade.
    Upgrade,
}

/// `HTTPSettings.HTTP2KeepAlive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Http2KeepAlive {
    /// Time between PINGs.
    pub interval: Option<GoDuration>,
    /// Time to wait for the answer.
    pub timeout: Option<GoDuration>,
}

/// `OutlierDetection`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Deprecated form of `consecutive5xxErrors` with gateway errors.
    pub consecutive_errors: Option<i32>,
    /// Counts errors of the local side apart.
    pub split_external_local_origin_errors: bool,
    /// Local-side errors in a row that eject a host.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row that eject a host; 0 disables.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row that eject a host; 0 disables.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps.
    pub interval: Option<GoDuration>,
    /// Least time of an ejection.
    pub base_ejection_time: Option<GoDuration>,
    /// Most hosts ejected, in percent.
    pub max_ejection_percent: i32,
    /// Share of healthy hosts below which detection is off.
    pub min_health_percent: i32,
    /// Status codes that count as errors instead of 5xx.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// `ClientTLSSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientTls {
    /// Whether and how the connection is secured.
    pub mode: ClientTlsMode,
    /// File of the client's certificate chain (MUTUAL).
    pub client_certificate: String,
    /// File of the client's key (MUTUAL).
    pub private_key: String,
    /// File of the authorities that may sign the server's certificate; empty means not verified.
    pub ca_certificates: String,
    /// Name of a secret with certificate, key and authorities.
    pub credential_name: String,
    /// Names of which the server's certificate must carry one.
    pub subject_alt_names: Vec<String>,
    /// Server name to send.
    pub sni: String,
    /// Accepts any server certificate.
    pub insecure_skip_verify: Option<bool>,
    /// File of revoked certificates.
    pub ca_crl: String,
}

/// `ClientTLSSettings.TLSmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// Plaintext.
    #[default]
    Disable,
    /// TLS, the client without certificate.
    Simple,
    /// TLS, the client with a certificate from files or a secret.
    Mutual,
    /// TLS with the mesh's own certificates.
    IstioMutual,
}

/// `TrafficPolicy.TunnelSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tunnel {
    /// `CONNECT` (default) or `POST`.
    pub protocol: String,
    /// Host that the tunnel is for.
    pub target_host: String,
    /// Port that the tunnel is for.
    pub target_port: u32,
}

/// `TrafficPolicy.ProxyProtocol`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// Version that is sent.
    pub version: ProxyProtocolVersion,
}

/// `ProxyProtocol.VERSION`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum ProxyProtocolVersion {
    /// Text form.
    #[default]
    V1,
    /// Binary form.
    V2,
}

/// `TrafficPolicy.RetryBudget`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Retries in percent of active requests; absent means 20.
    pub percent: Option<Percent>,
    /// Retries that are always allowed; 0 means 3.
    pub min_retry_concurrency: u32,
    /// Window over which the budget is counted.
    pub budget_interval: Option<GoDuration>,
}
