//! Clusters, their hosts, their health and the choice of a host, from configuration and discovery to an open connection; it must not
//! know listeners, routes or how requests are forwarded.

mod aggregate;
mod circuit_breakers;
mod cluster_info;
mod cluster_manager;
mod cluster_settings;
mod codec_stats;
mod config;
mod connect;
mod connection_options;
mod dns;
mod dns_cache;
mod event_log;
mod forwarding_options;
mod happy_eyeballs;
mod health_check;
mod host;
mod lb;
mod managed_cluster;
mod merge_window;
mod metadata;
mod original_hosts;
mod outlier;
mod override_host;
mod proxy_protocol;
mod snapshot;
mod source_file;
mod stats;
mod sub_clusters;
mod tracked_stats;
mod transport_socket;
mod tunnel;
mod worker;

pub use circuit_breakers::{CircuitBreakers, Permit, Resource, RetryBudget, RoutingPriority, Thresholds};
pub use cluster_info::{
    BindSource, ClusterInfo, DiscoveryType, HeaderKeyFormat, Http1Options, Http2Keepalive, Http2Options,
    HttpOptions, OriginalDstOptions, TcpKeepalive, UpstreamBind, UpstreamProtocol,
};
pub use cluster_manager::{
    Accepted, Change, ClusterDescription, ClusterManager, ClusterManagerStats, EdsFile, EdsSubscription,
    Initialization, ProxyFacts,
};
pub use codec_stats::{Http1CodecStats, Http2CodecStats};
pub use config::{NamedSettings, check_dns_cache, lower_custom_settings};
pub use connect::{
    ClosedBy, ConnectFailure, ConnectFailureKind, ConnectionGuard, UpstreamConnection, connect,
};
pub use connection_options::{ConnectionOptions, PreconnectHosts, ProxiedConnection};
pub use dns::ResolverOptions;
pub use dns_cache::Resolution;
pub use forwarding_options::{ForwardingLowering, ForwardingMessage, ForwardingOptions};
pub use happy_eyeballs::FamilyOrder;
pub use host::{ActiveRequest, Health, HealthFlag, HealthFlags, Host, HostSpec, HostStats, Locality};
pub use lb::{
    HashFunction, HashTable, HostSet, Hosts, LbConfig, LbPolicy, LocalityHosts, LocalityMode,
    OverrideStatuses, PreviousPriorities, PriorityLoad, PrioritySet, SelectorFallback, SlowStart,
    SubsetConfig, SubsetFallback, SubsetSelector, TableConfig, ZoneAware,
};
pub use managed_cluster::Origin;
pub use metadata::{HostMetadata, LB_FILTER, MetadataPath, MetadataStep, TRANSPORT_SOCKET_MATCH_FILTER};
pub use outlier::{
    EjectionReason, FailurePercentageConfig, HostMonitor, HostReports, HostResult, OutlierConfig,
    OutlierDetector, RateSummary, SuccessRateConfig,
};
pub use override_host::LbRequest;
pub use proxy_protocol::{PassedTlvs, ProxyProtocolSocket};
pub use snapshot::{ActiveCluster, ClustersSnapshot, PublishedClusters};
pub use source_file::check_source_file;
pub use stats::{ClusterStats, DiscoveryStats, EdsStats, ResponseTraits, TrafficStats};
pub use tracked_stats::{AttemptSizes, HeadSize, TrackedStats};
pub use transport_socket::{ChosenSocket, SecureOptions, TransportSocket};
pub use tunnel::{HttpTunnel, HttpTunnels, OpeningTunnel, TunnelFailure, TunnelFailureKind};
pub use worker::{ChosenHost, ClusterObserver, LbContext, WorkerCluster, WorkerClusters};
