//! The connections of one worker to one host.
//!
//! A request that finds no free connection waits in its pool's queue while connections are made; whichever connection
//! is ready first, new or released, takes the request that waits longest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dhow_net::Transport;
use dhow_proxy_api::LocalFuture;
use dhow_proxy_runtime::{LoadShedPoint, Worker, clock, overload};
use dhow_proxy_upstream::{
    ClusterInfo, ConnectionGuard, Health, Host, Http2Options, Permit, Resource, RoutingPriority,
    SecureOptions, UpstreamConnection, UpstreamProtocol, connect,
};
use tokio::sync::oneshot;

use super::UpstreamStream;
use super::h1::{H1Settings, H1Upstream};
use super::h2::H2Upstream;
use super::h2_connection::{H2Connection, H2Limits};
use super::loan::{PendingGuard, PooledH1};
use super::pools::{PoolKey, connect_failure};
use super::preconnect::{CONNECTIONS_AT_ONCE, Load};
use crate::reset::{Reset, ResetKind};
use crate::traffic::Traffic;
use crate::wire::Wire;

/// Idle timeouts below this are kept to the millisecond, others to the second of the sweep.
const SHORT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

type Waiter = oneshot::Sender<Result<UpstreamStream, Reset>>;

/// The connections of one worker to one host.
pub(crate) struct HostPool {
    worker: Rc<Worker>,
    info: Arc<ClusterInfo>,
    /// `per_upstream_preconnect_ratio`, as far as it is for this host.
    preconnect_ratio: f32,
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
    waiting: RefCell<VecDeque<Waiter>>,
    /// Streams under way.
    active: Cell<usize>,
    /// Connections that exist, busy or idle.
    open: Cell<usize>,
    connecting: Cell<usize>,
    draining: Cell<bool>,
    /// A task waits for the next idle timeout.
    watched: Cell<bool>,
    _permit: Permit,
}

impl HostPool {
    pub(super) fn new(
        worker: &Rc<Worker>,
        info: &Arc<ClusterInfo>,
        host: &Arc<Host>,
        key: &PoolKey,
        permit: Permit,
    ) -> Rc<Self> {
        let mut options = key.options.as_deref().cloned().unwrap_or_default();
        if options.socket_for(host).is_secure() {
            options.alpn = info.http.protocol.alpn(key.http2);
        }
        Rc::new(Self {
            worker: worker.clone(),
            info: info.clone(),
            preconnect_ratio: info.connections.preconnect_ratio_of(host.metadata()),
            host: host.clone(),
            priority: key.priority,
            http2: key.http2,
            options,
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            active: Cell::new(0),
            open: Cell::new(0),
            connecting: Cell::new(0),
            draining: Cell::new(false),
            watched: Cell::new(false),
            _permit: permit,
        })
    }

    /// Whether the pool's connections lead to this host.
    pub(super) fn leads_to(&self, host: &Arc<Host>) -> bool {
        Arc::ptr_eq(&self.host, host)
    }

    /// Whether the pool belongs to this cluster.
    pub(super) fn is_of(&self, info: &Arc<ClusterInfo>) -> bool {
        Arc::ptr_eq(&self.info, info)
    }

    /// Whether no request uses or waits for a connection.
    pub(super) fn is_idle(&self) -> bool {
        self.active.get() == 0 && self.waiting.borrow().is_empty()
    }

    /// Whether there are no connections either.
    pub(super) fn is_unused(&self) -> bool {
        self.open.get() == 0 && self.connecting.get() == 0 && self.waiting.borrow().is_empty()
    }

    /// A stream on a connection that is free.
    pub(super) fn take_ready(self: &Rc<Self>) -> Option<UpstreamStream> {
        let stream = self.take_free()?;
        if self.preconnect_ratio > 1.0 {
            self.connect_if_needed();
        }
        Some(stream)
    }

    fn take_free(self: &Rc<Self>) -> Option<UpstreamStream> {
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
        let connection = self.shared.borrow().iter().find(|connection| connection.room() > 0).cloned()?;
        let pool = Rc::downgrade(self);
        let released = Rc::downgrade(&connection);
        let on_release = move || {
            if let (Some(pool), Some(connection)) = (pool.upgrade(), released.upgrade()) {
                pool.on_stream_end(&connection);
            }
        };
        let slot = connection.take_slot(Rc::new(on_release));
        self.active.set(self.active.get() + 1);
        if connection.is_worn_out() {
            self.info.stats.upstream_cx_max_requests().inc();
            self.shared.borrow_mut().retain(|other| !Rc::ptr_eq(other, &connection));
        }
        Some(UpstreamStream::H2(Box::new(H2Upstream::new(slot))))
    }

    fn on_stream_end(self: &Rc<Self>, connection: &Rc<H2Connection>) {
        self.active.set(self.active.get() - 1);
        self.serve_waiting();
        if connection.active() > 0 {
            return;
        }
        connection.idle_since.set(clock::now());
        if self.draining.get() || connection.has_expired() {
            self.shared.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
        } else {
            self.watch_idle();
        }
    }

    /// Gives streams of HTTP/2 connections to requests that wait.
    fn serve_waiting(self: &Rc<Self>) {
        while let Some(waiter) = self.next_waiter() {
            let Some(stream) = self.open_shared() else {
                self.waiting.borrow_mut().push_front(waiter);
                self.connect_if_needed();
                return;
            };
            // A request that gave up meanwhile returns its stream by dropping it.
            let _ = waiter.send(Ok(stream));
        }
    }

    /// Lets connections end with what is under way on them.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.idle.take();
        self.shared.borrow_mut().retain(|connection| connection.active() > 0);
    }

    fn lend(self: &Rc<Self>, connection: Box<H1Upstream>) -> UpstreamStream {
        let max = self.info.http.max_requests_per_connection;
        if max.is_some_and(|max| connection.requests() + 1 == u64::from(max)) {
            self.info.stats.upstream_cx_max_requests().inc();
        }
        self.active.set(self.active.get() + 1);
        UpstreamStream::H1(PooledH1::new(connection, self.clone()))
    }

    /// Queues a request and makes a connection for it where limits allow.
    pub(super) fn enqueue(self: &Rc<Self>) -> Result<LocalFuture<Result<UpstreamStream, Reset>>, Reset> {
        let breakers = &self.info.circuit_breakers;
        let Some(permit) = breakers.try_acquire(self.priority, Resource::PendingRequests) else {
            return Err(Reset::new(ResetKind::Overflow));
        };
        let pending = PendingGuard::new(self, permit);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        let random = || self.worker.random();
        if self.needs_connection() && overload().sheds(LoadShedPoint::NewUpstreamConnection, random) {
            self.waiting.borrow_mut().pop_back();
            self.info.stats.upstream_rq_cancelled().inc();
            return Err(Reset::new(ResetKind::Overflow));
        }
        self.connect_if_needed();
        Ok(Box::pin(async move {
            let result = receiver.await;
            drop(pending);
            result.unwrap_or_else(|_| Err(Reset::new(ResetKind::LocalReset)))
        }))
    }

    /// Counts a request that begins to wait.
    pub(super) fn count_pending(&self) {
        self.info.stats.upstream_rq_pending_total().inc();
        self.info.stats.upstream_rq_pending_active().inc();
        self.host.stats().rq_pending_active.fetch_add(1, Ordering::Relaxed);
    }

    /// A request waits no longer.
    pub(super) fn uncount_pending(&self) {
        self.info.stats.upstream_rq_pending_active().dec();
        self.host.stats().rq_pending_active.fetch_sub(1, Ordering::Relaxed);
    }

    fn connect_if_needed(self: &Rc<Self>) {
        self.waiting.borrow_mut().retain(|waiter| !waiter.is_closed());
        for _ in 0..CONNECTIONS_AT_ONCE {
            if !self.needs_connection() {
                return;
            }
            let Some((permit, _)) = self.connection_permit() else { return };
            self.connect_with(permit);
        }
    }

    fn connect_with(self: &Rc<Self>, permit: Permit) {
        self.connecting.set(self.connecting.get() + 1);
        tokio::task::spawn_local(self.clone().connect_one(permit));
    }

    /// Place for one more connection under the limits of host and cluster, or in spite of them: then with `false`.
    fn connection_permit(&self) -> Option<(Permit, bool)> {
        let breakers = &self.info.circuit_breakers;
        let of_host = self.info.connections.max_per_host[self.priority as usize];
        let first = self.open.get() == 0 && self.connecting.get() == 0;
        // Those that are about to begin are not counted at the host yet.
        let own = (self.open.get() + self.connecting.get()) as u64;
        if self.host.stats().cx_active.load(Ordering::Relaxed).max(own) >= of_host {
            breakers.count_overflow(Resource::Connections);
        } else if let Some(permit) = breakers.try_acquire(self.priority, Resource::Connections) {
            return Some((permit, true));
        }
        // Every pool may have one connection, whatever the limits.
        first.then(|| (breakers.acquire(self.priority, Resource::Connections), false))
    }

    /// Makes a connection for a request that will come to this host, as long as there are too few for `ratio`. Whether one
    /// more may be tried elsewhere.
    pub(super) fn connect_ahead(self: &Rc<Self>, ratio: f32) -> bool {
        self.waiting.borrow_mut().retain(|waiter| !waiter.is_closed());
        let needs = match self.host.health() {
            Health::Healthy => self.load().will_need_connection(ratio),
            _ => self.load().needs_connection(1.0),
        };
        let random = || self.worker.random();
        if !needs || overload().sheds(LoadShedPoint::NewUpstreamConnection, random) {
            return false;
        }
        let Some((permit, within_limits)) = self.connection_permit() else { return false };
        self.connect_with(permit);
        within_limits
    }

    fn needs_connection(&self) -> bool {
        let ratio = match self.preconnect_ratio {
            // Who is not well is not burdened with more than there is to do.
            ratio if ratio > 1.0 && self.host.health() == Health::Healthy => ratio,
            _ => 1.0,
        };
        self.load().needs_connection(ratio)
    }

    /// What there is to do, and what to do it with.
    pub(super) fn load(&self) -> Load {
        let shared: usize = self.shared.borrow().iter().map(|connection| connection.room()).sum();
        let connecting = self.connecting.get() * self.streams_of_new_connection();
        Load {
            pending: self.waiting.borrow().len(),
            active: self.active.get(),
            capacity: self.idle.borrow().len() + shared + connecting,
        }
    }

    /// Streams that a connection will take once it is there.
    fn streams_of_new_connection(&self) -> usize {
        if !self.http2 {
            return 1;
        }
        let max = self.http2_options().max_concurrent_streams.unwrap_or(u32::MAX);
        max.min(self.info.http.max_requests_per_connection.unwrap_or(u32::MAX)) as usize
    }

    /// Whether connections speak what the other side chooses in the handshake.
    fn speaks_as_agreed(&self) -> bool {
        matches!(self.info.http.protocol, UpstreamProtocol::Auto(..))
    }

    /// Counts a connection by its protocol: an attempt, too, where the protocol is known before.
    fn count_protocol(&self, http2: bool) {
        let stats = &self.info.stats;
        if http2 {
            stats.upstream_cx_http2_total().inc();
            stats.http2();
        } else {
            stats.upstream_cx_http1_total().inc();
            stats.http1();
        }
    }

    async fn connect_one(self: Rc<Self>, permit: Permit) {
        if !self.speaks_as_agreed() {
            self.count_protocol(self.http2);
        }
        match connect(&self.info, &self.host, &self.options, Some(permit)).await {
            Ok(connection) => self.on_connected(connection).await,
            Err(failure) => {
                self.connecting.set(self.connecting.get() - 1);
                self.fail_waiting(&connect_failure(failure));
            }
        }
    }

    async fn on_connected(self: Rc<Self>, connection: UpstreamConnection) {
        let UpstreamConnection { transport, alpn, tls: _, local_address: _, guard } = connection;
        self.open.set(self.open.get() + 1);
        let expired = self.limit_life();
        let http2 = self.http2 || alpn.as_deref() == Some(b"h2");
        if self.speaks_as_agreed() {
            self.count_protocol(http2);
            // Envoy counts the connection again when it hands it to the codec that was agreed on.
            self.info.stats.upstream_cx_total().inc();
        }
        if http2 {
            self.on_http2_connected(transport, guard, expired).await;
            return;
        }
        self.connecting.set(self.connecting.get() - 1);
        let traffic = Traffic::of_hosts(&self.info.stats);
        let limit = self.info.per_connection_buffer_limit;
        let wire = Wire::new(transport, self.worker.buffers().clone(), limit, traffic);
        let settings = H1Settings::of(&self.info.http);
        self.put(Box::new(H1Upstream::new(wire, guard, settings, expired)));
    }

    fn http2_options(&self) -> &Http2Options {
        static DEFAULTS: Http2Options = Http2Options::DEFAULT;
        match &self.info.http.protocol {
            UpstreamProtocol::Http2(options)
            | UpstreamProtocol::Auto(_, options)
            | UpstreamProtocol::Downstream(_, options) => options,
            UpstreamProtocol::Http1(_) => &DEFAULTS,
        }
    }

    async fn on_http2_connected(
        self: Rc<Self>,
        transport: Transport,
        guard: ConnectionGuard,
        expired: Option<Rc<Cell<bool>>>,
    ) {
        let pool = Rc::downgrade(&self);
        let on_end = move || {
            if let Some(pool) = pool.upgrade() {
                pool.shared.borrow_mut().retain(|connection| !connection.is_draining());
                pool.forget();
            }
        };
        let limits = H2Limits { max_requests: self.info.http.max_requests_per_connection, expired };
        let started = H2Connection::start(
            transport,
            guard,
            &self.info,
            self.http2_options(),
            limits,
            &self.worker,
            on_end,
        )
        .await;
        self.connecting.set(self.connecting.get() - 1);
        match started {
            Ok(connection) => {
                self.shared.borrow_mut().push(connection);
                self.serve_waiting();
                self.watch_idle();
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
                Ok(()) => {
                    // As in Envoy each turn tries anew what limits did not allow before.
                    if !self.waiting.borrow().is_empty() {
                        self.connect_if_needed();
                    }
                    return;
                }
                Err(Ok(UpstreamStream::H1(mut refused))) => match refused.take_back() {
                    Some(back) => {
                        self.active.set(self.active.get() - 1);
                        connection = back;
                    }
                    None => return,
                },
                Err(_) => return,
            }
        }
        if self.draining.get() || connection.has_expired() {
            drop(connection);
            self.forget();
            return;
        }
        connection.idle_since = clock::now();
        self.idle.borrow_mut().push(connection);
        self.watch_idle();
    }

    fn next_waiter(&self) -> Option<Waiter> {
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
        if !self.draining.get() && (!self.waiting.borrow().is_empty() || self.preconnect_ratio > 1.0) {
            self.connect_if_needed();
        }
    }

    /// A request gives its connection back.
    pub(super) fn release(self: &Rc<Self>, connection: Box<H1Upstream>) {
        self.active.set(self.active.get() - 1);
        let max = self.info.http.max_requests_per_connection;
        let worn_out = max.is_some_and(|max| connection.requests() >= max.into());
        if connection.reusable() && !worn_out {
            self.put(connection);
        } else {
            drop(connection);
            self.forget();
        }
    }

    /// Closes connections that the host closed, and those idle for too long.
    pub(super) fn sweep(self: &Rc<Self>) {
        self.close_idle(|connection| connection.is_stale());
        self.shared.borrow_mut().retain(|c| !(c.is_draining() && c.active() == 0));
    }

    /// Closes idle connections whose time is over, and those of HTTP/1 that are `unfit`.
    fn close_idle(self: &Rc<Self>, unfit: impl Fn(&mut H1Upstream) -> bool) {
        let timeout = self.info.http.idle_timeout;
        let now = clock::now();
        let timed_out = |since| {
            let over = timeout.is_some_and(|timeout| now.saturating_duration_since(since) >= timeout);
            if over {
                self.info.stats.upstream_cx_idle_timeout().inc();
            }
            over
        };
        let mut gone = Vec::new();
        gone.extend(self.idle.borrow_mut().extract_if(.., |connection| {
            connection.has_expired() || unfit(connection) || timed_out(connection.idle_since)
        }));
        for connection in gone {
            drop(connection);
            self.forget();
        }
        self.shared.borrow_mut().retain(|connection| {
            connection.active() > 0 || !(connection.has_expired() || timed_out(connection.idle_since.get()))
        });
    }

    /// Sees to it that idle connections are closed in time where the sweep comes too seldom.
    fn watch_idle(self: &Rc<Self>) {
        let Some(timeout) = self.info.http.idle_timeout.filter(|timeout| *timeout < SHORT_IDLE_TIMEOUT)
        else {
            return;
        };
        if !self.watched.replace(true) {
            tokio::task::spawn_local(watch_idle(Rc::downgrade(self), timeout));
        }
    }

    /// Since when the connection that has been idle longest is.
    fn idle_since(&self) -> Option<std::time::Instant> {
        let shared = self.shared.borrow();
        let shared = shared.iter().filter(|c| c.active() == 0).map(|c| c.idle_since.get()).min();
        let exclusive = self.idle.borrow().iter().map(|c| c.idle_since).min();
        exclusive.into_iter().chain(shared).min()
    }

    /// Starts the time that a new connection may be used for; the flag tells when it is over.
    fn limit_life(self: &Rc<Self>) -> Option<Rc<Cell<bool>>> {
        let duration = self.info.http.max_connection_duration?;
        let expired = Rc::new(Cell::new(false));
        let (pool, flag) = (Rc::downgrade(self), Rc::downgrade(&expired));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(duration).await;
            if let (Some(pool), Some(flag)) = (pool.upgrade(), flag.upgrade()) {
                flag.set(true);
                pool.info.stats.upstream_cx_max_duration_reached().inc();
                pool.close_idle(|_| false);
            }
        });
        Some(expired)
    }
}

/// Closes the connections of a pool when they were idle for `timeout`, until none is idle.
async fn watch_idle(pool: Weak<HostPool>, timeout: Duration) {
    loop {
        let since = match pool.upgrade() {
            None => return,
            Some(pool) => match pool.idle_since() {
                Some(since) => since,
                None => {
                    pool.watched.set(false);
                    return;
                }
            },
        };
        tokio::time::sleep_until((since + timeout).into()).await;
        clock::forget();
        if let Some(pool) = pool.upgrade() {
            pool.close_idle(|_| false);
        }
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
