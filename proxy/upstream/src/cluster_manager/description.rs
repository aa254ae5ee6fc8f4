//! What the manager tells about its clusters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dhow_base::ConfigWarning;
use dhow_proto::envoy::config::core::v3::BindConfig;
use dhow_stats::stat_group;
use dhow_tls::Secrets;

use crate::dns::ResolverOptions;
use crate::forwarding_options::ForwardingLowering;
use crate::host::Locality;
use crate::managed_cluster::Origin;
use crate::outlier::RateSummary;
use crate::snapshot::ActiveCluster;

stat_group! {
    /// `cluster_manager.*`.
    pub struct ClusterManagerStats {
        counters {
            cluster_added,
            cluster_modified,
            cluster_removed,
            cluster_updated,
            cluster_updated_via_merge,
            update_merge_cancelled,
            update_out_of_merge_window,
        }
        gauges { active_clusters, warming_clusters }
    }
}

/// What clusters know of the proxy that they are in.
#[derive(Clone, Debug, Default)]
pub struct ProxyFacts {
    /// `--concurrency`.
    pub workers: usize,
    /// `node.locality`.
    pub locality: Locality,
    /// `cluster_manager.local_cluster_name`: the cluster that this proxy is a host of.
    pub local_cluster_name: Option<String>,
    /// `cluster_manager.upstream_bind_config`: for clusters that have none of their own.
    pub upstream_bind: Option<BindConfig>,
    /// `static_resources.secrets`: for TLS contexts that name them.
    pub secrets: Arc<Secrets>,
    /// How the bootstrap says that names are resolved: for clusters that do not say it.
    pub resolver: ResolverOptions,
    /// Reads what the options of clusters say about the forwarding of requests.
    pub forwarding: ForwardingLowering,
}

/// What an accepted cluster message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The cluster is new.
    Added,
    /// The cluster has other settings now.
    Updated,
    /// The message is the one in force already, or the name belongs to a cluster of the bootstrap.
    Unchanged,
}

/// An accepted message.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// What it did.
    pub change: Change,
    /// What its author should know; paths start at the message.
    pub warnings: Vec<ConfigWarning>,
}

/// An assignment that some cluster wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdsSubscription {
    /// `eds_cluster_config.service_name`, or the cluster's name: the name of the resource.
    pub service_name: String,
    /// The file that holds it; `None` when it comes by ADS.
    pub file: Option<EdsFile>,
    /// `initial_fetch_timeout`; `None` waits for ever. When it is over, call
    /// [`ClusterManager::assignment_timed_out`].
    pub initial_fetch_timeout: Option<Duration>,
}

/// A file with assignments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdsFile {
    /// `path`.
    pub path: String,
    /// `watched_directory.path`.
    pub watched_directory: Option<String>,
}

/// One cluster, for `/config_dump` and `/clusters`.
#[derive(Clone, Debug)]
pub struct ClusterDescription {
    /// The message as it was received, encoded.
    pub message: Bytes,
    /// Version of the update that brought it; empty for the bootstrap.
    pub version: String,
    /// When it was applied.
    pub last_updated: SystemTime,
    /// Where it came from.
    pub origin: Origin,
    /// Whether it still waits for its hosts; an older version may serve meanwhile.
    pub warming: bool,
    /// Settings, stats and hosts.
    pub cluster: Arc<ActiveCluster>,
    /// Of outlier detection, where it is configured: of answers and of connections.
    pub success_rates: Option<[RateSummary; 2]>,
}

/// Clusters that are not ready yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Initialization {
    /// Those that need no management server.
    pub primary: usize,
    /// Those whose assignment comes by EDS.
    pub secondary: usize,
}
