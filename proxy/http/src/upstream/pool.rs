//! Connection pools: per worker, host, priority and transport-socket options, as in Envoy.
//!
//! A request that finds no free connection waits in its pool's queue while connections are made; whichever connection
//! is ready first, new or released, takes the request that waits longest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dhow_net::Transport;
use dhow_proxy_api::LocalFuture;
use dhow_proxy_runtime::Worker;
use dhow_proxy_upstream::{
    ClusterInfo, ClusterObserver, ConnectFailure, ConnectFailureKind, ConnectionGuard, Host, Http2Options,
    Permit, Resource, RoutingPriority, SecureOptions, UpstreamConnection, UpstreamProtocol, WorkerCluster,
    connect,
};
use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::UpstreamStream;
use super::h1::{H1Settings, H1Upstream};
use super::h2::H2Upstream;
use super::h2_connection::H2Connection;
use crate::reset::{Reset, ResetKind};
use crate::wire::Wire;

/// How often idle connections are looked at: for those that the host closed, and for idle timeouts.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All HTTP connection pools of one worker.
pub(crate) struct HttpPools {
    worker: Rc<Worker>,
    pools: RefCell<HashMap<PoolKey, Rc<HostPool>, foldhash::fast::RandomState>>,
    sweeps: Cell<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PoolKey {
    host: usize,
    priority: RoutingPriority,
    http2: bool,
    options: SecureOptions,
}

impl Hash for PoolKey {
    /// A host hardly ever has two pools: the other parts are left to the comparison.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.host);
    }
}

/// A stream to a host, at once or when a connection is ready.
pub(crate) enum Acquired {
    /// A connection was free.
    Ready(UpstreamStream),
    /// One is being made, or will be released. Dropping the future gives up the place in the queue.
    Wait(LocalFuture<Result<UpstreamStream, Reset>>),
}

impl HttpPools {
    /// The pools of a worker; a local task watches over idle connections for as long as they exist.
    pub(crate) fn start(worker: &Rc<Worker>) -> Rc<Self> {
        let pools = Rc::new(Self { worker: worker.clone(), pools: RefCell::default(), sweeps: Cell::new(0) });
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
        self.sweeps.set(self.sweeps.get().wrapping_add(1));
        let pools: Vec<_> = self.pools.borrow().values().cloned().collect();
        for pool in pools {
            pool.sweep(self.sweeps.get());
        }
        self.pools.borrow_mut().retain(|_, pool| !pool.is_unused());
    }

    /// Takes a free connection to the host, or a place in the queue for one.
    ///
    /// # Errors
    /// [`ResetKind::Overflow`] when the circuit breaker for waiting requests is open.
    pub(crate) fn acquire(
        self: &Rc<Self>,
        cluster: &Rc<WorkerCluster>,
        host: &Arc<Host>,
        priority: RoutingPriority,
        downstream_http2: bool,
        options: SecureOptions,
    ) -> Result<Acquired, Reset> {
        let info = cluster.info();
        let http2 = match info.http.protocol {
            UpstreamProtocol::Http1(_) | UpstreamProtocol::Auto(..) => false,
            UpstreamProtocol::Http2(_) => true,
            UpstreamProtocol::Downstream(..) => downstream_http2,
        };
        let key = PoolKey { host: Arc::as_ptr(host) as usize, priority, http2, options };
        let pool = self.pool(key, info, host);
        if let Some(stream) = pool.take_ready() {
            return Ok(Acquired::Ready(stream));
        }
        pool.enqueue().map(Acquired::Wait)
    }

    fn pool(&self, key: PoolKey, info: &Arc<ClusterInfo>, host: &Arc<Host>) -> Rc<HostPool> {
        if let Some(pool) = self.pools.borrow().get(&key) {
            return pool.clone();
        }
        let pool = Rc::new(HostPool {
            worker: self.worker.clone(),
            info: info.clone(),
            host: host.clone(),
            priority: key.priority,
            http2: key.http2,
            options: key.options.clone(),
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            open: Cell::new(0),
            connecting: Cell::new(0),
            draining: Cell::new(false),
            sweep: Cell::new(self.sweeps.get()),
        });
        self.pools.borrow_mut().insert(key, pool.clone());
        pool
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
        self.drain_where(|pool| Arc::ptr_eq(&pool.info, cluster.info()));
    }

    fn hosts_removed(&self, _cluster: &Rc<WorkerCluster>, hosts: &[Arc<Host>]) {
        self.drain_where(|pool| hosts.iter().any(|host| Arc::ptr_eq(host, &pool.host)));
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

/// The connections of one worker to one host.
pub(crate) struct HostPool {
    worker: Rc<Worker>,
    info: Arc<ClusterInfo>,
    host: Arc<Host>,
    priority: RoutingPriority,
    http2: bool,
    options: SecureOptions,
    #[allow(
        clippy::vec_box,
        reason = "a connection moves between here and its loans; the box spares copying it"
    )]
    idle: RefCell<Vec<Box<H1Upstream>>>,
    /// HTTP/2 connections, shared by streams.
    shared: RefCell<Vec<Rc<H2Connection>>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Result<UpstreamStream, Reset>>>>,
    /// Connections that exist, busy or idle.
    open: Cell<usize>,
    connecting: Cell<usize>,
    draining: Cell<bool>,
    sweep: Cell<u32>,
}

impl HostPool {
    fn take_ready(self: &Rc<Self>) -> Option<UpstreamStream> {
        if let Some(stream) = self.open_shared() {
            return Some(stream);
        }
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.is_stale() {
                self.forget();
                continue;
            }
            return Some(self.lend(connection));
        }
    }

    /// A stream on an HTTP/2 connection that has room.
    fn open_shared(self: &Rc<Self>) -> Option<UpstreamStream> {
        let connection = self.shared.borrow().iter().find(|connection| connection.has_room()).cloned()?;
        let pool = Rc::downgrade(self);
        let released = Rc::downgrade(&connection);
        let on_release = move || {
            if let (Some(pool), Some(connection)) = (pool.upgrade(), released.upgrade()) {
                pool.on_stream_end(&connection);
            }
        };
        let (slot, requests) = connection.take_slot(Rc::new(on_release));
        if connection.is_worn_out(requests) {
            self.info.stats.upstream_cx_max_requests().inc();
            self.shared.borrow_mut().retain(|other| !Rc::ptr_eq(other, &connection));
        }
        Some(UpstreamStream::H2(Box::new(H2Upstream::new(slot))))
    }

    fn on_stream_end(self: &Rc<Self>, connection: &Rc<H2Connection>) {
        connection.idle_since.set(self.sweep.get());
        self.serve_waiting();
        if self.draining.get() && connection.active() == 0 {
            self.shared.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
        }
    }

    /// Gives streams of HTTP/2 connections to requests that wait.
    fn serve_waiting(self: &Rc<Self>) {
        while let Some(waiter) = self.next_waiter() {
            let Some(stream) = self.open_shared() else {
                self.waiting.borrow_mut().push_front(waiter);
                return;
            };
            // A request that gave up meanwhile returns its stream by dropping it.
            let _ = waiter.send(Ok(stream));
        }
    }

    /// Lets connections end with what is under way on them.
    fn drain(&self) {
        self.draining.set(true);
        self.idle.take();
        self.shared.borrow_mut().retain(|connection| connection.active() > 0);
    }

    fn lend(self: &Rc<Self>, connection: Box<H1Upstream>) -> UpstreamStream {
        UpstreamStream::H1(PooledH1 { connection: Some(connection), pool: self.clone() })
    }

    /// Queues a request and makes a connection for it where limits allow.
    fn enqueue(self: &Rc<Self>) -> Result<LocalFuture<Result<UpstreamStream, Reset>>, Reset> {
        let breakers = &self.info.circuit_breakers;
        let Some(permit) = breakers.try_acquire(self.priority, Resource::PendingRequests) else {
            return Err(Reset::new(ResetKind::Overflow));
        };
        let pending = PendingGuard::new(self, permit);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        self.connect_if_needed();
        Ok(Box::pin(async move {
            let result = receiver.await;
            drop(pending);
            result.unwrap_or_else(|_| Err(Reset::new(ResetKind::LocalReset)))
        }))
    }

    fn connect_if_needed(self: &Rc<Self>) {
        self.waiting.borrow_mut().retain(|waiter| !waiter.is_closed());
        while self.connecting.get() < self.connections_wanted() {
            let breakers = &self.info.circuit_breakers;
            let permit = match breakers.try_acquire(self.priority, Resource::Connections) {
                Some(permit) => permit,
                // Every host may have one connection, whatever the limit.
                None if self.open.get() == 0 && self.connecting.get() == 0 => {
                    breakers.acquire(self.priority, Resource::Connections)
                }
                None => return,
            };
            self.connecting.set(self.connecting.get() + 1);
            tokio::task::spawn_local(self.clone().connect_one(permit));
        }
    }

    /// Connections that the waiting requests need: one each, or one for all where streams share it.
    fn connections_wanted(&self) -> usize {
        let waiting = self.waiting.borrow().len();
        if self.http2 { waiting.min(1) } else { waiting }
    }

    async fn connect_one(self: Rc<Self>, permit: Permit) {
        let connected = connect(&self.info, &self.host, &self.options, Some(permit)).await;
        self.connecting.set(self.connecting.get() - 1);
        match connected {
            Ok(connection) => self.on_connected(connection).await,
            Err(failure) => self.fail_waiting(&connect_failure(failure)),
        }
    }

    async fn on_connected(self: Rc<Self>, connection: UpstreamConnection) {
        let UpstreamConnection { transport, alpn, tls: _, local_address: _, guard } = connection;
        let http2 = self.http2 || alpn.as_deref() == Some(b"h2");
        self.open.set(self.open.get() + 1);
        if http2 {
            self.on_http2_connected(transport, guard).await;
            return;
        }
        self.info.stats.upstream_cx_http1_total().inc();
        let wire = Wire::new(transport, self.worker.buffers().clone());
        self.put(Box::new(H1Upstream::new(wire, guard, H1Settings::of(&self.info.http))));
    }

    async fn on_http2_connected(self: Rc<Self>, transport: Transport, guard: ConnectionGuard) {
        self.info.stats.upstream_cx_http2_total().inc();
        let defaults = Http2Options::default();
        let options = match &self.info.http.protocol {
            UpstreamProtocol::Http2(options)
            | UpstreamProtocol::Auto(_, options)
            | UpstreamProtocol::Downstream(_, options) => options,
            UpstreamProtocol::Http1(_) => &defaults,
        };
        let pool = Rc::downgrade(&self);
        let on_end = move || {
            if let Some(pool) = pool.upgrade() {
                pool.shared.borrow_mut().retain(|connection| !connection.is_draining());
                pool.forget();
            }
        };
        let max_requests = self.info.http.max_requests_per_connection;
        match H2Connection::start(transport, guard, options, max_requests, on_end).await {
            Ok(connection) => {
                connection.idle_since.set(self.sweep.get());
                self.shared.borrow_mut().push(connection);
                self.serve_waiting();
            }
            Err(reset) => {
                self.forget();
                self.fail_waiting(&reset);
            }
        }
    }

    fn fail_waiting(&self, reset: &Reset) {
        for waiter in self.waiting.take() {
            self.info.stats.upstream_rq_pending_failure_eject().inc();
            let _ = waiter.send(Err(reset.clone()));
        }
    }

    /// Takes a connection back, or a new one in.
    fn put(self: &Rc<Self>, mut connection: Box<H1Upstream>) {
        while let Some(waiter) = self.next_waiter() {
            match waiter.send(Ok(self.lend(connection))) {
                Ok(()) => return,
                Err(Ok(UpstreamStream::H1(mut refused))) => match refused.connection.take() {
                    Some(back) => connection = back,
                    None => return,
                },
                Err(_) => return,
            }
        }
        if self.draining.get() {
            self.forget();
            return;
        }
        connection.idle_since = self.sweep.get();
        self.idle.borrow_mut().push(connection);
    }

    fn next_waiter(&self) -> Option<oneshot::Sender<Result<UpstreamStream, Reset>>> {
        let mut waiting = self.waiting.borrow_mut();
        loop {
            let waiter = waiting.pop_front()?;
            if !waiter.is_closed() {
                return Some(waiter);
            }
        }
    }

    /// A connection is gone; a request that waits may have a new one.
    fn forget(self: &Rc<Self>) {
        self.open.set(self.open.get() - 1);
        if !self.waiting.borrow().is_empty() {
            self.connect_if_needed();
        }
    }

    fn release(self: &Rc<Self>, connection: Box<H1Upstream>) {
        let max = self.info.http.max_requests_per_connection;
        let worn_out = max.is_some_and(|max| connection.requests() >= max.into());
        let reusable = connection.reusable();
        if reusable && worn_out {
            self.info.stats.upstream_cx_max_requests().inc();
        }
        if reusable && !worn_out {
            self.put(connection);
        } else {
            drop(connection);
            self.forget();
        }
    }

    fn sweep(self: &Rc<Self>, sweep: u32) {
        self.sweep.set(sweep);
        let timeout = self.info.http.idle_timeout;
        let mut gone = 0;
        self.idle.borrow_mut().retain_mut(|connection| {
            let idle = SWEEP_INTERVAL * sweep.wrapping_sub(connection.idle_since);
            let timed_out = timeout.is_some_and(|timeout| idle >= timeout);
            if timed_out {
                self.info.stats.upstream_cx_idle_timeout().inc();
            }
            let keep = !timed_out && !connection.is_stale();
            gone += usize::from(!keep);
            keep
        });
        for _ in 0..gone {
            self.forget();
        }
        self.shared.borrow_mut().retain(|connection| {
            let idle = SWEEP_INTERVAL * sweep.wrapping_sub(connection.idle_since.get());
            let timed_out = connection.active() == 0 && timeout.is_some_and(|timeout| idle >= timeout);
            if timed_out {
                self.info.stats.upstream_cx_idle_timeout().inc();
            }
            let ended = connection.is_draining() && connection.active() == 0;
            !(timed_out || ended)
        });
    }

    fn is_unused(&self) -> bool {
        self.open.get() == 0 && self.connecting.get() == 0 && self.waiting.borrow().is_empty()
    }
}

impl fmt::Debug for HostPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostPool")
            .field("host", &self.host.address())
            .field("open", &self.open.get())
            .field("waiting", &self.waiting.borrow().len())
            .finish_non_exhaustive()
    }
}

/// An HTTP/1 connection on loan from its pool; dropping it gives it back, or closes it when it cannot be used again.
pub(crate) struct PooledH1 {
    connection: Option<Box<H1Upstream>>,
    pool: Rc<HostPool>,
}

impl std::ops::Deref for PooledH1 {
    type Target = H1Upstream;

    fn deref(&self) -> &H1Upstream {
        self.connection.as_ref().expect("the connection is taken out only when the loan ends")
    }
}

impl std::ops::DerefMut for PooledH1 {
    fn deref_mut(&mut self) -> &mut H1Upstream {
        self.connection.as_mut().expect("the connection is taken out only when the loan ends")
    }
}

impl Drop for PooledH1 {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.release(connection);
        }
    }
}

impl fmt::Debug for PooledH1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledH1").field(&self.connection).finish()
    }
}

/// A request that waits for a connection: its place under the circuit breaker and in the gauges.
struct PendingGuard {
    pool: Rc<HostPool>,
    _permit: Permit,
}

impl PendingGuard {
    fn new(pool: &Rc<HostPool>, permit: Permit) -> Self {
        pool.info.stats.upstream_rq_pending_total().inc();
        pool.info.stats.upstream_rq_pending_active().inc();
        pool.host.stats().rq_pending_active.fetch_add(1, Ordering::Relaxed);
        Self { pool: pool.clone(), _permit: permit }
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.pool.info.stats.upstream_rq_pending_active().dec();
        self.pool.host.stats().rq_pending_active.fetch_sub(1, Ordering::Relaxed);
    }
}
