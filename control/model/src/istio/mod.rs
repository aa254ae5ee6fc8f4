//! Istio's own kinds of the group `networking.istio.io`, one file per kind, strict about unknown fields.
//!
//! The three served versions (`v1`, `v1beta1`, `v1alpha3`) have the same shape, so one set of types reads them all.

mod destination_rule;
mod gateway;
mod http_match;
mod service_entry;
mod shared;
mod traffic_policy;
mod virtual_service;
mod workload_entry;

pub use destination_rule::{DestinationRule, Subset};
pub use gateway::{
    Gateway, GatewayPort, Server, ServerTls, ServerTlsCertificate, ServerTlsMode, TlsProtocol,
};
pub use http_match::HttpMatchRequest;
pub use service_entry::{Location, Resolution, ServiceEntry, ServiceEntryPort};
pub use shared::{Destination, GoDuration, Percent, PortSelector, StringMatch, WorkloadSelector};
pub use traffic_policy::{
    ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, H2UpgradePolicy, HashKey, Http2KeepAlive,
    HttpConnectionPool, HttpCookie, HttpCookieAttribute, LoadBalancer, LocalityDistribute, LocalityFailover,
    LocalityLb, Maglev, OutlierDetection, PortTrafficPolicy, ProxyProtocol, ProxyProtocolVersion,
    RetryBudget, RingHash, SimpleLb, TcpConnectionPool, TcpKeepalive, TrafficPolicy, Tunnel, Warmup,
    ZoneAwareLb,
};
pub use virtual_service::{
    BytesOrString, CorsPolicy, Delegate, DerivePort, DirectResponse, Fault, FaultAbort, FaultDelay,
    HeaderOperations, Headers, HttpRedirect, HttpRewrite, HttpRoute, HttpRouteDestination, L4Match, Mirror,
    RegexRewrite, RetryPolicy, RouteDestination, TcpRoute, TlsMatch, TlsRoute, UnmatchedPreflights,
    VirtualService,
};
pub use workload_entry::WorkloadEntry;
