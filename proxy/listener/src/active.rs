//! A listener on one worker: its sockets, its filter chains, and what becomes of them when it changes.

mod connection;
mod handshake;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dhow_net::{StreamAddress, Transport};
use dhow_proxy_api::{ConnectionHandler, DirectEnds, Drain, DrainEvent, DrainState};
use dhow_proxy_runtime::{ConnectionPlace, LoadShedPoint, OverloadAction, Worker, overload};
use dhow_stats::Store;
use dhow_tls::TlsStats;
use tokio::task::AbortHandle;

use self::connection::{Accepted, Local};
use crate::accepting::{ListeningSocket, is_of_one_connection, original_destination, unmapped};
use crate::config::{ListenerConfig, OriginalDestination};
use crate::filter_chain::FilterChain;
use crate::inspect::InspectionStats;
use crate::proxy_protocol::ProxyProtocolStats;
use crate::sockets::BoundSocket;
use crate::stats::{DiscoveryStats, ListenerStats, WorkerListenerStats};

/// How long accepting rests when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener as all workers share it.
#[derive(Debug)]
pub(crate) struct SharedListener {
    pub(crate) config: ListenerConfig,
    /// Where it is counted.
    store: Store,
    stats: ListenerStats,
    /// Kept, so that they exist.
    _discovery: Option<DiscoveryStats>,
    /// When a filter chain terminates TLS.
    tls_stats: Option<TlsStats>,
    /// With the listener filter of that name.
    proxy_protocol_stats: Option<ProxyProtocolStats>,
    inspection_stats: InspectionStats,
    connection_ids: Arc<AtomicU64>,
}

impl SharedListener {
    /// A listener of the configuration, or else that of the admin interface.
    pub(crate) fn new(
        config: ListenerConfig,
        store: &Store,
        connection_ids: Arc<AtomicU64>,
        configured: bool,
    ) -> Self {
        let scope = store.scope(&format!("listener.{}.", config.stat_prefix));
        let secure = config.chains.iter().any(|chain| chain.tls.is_some());
        let tls_stats = secure.then(|| TlsStats::of_listener(&scope));
        if let Some(stats) = &tls_stats {
            config.chains.iter().filter_map(|chain| chain.tls.as_ref()).for_each(|tls| tls.count_in(stats));
        }
        Self {
            store: store.clone(),
            stats: scope.group(),
            _discovery: configured.then(|| scope.group()),
            tls_stats,
            proxy_protocol_stats: config
                .proxy_protocol
                .as_ref()
                .map(|(filter, _)| ProxyProtocolStats::new(filter, store)),
            inspection_stats: InspectionStats::new(
                store,
                config.inspect_tls.is_there(),
                config.inspect_http.is_there(),
            ),
            config,
            connection_ids,
        }
    }
}

/// The listeners of one worker, by name.
pub(crate) struct WorkerListeners {
    this: Weak<Self>,
    listeners: RefCell<HashMap<Arc<str>, Rc<WorkerListener>>>,
    /// Whether the process is made to fail its health checks.
    failing: Cell<bool>,
    /// How the process drains, and whether only inbound listeners do.
    drain: Cell<Option<(Drain, bool)>>,
}

struct WorkerListener {
    shared: Arc<SharedListener>,
    thread: Rc<Worker>,
    worker: WorkerListenerStats,
    chains: Vec<Rc<WorkerChain>>,
    siblings: Weak<WorkerListeners>,
    accepting: RefCell<Vec<AbortHandle>>,
}

/// A filter chain on one worker, and its connections.
struct WorkerChain {
    chain: Arc<FilterChain>,
    handler: Rc<dyn ConnectionHandler>,
    connections: RefCell<HashMap<u64, AbortHandle>>,
    retired: Cell<bool>,
    draining: DrainState,
}

impl WorkerListeners {
    /// The listeners of this worker.
    pub(crate) fn of(worker: &Rc<Worker>) -> Rc<Self> {
        worker.extension(|_| {
            Rc::new_cyclic(|this| Self {
                this: this.clone(),
                listeners: RefCell::default(),
                failing: Cell::default(),
                drain: Cell::default(),
            })
        })
    }

    /// The listener of an address, or else that of its port on all addresses.
    fn bound_to(&self, address: SocketAddr) -> Option<Rc<WorkerListener>> {
        let listeners = self.listeners.borrow();
        let with = |fits: &dyn Fn(&SocketAddr) -> bool| {
            let bound = |listener: &&Rc<WorkerListener>| {
                let addresses = &listener.shared.config.addresses;
                addresses.iter().filter_map(|own| own.address.as_ip()).any(|own| fits(&own))
            };
            listeners.values().find(bound).cloned()
        };
        let any = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == address.port();
        with(&|own| *own == address).or_else(|| with(&any))
    }

    /// Starts a listener, replacing the one of the same name. Filter chains that both have go on with their connections;
    /// the others drain.
    pub(crate) fn install(
        &self,
        worker: &Rc<Worker>,
        shared: Arc<SharedListener>,
        sockets: Vec<BoundSocket>,
        drain_time: Duration,
    ) {
        let name = shared.config.name.clone();
        let old = self.listeners.borrow_mut().remove(&name);
        let chains = shared.config.chains.iter().map(|chain| {
            let kept = old.as_ref().and_then(|old| old.chains.iter().find(|c| Arc::ptr_eq(&c.chain, chain)));
            kept.cloned().unwrap_or_else(|| WorkerChain::new(worker, chain))
        });
        let chains: Vec<_> = chains.collect();
        if let Some(old) = &old {
            old.stop_accepting();
            let gone = old.chains.iter().filter(|chain| !chains.iter().any(|kept| Rc::ptr_eq(kept, chain)));
            gone.for_each(|chain| chain.retire(Drain::AtOnce, drain_time, true));
        }
        let stats = WorkerListenerStats::new(&shared.store, &shared.config.stat_prefix, &worker.stat_name());
        let listener = Rc::new(WorkerListener {
            shared,
            thread: worker.clone(),
            worker: stats,
            chains,
            siblings: self.this.clone(),
            accepting: RefCell::default(),
        });
        for socket in sockets {
            match ListeningSocket::watch(socket) {
                Ok(socket) => {
                    let task = tokio::task::spawn_local(listener.clone().accept_loop(socket));
                    listener.accepting.borrow_mut().push(task.abort_handle());
                }
                Err(error) => tracing::error!("listener '{name}': cannot watch its socket: {error}"),
            }
        }
        if self.failing.get() {
            listener.tell_health(true);
        }
        if let Some((drain, inbound_only)) = self.drain.get() {
            listener.tell_drain(drain, inbound_only);
        }
        self.listeners.borrow_mut().insert(name, listener);
    }

    /// Stops a listener; its connections may go on for `drain_time` and are told to end meanwhile.
    pub(crate) fn remove(&self, name: &str, drain: Drain, drain_time: Duration) {
        if let Some(listener) = self.listeners.borrow_mut().remove(name) {
            listener.stop_accepting();
            listener.chains.iter().for_each(|chain| chain.retire(drain, drain_time, false));
        }
    }

    /// Stops accepting everywhere, or on inbound listeners. Connections go on.
    pub(crate) fn stop(&self, inbound_only: bool) {
        for listener in self.listeners.borrow().values() {
            if !inbound_only || listener.shared.config.inbound {
                listener.stop_accepting();
            }
        }
    }

    /// The process is made to fail its health checks, or no longer.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.set(failing);
        self.listeners.borrow().values().for_each(|listener| listener.tell_health(failing));
    }

    /// Connections begin to be told to end, everywhere or on inbound listeners.
    pub(crate) fn drain(&self, drain: Drain, inbound_only: bool) {
        self.drain.set(Some((drain, inbound_only)));
        self.listeners.borrow().values().for_each(|listener| listener.tell_drain(drain, inbound_only));
    }
}

impl WorkerListener {
    fn tell_health(&self, failing: bool) {
        let ends_connections = !self.shared.config.drain_on_modify_only;
        let event = DrainEvent::HealthChecks { failing, ends_connections };
        self.chains.iter().for_each(|chain| chain.handler.on_drain(event));
    }

    fn tell_drain(&self, drain: Drain, inbound_only: bool) {
        if !inbound_only || self.shared.config.inbound {
            self.chains.iter().for_each(|chain| chain.handler.on_drain(DrainEvent::Begun(drain)));
        }
    }
}

impl WorkerChain {
    fn new(worker: &Rc<Worker>, chain: &Arc<FilterChain>) -> Rc<Self> {
        Rc::new(Self {
            chain: chain.clone(),
            handler: chain.filter.on_worker(worker),
            connections: RefCell::default(),
            retired: Cell::new(false),
            draining: DrainState::default(),
        })
    }

    fn tell(&self, event: DrainEvent) {
        self.draining.apply(event);
        self.handler.on_drain(event);
    }

    /// Drains the connections and closes those that are left after `drain_time`; `replaced` when the listener goes on without
    /// the chain.
    fn retire(self: &Rc<Self>, drain: Drain, drain_time: Duration, replaced: bool) {
        if self.retired.replace(true) {
            return;
        }
        self.tell(DrainEvent::Begun(drain));
        if self.connections.borrow().is_empty() {
            return;
        }
        let chain = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(drain_time).await;
            if replaced {
                chain.tell(DrainEvent::ChainGone);
            }
            chain.connections.take().into_values().for_each(|task| task.abort());
        });
    }
}

impl WorkerListener {
    fn stop_accepting(&self) {
        self.accepting.take().into_iter().for_each(|task| task.abort());
    }

    async fn accept_loop(self: Rc<Self>, socket: ListeningSocket) {
        let most = u64::from(self.shared.config.max_accepts);
        loop {
            let mut accepted = 0;
            while accepted < most {
                match socket.next_connection(accepted == 0).await {
                    None => break,
                    Some(Ok((stream, peer))) => {
                        accepted += 1;
                        self.overloaded().await;
                        self.clone().accepted(&socket, stream, peer);
                    }
                    Some(Err(error)) if is_of_one_connection(&error) => {}
                    Some(Err(error)) => {
                        tracing::warn!("listener '{}': cannot accept: {error}", self.shared.config.name);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            self.shared.stats.connections_accepted_per_socket_event().record(accepted);
            if accepted == most {
                // The connections that were accepted before go first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits while no connections are accepted because of overload. To the one that waits with us it makes no difference
    /// whether that is here or in the kernel's queue.
    async fn overloaded(&self) {
        let random = || self.thread.random();
        while !self.shared.config.bypass_overload_manager
            && overload().applies(OverloadAction::StopAcceptingConnections, random)
        {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    /// The place of a connection, if it can be served.
    fn place(&self) -> Option<ConnectionPlace> {
        let stats = &self.shared.stats;
        let config = &self.shared.config;
        if config.bypass_overload_manager {
            return Some(ConnectionPlace::default());
        }
        let place = match config.ignore_global_conn_limit {
            true => Some(ConnectionPlace::default()),
            false => overload().take_place(),
        };
        if place.is_none() {
            stats.downstream_global_cx_overflow().inc();
            return None;
        }
        let random = || self.thread.random();
        if overload().applies(OverloadAction::RejectIncomingConnections, random)
            || overload().sheds(LoadShedPoint::TcpListenerAccept, random)
        {
            stats.downstream_cx_overload_reject().inc();
            return None;
        }
        place
    }

    fn accepted(self: Rc<Self>, socket: &ListeningSocket, transport: Transport, peer: StreamAddress) {
        let Some(place) = self.place() else { return };
        let start = Instant::now();
        let id = self.shared.connection_ids.fetch_add(1, Ordering::Relaxed);
        let (own, restored) = match &transport {
            Transport::Tcp(stream) => {
                // On Linux it comes with the listening socket. A failure here is the peer's reset, which the first read reports.
                #[cfg(not(target_os = "linux"))]
                let _ = stream.set_nodelay(true);
                let Ok(mut own_ip) = socket.own_address(stream) else { return };
                if peer.ip().is_some_and(|peer| peer.is_ipv4()) && own_ip.is_ipv6() {
                    own_ip = unmapped(own_ip);
                }
                let own = StreamAddress::Ip(own_ip);
                let restored = match &self.shared.config.original_destination {
                    OriginalDestination::Restored(scope) if !scope.includes(&own) => None,
                    _ => original_destination(stream, own_ip).filter(|address| *address != own_ip),
                };
                (own, restored)
            }
            _ => (peer.clone(), None),
        };
        let heir =
            restored.filter(|_| self.shared.config.original_destination == OriginalDestination::HandedOff);
        let heir = heir.and_then(|address| self.siblings.upgrade()?.bound_to(address));
        let direct = restored.map(|_| Box::new(DirectEnds { remote: peer.clone(), local: own.clone() }));
        let local = Local { address: restored.map_or(own, StreamAddress::Ip), restored: restored.is_some() };
        heir.unwrap_or(self).admit(transport, Accepted { id, peer, local, direct, start, place });
    }
}
