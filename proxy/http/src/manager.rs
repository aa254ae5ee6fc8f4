//! A connection manager on one worker: what its connections and streams share.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_http::HeaderMap;
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proxy_api::{Clusters, ConnectionInfo, Details, DrainState, HostResolution, Membership};
use dhow_proxy_runtime::{LoadShedPoint, Worker, overload};
use dhow_proxy_upstream::{Resolution, WorkerClusters};
use dhow_routing::{RouteTable, SelectedRoute};

use crate::config::{ConnectionManagerConfig, RouteSource};
use crate::keepalive::with_jitter;
use crate::response_headers::DateCache;
use crate::route_slot::{CachedRouteStats, CachedRoutes, RouteSlot};
use crate::router::RequestGroups;
use crate::stats::HttpStats;
use crate::stream::{FilterSlot, Responder};
use crate::upstream::HttpPools;

/// Chains of filters kept for reuse per worker and connection manager.
const POOLED_CHAINS: usize = 256;

/// A connection manager on one worker.
pub(crate) struct Manager {
    pub(crate) worker: Rc<Worker>,
    pub(crate) config: Arc<ConnectionManagerConfig>,
    pub(crate) stats: Arc<HttpStats>,
    pub(crate) clusters: Rc<WorkerClusters>,
    pub(crate) pools: Rc<HttpPools>,
    pub(crate) dates: DateCache,
    pub(crate) draining: DrainState,
    /// Answers the requests for which there is no router.
    pub(crate) responder: Option<Rc<dyn Responder>>,
    routes: RefCell<CachedRoutes>,
    route_stats: RefCell<CachedRouteStats>,
    chains: RefCell<Vec<Vec<FilterSlot>>>,
}

impl Manager {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        config: Arc<ConnectionManagerConfig>,
        stats: Arc<HttpStats>,
        routes: &RouteSlot,
        responder: Option<Rc<dyn Responder>>,
    ) -> Rc<Self> {
        let clusters: Rc<WorkerClusters> = worker.existing_extension();
        Rc::new(Self {
            worker: worker.clone(),
            config,
            stats,
            clusters,
            pools: match &responder {
                None => HttpPools::of(worker),
                Some(_) => HttpPools::unused(worker),
            },
            dates: DateCache::default(),
            draining: DrainState::default(),
            responder,
            routes: RefCell::new(routes.cached()),
            route_stats: RefCell::new(routes.cached_stats()),
            chains: RefCell::default(),
        })
    }

    /// When a connection is to end because of its age (`max_connection_duration`).
    pub(crate) fn connection_end(&self, info: &ConnectionInfo) -> Option<Instant> {
        let timeouts = &self.config.timeouts;
        let max = timeouts.max_connection_duration?;
        let jitter = timeouts.max_connection_duration_jitter;
        let random = if jitter > 0.0 { self.worker.random() } else { 0 };
        Some(info.start + with_jitter(max, jitter, random))
    }

    /// Whether load of a connection is shed at a point this time.
    pub(crate) fn sheds(&self, point: LoadShedPoint, connection: &ConnectionInfo) -> bool {
        overload().sheds_of(point, connection.bypass_overload_manager, || self.worker.random())
    }

    /// How long a connection may stay open idle once it drains because of its age (`drain_timeout`); `None` for ever.
    pub(crate) fn drain_grace(&self) -> Option<Duration> {
        (!self.config.timeouts.safe_max_connection_duration).then(|| self.drain_time())
    }

    /// `drain_timeout`, with its jitter.
    pub(crate) fn drain_time(&self) -> Duration {
        let timeouts = &self.config.timeouts;
        let random = if timeouts.drain_jitter > 0.0 { self.worker.random() } else { 0 };
        with_jitter(timeouts.drain, timeouts.drain_jitter, random)
    }

    /// The route table of the moment for a request.
    pub(crate) fn routes(&self, request: &HeaderMap) -> Option<Arc<RouteTable>> {
        if let RouteSource::Scoped(scopes) = &self.config.routes {
            return scopes.table(request).cloned();
        }
        self.routes.borrow_mut().load().clone()
    }

    /// Where requests of the route are counted beside their cluster.
    pub(crate) fn request_groups(&self, route: &SelectedRoute, request: &HeaderMap) -> RequestGroups {
        match self.route_stats.borrow_mut().load() {
            Some(stats) => stats.groups(route, request),
            None => RequestGroups::default(),
        }
    }

    /// An empty header map.
    pub(crate) fn take_head(&self) -> HeaderMap {
        HeaderMap::reused()
    }

    /// Keeps a header map for reuse.
    pub(crate) fn give_head(&self, head: HeaderMap) {
        head.recycle();
    }

    /// Filters that served another stream, made by the configured chain alone; none of them, only room, when there are no such.
    pub(crate) fn take_chain(&self) -> Vec<FilterSlot> {
        self.chains.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps the filters of a stream for reuse where all of them can serve another one and `usual` says that no route had a say
    /// in which there are; drops them otherwise and keeps the room.
    pub(crate) fn give_chain(&self, mut chain: Vec<FilterSlot>, usual: bool) {
        if chain.capacity() == 0 {
            return;
        }
        if !usual || !chain.iter_mut().all(|slot| slot.filter.renew()) {
            // A filter that is dropped may do anything but come back here.
            chain.clear();
        }
        let mut chains = self.chains.borrow_mut();
        if chains.len() < POOLED_CHAINS {
            chains.push(chain);
        }
    }

    /// `%RESPONSE_CODE_DETAILS%` of streams that were cut off because the proxy closed their connection; none where it did not.
    pub(crate) fn cut_off_details(&self, connection: &ConnectionInfo) -> Option<Details> {
        let record = connection.record()?;
        let record = record.borrow();
        record.cut_off.then(|| {
            let reason = record.local_close_reason.as_deref();
            let reason = reason.unwrap_or_else(|| self.draining.close_reason());
            format!("downstream_local_disconnect({reason})").into()
        })
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("stat_prefix", &self.config.stat_prefix).finish_non_exhaustive()
    }
}

impl Clusters for Manager {
    fn is_failing_health_checks(&self) -> bool {
        self.draining.is_failing()
    }

    fn membership(&self, cluster: &str) -> Option<Membership> {
        let hosts = self.clusters.get(cluster)?.hosts();
        let sum = |of: fn(&dhow_proxy_upstream::HostSet) -> usize| {
            hosts.levels().iter().map(|level| of(level) as u64).sum()
        };
        Some(Membership {
            total: sum(|level| level.all.len()),
            healthy: sum(|level| level.healthy.len()),
            degraded: sum(|level| level.degraded.len()),
        })
    }

    fn stats(&self, cluster: &str) -> Option<dhow_stats::Scope> {
        Some(self.clusters.get(cluster)?.info().stats.scope().clone())
    }

    fn metadata(&self, cluster: &str) -> Option<Arc<Metadata>> {
        self.clusters.get(cluster)?.info().metadata.clone()
    }

    fn resolve_host(&self, cluster: &str, authority: &str, port: Option<u16>) -> HostResolution {
        let Some(cluster) = self.clusters.get(cluster) else {
            return HostResolution::NotDynamic;
        };
        match cluster.resolve(authority, port) {
            None => HostResolution::NotDynamic,
            Some(Resolution::Ready(host)) => HostResolution::Ready(host.address().as_ip()),
            Some(Resolution::Failed(why)) => HostResolution::Failed(why),
            Some(Resolution::Wait(answer)) => HostResolution::Wait(answer),
            Some(Resolution::Unnamed) => HostResolution::Unnamed,
            Some(Resolution::HasCluster) => HostResolution::Ready(None),
            Some(Resolution::ClusterWarms(there)) => HostResolution::ClusterWarms(there),
            Some(Resolution::TooManyClusters) => HostResolution::TooManyClusters,
            Some(Resolution::CacheFull) => HostResolution::CacheFull,
            Some(Resolution::TooManyPending) => HostResolution::TooManyPending,
        }
    }
}
