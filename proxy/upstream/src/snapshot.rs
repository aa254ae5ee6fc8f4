//! What the main thread publishes and workers read without a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::cluster_info::{ClusterInfo, DiscoveryType};
use crate::dns_cache::DnsCache;
use crate::host::uptime_millis;
use crate::lb::PrioritySet;
use crate::original_hosts::OriginalHosts;
use crate::sub_clusters::SubClusters;

/// A cluster that routes may use: settings that never change, and the hosts of the moment.
#[derive(Debug)]
pub struct ActiveCluster {
    info: Arc<ClusterInfo>,
    hosts: ArcSwap<PrioritySet>,
    generation: AtomicU64,
    /// Of an `ORIGINAL_DST` cluster.
    original: Option<Box<OriginalHosts>>,
    /// Of a dynamic forward proxy.
    dns_cache: Option<Arc<DnsCache>>,
    /// Of a dynamic forward proxy with a cluster for each host.
    sub_clusters: Option<Arc<SubClusters>>,
    /// When a request last asked for this cluster, of those that requests ask for, on the clock of `uptime_millis`.
    last_used: AtomicU64,
}

impl ActiveCluster {
    pub(crate) fn new(
        info: Arc<ClusterInfo>,
        hosts: PrioritySet,
        dns_cache: Option<Arc<DnsCache>>,
        sub_clusters: Option<Arc<SubClusters>>,
    ) -> Arc<Self> {
        let original = (info.discovery == DiscoveryType::OriginalDst).then(Box::default);
        Arc::new(Self {
            info,
            hosts: ArcSwap::from_pointee(hosts),
            generation: AtomicU64::new(1),
            original,
            dns_cache,
            sub_clusters,
            last_used: AtomicU64::new(0),
        })
    }

    /// The settings.
    pub fn info(&self) -> &Arc<ClusterInfo> {
        &self.info
    }

    /// The hosts of the moment.
    pub fn hosts(&self) -> Arc<PrioritySet> {
        self.hosts.load_full()
    }

    /// Grows whenever the hosts or their health change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The hosts that requests asked for, of an `ORIGINAL_DST` cluster.
    pub(crate) fn original_hosts(&self) -> Option<&OriginalHosts> {
        self.original.as_deref()
    }

    /// The names that requests asked for, of a dynamic forward proxy.
    pub(crate) fn dns_cache(&self) -> Option<&Arc<DnsCache>> {
        self.dns_cache.as_ref()
    }

    /// The clusters that requests asked for, of a dynamic forward proxy that makes such.
    pub(crate) fn sub_clusters(&self) -> Option<&Arc<SubClusters>> {
        self.sub_clusters.as_ref()
    }

    /// A request asks for this cluster.
    pub(crate) fn touch(&self) {
        self.last_used.store(uptime_millis(), Ordering::Relaxed);
    }

    /// When a request last did.
    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    pub(crate) fn replace_hosts(&self, hosts: PrioritySet) {
        self.hosts.store(Arc::new(hosts));
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// The active clusters by name.
pub type ClustersSnapshot = HashMap<Arc<str>, Arc<ActiveCluster>>;

/// The place where the main thread publishes; every worker holds one.
#[derive(Clone, Debug)]
pub struct PublishedClusters {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    clusters: ArcSwap<ClustersSnapshot>,
    generation: AtomicU64,
}

/// The writing end of [`PublishedClusters`].
#[derive(Debug)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    changed: watch::Sender<u64>,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        let shared = Shared { clusters: ArcSwap::default(), generation: AtomicU64::new(1) };
        Self { shared: Arc::new(shared), changed: watch::Sender::new(0) }
    }

    /// Replaces the map of clusters.
    pub(crate) fn publish(&self, clusters: ClustersSnapshot) {
        self.shared.clusters.store(Arc::new(clusters));
        self.shared.generation.fetch_add(1, Ordering::Release);
        self.wake();
    }

    /// Wakes workers that wait for changes, of the map or of some cluster's hosts.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(crate) fn reader(&self) -> PublishedClusters {
        PublishedClusters { shared: self.shared.clone(), changed: self.changed.subscribe() }
    }
}

impl PublishedClusters {
    /// The active clusters.
    pub fn snapshot(&self) -> Arc<ClustersSnapshot> {
        self.shared.clusters.load_full()
    }

    /// Grows whenever a cluster comes, goes or is replaced; one atomic load.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Waits for the next change of clusters or hosts; false when the cluster manager is gone.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }
}
