//! The connection pools of a worker: one per host, priority, protocol and transport-socket options, as in Envoy.

use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dhow_proxy_api::LocalFuture;
use dhow_proxy_runtime::Worker;
use dhow_proxy_upstream::{
    ClusterInfo, ClusterObserver, ConnectFailure, ConnectFailureKind, Host, Resource, RoutingPriority,
    SecureOptions, UpstreamProtocol, WorkerCluster, WorkerClusters,
};
use hashbrown::HashMap;

use super::UpstreamStream;
use super::pool::HostPool;
use super::preconnect::{CONNECTIONS_AT_ONCE, Load};
use crate::reset::{Reset, ResetKind};

/// How often idle connections are looked at: for those that the host closed, and for idle timeouts.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All HTTP connection pools of one worker.
pub(crate) struct HttpPools {
    worker: Rc<Worker>,
    pools: RefCell<HashMap<PoolKey, Rc<HostPool>, foldhash::fast::RandomState>>,
}

/// What requests must have in common to share connections.
#[derive(Clone, Debug)]
pub(super) struct PoolKey {
    pub(super) host: usize,
    pub(super) priority: RoutingPriority,
    pub(super) http2: bool,
    /// What connections are asked for beyond the cluster's settings.
    pub(super) options: Option<Box<SecureOptions>>,
}

impl PartialEq for PoolKey {
    fn eq(&self, other: &Self) -> bool {
        let options = || match (&self.options, &other.options) {
            (None, None) => true,
            (Some(one), Some(other)) => one == other,
            // Some options leave it open what tells connections apart.
            (Some(one), None) | (None, Some(one)) => **one == SecureOptions::default(),
        };
        self.host == other.host && self.priority == other.priority && self.http2 == other.http2 && options()
    }
}

impl Eq for PoolKey {}

impl Hash for PoolKey {
    /// A host has many pools only where connections belong to one client each: the other parts are left to the
    /// comparison.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.host);
        let Some(options) = &self.options else { return };
        if let Some(client) = options.client {
            state.write_u64(client);
        }
        if let Some(proxied) = &options.proxied {
            proxied.ends.hash(state);
        }
        options.shared.iter().for_each(|text| state.write(text));
    }
}

/// A stream to a host, at once or when a connection is ready.
pub(crate) enum Acquired {
    /// A connection was free.
    Ready(UpstreamStream),
    /// One is being made, or will be released. Dropping the future gives up the place in the queue.
    Wait(LocalFuture<Result<UpstreamStream, Reset>>),
    /// The cluster has as many pools as it may (`max_connection_pools`), and none that is idle.
    NoPool,
}

/// Tells the host of the next request but those it told of already, and what its connections are asked for; `None` when it
/// cannot.
pub(crate) type NextHost<'a> = dyn Fn() -> Option<(Arc<Host>, Option<Box<SecureOptions>>)> + 'a;

/// Where connections are to be made ahead: the ratio of the cluster that was asked, and its next hosts.
pub(crate) struct Foresight<'a> {
    ratio: f32,
    next: &'a NextHost<'a>,
}

impl<'a> Foresight<'a> {
    /// For a cluster with `predictive_preconnect_ratio`; `None` for others.
    pub(crate) fn of(asked: &WorkerCluster, next: &'a NextHost<'a>) -> Option<Self> {
        let ratio = asked.info().connections.predictive_ratio;
        (ratio > 1.0).then_some(Self { ratio, next })
    }
}

impl HttpPools {
    /// The pools of a worker, which begin to exist with the first who asks.
    pub(crate) fn of(worker: &Rc<Worker>) -> Rc<Self> {
        worker.extension(|worker| {
            let pools = Self::start(worker);
            worker.existing_extension::<WorkerClusters>().add_observer(pools.clone());
            pools
        })
    }

    /// Pools for who never asks for a connection.
    pub(crate) fn unused(worker: &Rc<Worker>) -> Rc<Self> {
        Rc::new(Self { worker: worker.clone(), pools: RefCell::default() })
    }

    /// The pools of a worker; a local task watches over idle connections for as long as they exist.
    fn start(worker: &Rc<Worker>) -> Rc<Self> {
        let pools = Self::unused(worker);
        let weak = Rc::downgrade(&pools);
        tokio::task::spawn_local(async move {
            let mut interval = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                interval.tick().await;
                let Some(pools) = weak.upgrade() else { return };
                pools.sweep();
            }
        });
        pools
    }

    fn sweep(&self) {
        let pools: Vec<_> = self.pools.borrow().values().cloned().collect();
        for pool in pools {
            pool.sweep();
        }
        self.pools.borrow_mut().retain(|_, pool| !pool.is_unused());
    }

    /// Takes a free connection to the host, or a place in the queue for one. `foresight` tells which hosts the requests after
    /// this one will go to, where the cluster connects ahead to them.
    ///
    /// # Errors
    /// [`ResetKind::Overflow`] when the circuit breaker for waiting requests is open.
    pub(crate) fn acquire(
        self: &Rc<Self>,
        cluster: &Rc<WorkerCluster>,
        host: &Arc<Host>,
        priority: RoutingPriority,
        downstream_http2: bool,
        options: Option<Box<SecureOptions>>,
        foresight: Option<Foresight<'_>>,
    ) -> Result<Acquired, Reset> {
        let info = cluster.info();
        let http2 = match info.http.protocol {
            UpstreamProtocol::Http1(_) | UpstreamProtocol::Auto(..) => false,
            UpstreamProtocol::Http2(_) => true,
            UpstreamProtocol::Downstream(..) => downstream_http2,
        };
        let key = PoolKey { host: Arc::as_ptr(host) as usize, priority, http2, options };
        let Some(pool) = self.pool(key, info, host) else { return Ok(Acquired::NoPool) };
        if let Some(foresight) = foresight {
            self.connect_ahead(info, priority, http2, foresight);
        }
        if let Some(stream) = pool.take_ready() {
            return Ok(Acquired::Ready(stream));
        }
        pool.enqueue().map(Acquired::Wait)
    }

    /// Connects to the hosts of requests to come until there are connections enough for `predictive_preconnect_ratio`. As in Envoy
    /// the streams and connections of all clusters of this worker count.
    fn connect_ahead(
        &self,
        info: &Arc<ClusterInfo>,
        priority: RoutingPriority,
        http2: bool,
        foresight: Foresight<'_>,
    ) {
        let Foresight { ratio, next } = foresight;
        for _ in 0..CONNECTIONS_AT_ONCE {
            let load: Load = self.pools.borrow().values().map(|pool| pool.load()).sum();
            if !load.will_need_connection(ratio) {
                return;
            }
            let Some((host, options)) = next() else { return };
            let key = PoolKey { host: Arc::as_ptr(&host) as usize, priority, http2, options };
            let Some(pool) = self.pool(key, info, &host) else { return };
            if !pool.connect_ahead(ratio) {
                return;
            }
        }
    }

    fn pool(&self, key: PoolKey, info: &Arc<ClusterInfo>, host: &Arc<Host>) -> Option<Rc<HostPool>> {
        if let Some(pool) = self.pools.borrow().get(&key) {
            return Some(pool.clone());
        }
        let breakers = &info.circuit_breakers;
        if !breakers.has_room(key.priority, Resource::ConnectionPools) {
            self.give_up_idle(&key);
        }
        let permit = breakers.try_acquire(key.priority, Resource::ConnectionPools)?;
        let pool = HostPool::new(&self.worker, info, host, &key, permit);
        self.pools.borrow_mut().insert(key, pool.clone());
        Some(pool)
    }

    /// Closes a pool of the same host and priority in which nothing happens.
    fn give_up_idle(&self, wanted: &PoolKey) {
        let mut pools = self.pools.borrow_mut();
        let idle = pools
            .iter()
            .find(|(key, pool)| key.host == wanted.host && key.priority == wanted.priority && pool.is_idle());
        let Some(key) = idle.map(|(key, _)| key.clone()) else { return };
        let pool = pools.remove(&key);
        drop(pools);
        if let Some(pool) = pool {
            pool.drain();
        }
    }

    fn drain_where(&self, gone: impl Fn(&HostPool) -> bool) {
        let drained: Vec<_> =
            self.pools.borrow_mut().extract_if(|_, pool| gone(pool)).map(|(_, p)| p).collect();
        for pool in drained {
            pool.drain();
        }
    }
}

impl ClusterObserver for HttpPools {
    fn cluster_removed(&self, cluster: &Rc<WorkerCluster>) {
        self.drain_where(|pool| pool.is_of(cluster.info()));
    }

    fn hosts_removed(&self, _cluster: &Rc<WorkerCluster>, hosts: &[Arc<Host>]) {
        self.drain_where(|pool| hosts.iter().any(|host| pool.leads_to(host)));
    }
}

impl fmt::Debug for HttpPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPools").field("pools", &self.pools.borrow().len()).finish_non_exhaustive()
    }
}

/// The reset that a failed connection attempt amounts to.
pub(crate) fn connect_failure(failure: ConnectFailure) -> Reset {
    let kind = match failure.kind {
        ConnectFailureKind::Timeout => ResetKind::ConnectionTimeout,
        ConnectFailureKind::Local => ResetKind::LocalConnectionFailure,
        ConnectFailureKind::Remote => ResetKind::RemoteConnectionFailure,
    };
    match failure.text.is_empty() {
        true => Reset::new(kind),
        false => Reset::with_transport(kind, failure.text),
    }
}
