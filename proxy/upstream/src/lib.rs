//! Clusters, their hosts and the choice of a host, from configuration and discovery to an open connection; it must not know HTTP,
//! listeners or routes.

mod circuit_breakers;
mod cluster_info;
mod cluster_manager;
mod config;
mod connect;
mod dns;
mod ejection;
mod host;
mod lb;
mod managed_cluster;
mod metadata;
mod outlier;
mod snapshot;
mod source_file;
mod stats;
mod transport_socket;
mod worker;

pub use circuit_breakers::{CircuitBreakers, Permit, Resource, RetryBudget, RoutingPriority, Thresholds};
pub use cluster_info::{
    ClusterInfo, DiscoveryType, HeaderKeyFormat, Http1Options, Http2Keepalive, Http2Options, HttpOptions,
    OriginalDstOptions, TcpKeepalive, UpstreamBind, UpstreamProtocol,
};
pub use cluster_manager::{
    Accepted, Change, ClusterDescription, ClusterManager, ClusterManagerStats, EdsFile, EdsSubscription,
    Initialization,
};
pub use connect::{
    ClosedBy, ConnectFailure, ConnectFailureKind, ConnectionGuard, UpstreamConnection, connect,
};
pub use host::{
    ActiveRequest, Health, HealthFlag, HealthFlags, Host, HostAddress, HostSpec, HostStats, Locality,
};
pub use lb::{
    HashFunction, HashTable, HostSet, Hosts, LbConfig, LbPolicy, LocalityHosts, PriorityLoad, PrioritySet,
    TableConfig,
};
pub use managed_cluster::Origin;
pub use metadata::{HostMetadata, LB_FILTER, TRANSPORT_SOCKET_MATCH_FILTER};
pub use outlier::{EjectionReason, FailureStreaks, HostResult, OutlierConfig, OutlierDetector};
pub use snapshot::{ActiveCluster, ClustersSnapshot, PublishedClusters};
pub use source_file::check_source_file;
pub use stats::{ClusterStats, EdsStats, RequestTimeStats, TrafficStats};
pub use transport_socket::{SecureOptions, TransportSocket};
pub use worker::{ClusterObserver, LbContext, WorkerCluster, WorkerClusters};
