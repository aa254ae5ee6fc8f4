//! `VirtualService`: how requests and connections for a host are routed.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{Destination, GoDuration, HttpMatchRequest, Percent, StringMatch};

/// The spec of a `VirtualService`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VirtualService {
    /// Hosts that the rules are for: exact names, `*.` wildcards, or names relative to the namespace.
    pub hosts: Vec<String>,
    /// Gateways that apply the rules; empty means `mesh`, that is every sidecar.
    pub gateways: Vec<String>,
    /// HTTP rules, first match wins.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS passed through, by SNI.
    pub tls: Vec<TlsRoute>,
    /// Rules for opaque TCP.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see the object.
    pub export_to: Vec<String>,
}

/// One HTTP rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRoute {
    /// Name for logs and debugging.
    pub name: String,
    /// Alternatives; empty matches every request.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatchRequest>,
    /// Weighted destinations.
    pub route: Vec<HttpRouteDestination>,
    /// Answers with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Answers with a fixed response.
    pub direct_response: Option<DirectResponse>,
    /// Hands the request to the rules of another VirtualService.
    pub delegate: Option<Delegate>,
    /// Changes path or authority before forwarding.
    pub rewrite: Option<HttpRewrite>,
    /// Time for the whole request including retries; zero or absent means none.
    pub timeout: Option<GoDuration>,
    /// Retry policy; absent means the mesh's default.
    pub retries: Option<RetryPolicy>,
    /// Delays and aborts to inject.
    pub fault: Option<Fault>,
    /// Destination that gets a copy of each request (deprecated form of `mirrors`).
    pub mirror: Option<Destination>,
    /// Destinations that get a copy.
    pub mirrors: Vec<Mirror>,
    /// Deprecated integer form of `mirrorPercentage`.
    pub mirror_percent: Option<u32>,
    /// Share of requests that `mirror` gets; absent means all.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin policy.
    pub cors_policy: Option<CorsPolicy>,
    /// Header operations for all destinations.
    pub headers: Option<Headers>,
}

/// A destination with its share of requests.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share relative to the other destinations; 0 when absent.
    pub weight: u32,
    /// Header operations for this destination only.
    pub headers: Option<Headers>,
}

/// A destination of TCP or TLS traffic with its share of connections.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share relative to the other destinations.
    pub weight: u32,
}

/// Header operations in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Headers {
    /// On the request, before it is forwarded.
    pub request: Option<HeaderOperations>,
    /// On the response, before it is returned.
    pub response: Option<HeaderOperations>,
}

/// `HeaderOperations`: applied in the order set, add, remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderOperations {
    /// Replaces the header.
    pub set: BTreeMap<String, String>,
    /// Appends to the header.
    pub add: BTreeMap<String, String>,
    /// Removes the header.
    pub remove: Vec<String>,
}

/// Names another VirtualService, one without hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; empty means that of the root.
    pub namespace: String,
}

/// `HTTPRedirect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRedirect {
    /// Replaces the whole path.
    pub uri: String,
    /// Replaces the matched prefix of the path.
    pub prefix_rewrite: String,
    /// Replaces the authority.
    pub authority: String,
    /// Replaces the port.
    pub port: Option<u32>,
    /// Derives the port when `port` is absent.
    pub derive_port: Option<DerivePort>,
    /// Replaces the scheme.
    pub scheme: String,
    /// 301, 302, 303, 307 or 308; 0 means 301.
    pub redirect_code: u32,
}

/// `HTTPRedirect.RedirectPortSelection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DerivePort {
    /// 80 for http, 443 for https.
    FromProtocolDefault,
    /// The port of the request.
    FromRequestPort,
}

/// `HTTPDirectResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u32,
    /// Body, at most 1 MiB.
    pub body: Option<BytesOrString>,
}

/// `HTTPBody`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BytesOrString {
    /// Text.
    String(String),
    /// Base64 of the bytes, as protobuf JSON writes them.
    Bytes(#[serde(deserialize_with = "base64_bytes")] Vec<u8>),
}

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return Err(serde::de::Error::custom("not base64")),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Ok(bytes)
}

/// `HTTPRewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRewrite {
    /// Replaces the path, or the matched prefix of it.
    pub uri: String,
    /// Replaces the authority.
    pub authority: String,
    /// Rewrites the path by expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `RegexRewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegexRewrite {
    /// RE2 expression.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Replacement, `\1` for the first group.
    pub rewrite: String,
}

/// `HTTPRetry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Number of retries; 0 disables them.
    pub attempts: i32,
    /// Time for each try.
    pub per_try_timeout: Option<GoDuration>,
    /// Comma-separated Envoy conditions and bare status codes.
    pub retry_on: String,
    /// Whether retries may go to other localities.
    pub retry_remote_localities: Option<bool>,
    /// Whether a retry avoids hosts that were tried; true when absent.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Least time between retries.
    pub backoff: Option<GoDuration>,
}

/// `HTTPFaultInjection`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// Holds requests back.
    pub delay: Option<FaultDelay>,
    /// Answers requests with an error.
    pub abort: Option<FaultAbort>,
}

/// `HTTPFaultInjection.Delay`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultDelay {
    /// Deprecated integer percentage.
    pub percent: Option<i32>,
    /// Share of requests; absent with `percent` absent means all.
    pub percentage: Option<Percent>,
    /// How long; at least 1 ms.
    pub fixed_delay: Option<GoDuration>,
    /// Never implemented upstream; refused when set.
    pub exponential_delay: Option<GoDuration>,
}

/// `HTTPFaultInjection.Abort`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultAbort {
    /// Share of requests; absent means all.
    pub percentage: Option<Percent>,
    /// HTTP status to answer with, 200 to 599.
    pub http_status: Option<u32>,
    /// gRPC status name to answer with, such as `UNAVAILABLE`.
    pub grpc_status: Option<String>,
    /// Never implemented upstream; refused when set.
    pub http2_error: Option<String>,
}

/// A mirror with its share.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mirror {
    /// Where the copy goes.
    pub destination: Destination,
    /// Share of requests; absent means all.
    pub percentage: Option<Percent>,
}

/// `CorsPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorsPolicy {
    /// Deprecated list of exact origins, `*` for any.
    pub allow_origin: Vec<String>,
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatch>,
    /// Methods for `access-control-allow-methods`.
    pub allow_methods: Vec<String>,
    /// Headers for `access-control-allow-headers`.
    pub allow_headers: Vec<String>,
    /// Headers for `access-control-expose-headers`.
    pub expose_headers: Vec<String>,
    /// For `access-control-max-age`.
    pub max_age: Option<GoDuration>,
    /// For `access-control-allow-credentials`.
    pub allow_credentials: Option<bool>,
    /// What becomes of preflights that match no origin.
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// `CorsPolicy.UnmatchedPreflights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// Envoy's default, which is to forward.
    Unspecified,
    /// Forwarded to the destination.
    Forward,
    /// Answered by the proxy, not forwarded.
    Ignore,
}

/// One rule for TLS passed through.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsRoute {
    /// Alternatives; at least one.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// `TLSMatchAttributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsMatch {
    /// Server names of the client hello, `*.` wildcards allowed.
    pub sni_hosts: Vec<String>,
    /// Addresses or CIDR ranges of the destination.
    pub destination_subnets: Vec<String>,
    /// Port of the host.
    pub port: Option<u32>,
    /// Labels of the workload that connects.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways to which the entry applies.
    pub gateways: Vec<String>,
    /// Namespace of the workload that connects.
    pub source_namespace: String,
}

/// One rule for opaque TCP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpRoute {
    /// Alternatives; empty matches every connection.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// `L4MatchAttributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct L4Match {
    /// Addresses or CIDR ranges of the destination.
    pub destination_subnets: Vec<String>,
    /// Port of the host.
    pub port: Option<u32>,
    /// Never implemented upstream; warned about when set.
    pub source_subnet: String,
    /// Labels of the workload that connects.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways to which the entry applies.
    pub gateways: Vec<String>,
    /// Namespace of the workload that connects.
    pub source_namespace: String,
}
