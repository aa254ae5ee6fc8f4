//! A listener on one worker: accept, inspect, choose the filter chain, shake hands, hand over.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dhow_base::ResponseFlag;
use dhow_net::Transport;
use dhow_proxy_api::{Connection, ConnectionHandler, ConnectionInfo, ConnectionObjects, Drain, DrainEvent};
use dhow_proxy_runtime::{ConnectionPlace, LoadShedPoint, OverloadAction, Worker, overload};
use dhow_stats::Store;
use dhow_tls::{DownstreamTls, TlsFailure, TlsInfo, TlsStats};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::accepting::{is_of_one_connection, next_connection, original_destination};
use crate::config::{ListenerConfig, OriginalDestination};
use crate::filter_chain::{ConnectionFacts, FilterChain};
use crate::inspect::{Inspected, inspect};
use crate::observed::{self, ConnectionLog};
use crate::proxy_protocol::ProxyProtocolStats;
use crate::stats::{ListenerStats, WorkerListenerStats};

/// How long accepting rests when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener as all workers share it.
#[derive(Debug)]
pub(crate) struct SharedListener {
    pub(crate) config: ListenerConfig,
    stats: ListenerStats,
    /// When a filter chain terminates TLS.
    tls_stats: Option<TlsStats>,
    /// With the listener filter of that name.
    proxy_protocol_stats: Option<ProxyProtocolStats>,
    connection_ids: Arc<AtomicU64>,
}

impl SharedListener {
    pub(crate) fn new(config: ListenerConfig, store: &Store, connection_ids: Arc<AtomicU64>) -> Self {
        let scope = store.scope(&format!("listener.{}.", config.stat_prefix));
        let secure = config.chains.iter().any(|chain| chain.tls.is_some());
        let tls_stats = secure.then(|| TlsStats::of_listener(&scope));
        if let Some(stats) = &tls_stats {
            config.chains.iter().filter_map(|chain| chain.tls.as_ref()).for_each(|tls| tls.count_in(stats));
        }
        Self {
            stats: scope.group(),
            tls_stats,
            proxy_protocol_stats: config
                .proxy_protocol
                .as_ref()
                .map(|filter| ProxyProtocolStats::new(filter, store)),
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

/// Our side of a connection.
#[derive(Clone, Copy)]
struct Local {
    address: SocketAddr,
    /// Whether the address was restored from before a redirection.
    restored: bool,
}

/// A connection as it was accepted.
struct Accepted {
    id: u64,
    peer: SocketAddr,
    local: Local,
    start: Instant,
    /// Its place among all connections of clients.
    place: ConnectionPlace,
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
            listeners.values().find(|listener| listener.shared.config.addresses.iter().any(fits)).cloned()
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
        sockets: Vec<StdListener>,
        store: &Store,
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
            gone.for_each(|chain| chain.retire(Drain::AtOnce, drain_time));
        }
        let stats = WorkerListenerStats::new(store, &shared.config.stat_prefix, worker.index());
        let listener = Rc::new(WorkerListener {
            shared,
            thread: worker.clone(),
            worker: stats,
            chains,
            siblings: self.this.clone(),
            accepting: RefCell::default(),
        });
        for socket in sockets {
            match TcpListener::from_std(socket) {
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
            listener.chains.iter().for_each(|chain| chain.retire(drain, drain_time));
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
        })
    }

    /// Drains the connections and closes those that are left after `drain_time`.
    fn retire(self: &Rc<Self>, drain: Drain, drain_time: Duration) {
        if self.retired.replace(true) {
            return;
        }
        self.handler.on_drain(DrainEvent::Begun(drain));
        if self.connections.borrow().is_empty() {
            return;
        }
        let chain = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(drain_time).await;
            chain.connections.take().into_values().for_each(|task| task.abort());
        });
    }
}

impl WorkerListener {
    fn stop_accepting(&self) {
        self.accepting.take().into_iter().for_each(|task| task.abort());
    }

    async fn accept_loop(self: Rc<Self>, socket: TcpListener) {
        let most = u64::from(self.shared.config.max_accepts);
        loop {
            let mut accepted = 0;
            while accepted < most {
                match next_connection(&socket, accepted == 0).await {
                    None => break,
                    Some(Ok((stream, peer))) => {
                        accepted += 1;
                        self.overloaded().await;
                        self.clone().accepted(stream, peer);
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

    fn accepted(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.place() else { return };
        let start = Instant::now();
        let id = self.shared.connection_ids.fetch_add(1, Ordering::Relaxed);
        // Heads and small bodies are written whole; waiting for more only adds delay. A failure here is the peer's reset,
        // which the first read reports.
        let _ = stream.set_nodelay(true);
        let Ok(own) = stream.local_addr() else { return };
        let restored = match self.shared.config.original_destination {
            OriginalDestination::Ignored => None,
            _ => original_destination(&stream).filter(|address| *address != own),
        };
        let heir =
            restored.filter(|_| self.shared.config.original_destination == OriginalDestination::HandedOff);
        let heir = heir.and_then(|address| self.siblings.upgrade()?.bound_to(address));
        let local = Local { address: restored.unwrap_or(own), restored: restored.is_some() };
        heir.unwrap_or(self).admit(stream, Accepted { id, peer, local, start, place });
    }

    /// Goes on with a connection that belongs to this listener.
    fn admit(self: Rc<Self>, stream: TcpStream, mut accepted: Accepted) {
        let config = &self.shared.config;
        if !config.inspect_tls && !config.inspect_http && config.proxy_protocol.is_none() {
            self.choose_and_start(stream, accepted, Inspected::default());
            return;
        }
        tokio::task::spawn_local(async move {
            match self.inspect(&stream, &mut accepted).await {
                Some(inspected) => self.choose_and_start(stream, accepted, inspected),
                None => self.log_unserved(accepted, Inspected::default(), None),
            }
        });
    }

    fn choose_and_start(self: &Rc<Self>, stream: TcpStream, accepted: Accepted, inspected: Inspected) {
        let facts = ConnectionFacts {
            destination: accepted.local.address,
            source: accepted.peer,
            server_name: inspected.server_name.as_deref(),
            transport_protocol: if inspected.tls { "tls" } else { "raw_buffer" },
            application_protocols: &inspected.application_protocols,
            record: inspected.record.as_deref(),
        };
        match self.choose(&facts) {
            Some(chain) => self.start(chain, stream, accepted, inspected),
            None => self.log_unserved(accepted, inspected, Some("filter_chain_not_found")),
        }
    }

    /// Logs a connection that came to no filter chain; `details` say that none was for it.
    fn log_unserved(&self, accepted: Accepted, inspected: Inspected, details: Option<&'static str>) {
        let logs = &self.shared.config.access_logs;
        if logs.is_empty() {
            return;
        }
        let log = ConnectionLog::new(logs, self.info(None, &accepted, inspected));
        if let Some(details) = details {
            let record = log.info.record_mut();
            let mut record = record.borrow_mut();
            record.flags.insert(ResponseFlag::NoRouteFound);
            record.details = Some(details.into());
        }
    }

    /// Looks at the first bytes; `None` when the connection ended or told nothing in time.
    async fn inspect(&self, stream: &TcpStream, accepted: &mut Accepted) -> Option<Inspected> {
        let config = &self.shared.config;
        let stats = &self.shared.stats;
        stats.downstream_pre_cx_active().inc();
        let work = async {
            let mut record = None;
            if let (Some(filter), Some(stats)) = (&config.proxy_protocol, &self.shared.proxy_protocol_stats) {
                let header = filter.take_header(stream, stats).await?;
                if let Some((source, destination)) = header.ends {
                    accepted.peer = source;
                    let restored = destination != accepted.local.address;
                    accepted.local = Local { address: destination, restored };
                }
                record = header.record;
            }
            let found = match config.inspect_tls || config.inspect_http {
                true => inspect(stream, config.inspect_tls, config.inspect_http).await?,
                false => Inspected::default(),
            };
            Ok::<_, io::Error>(Inspected { record, ..found })
        };
        let result = match config.inspection_timeout {
            Some(timeout) => tokio::time::timeout(timeout, work).await,
            None => Ok(work.await),
        };
        stats.downstream_pre_cx_active().dec();
        match result {
            Ok(Ok(inspected)) => Some(inspected),
            Ok(Err(error)) => {
                match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        stats.downstream_listener_filter_remote_close().inc();
                    }
                    // Refused by a listener filter, which counted it.
                    io::ErrorKind::InvalidData => {}
                    _ => stats.downstream_listener_filter_error().inc(),
                }
                None
            }
            Err(_) => {
                stats.downstream_pre_cx_timeout().inc();
                config.continue_on_timeout.then(Inspected::default)
            }
        }
    }

    fn choose(&self, facts: &ConnectionFacts<'_>) -> Option<Rc<WorkerChain>> {
        let chosen = self.shared.config.chains.choose(facts);
        let chain = chosen.and_then(|chosen| self.chains.iter().find(|c| Arc::ptr_eq(&c.chain, chosen)));
        if chain.is_none() {
            self.shared.stats.no_filter_chain_match().inc();
        }
        chain.cloned()
    }

    /// What is known of a connection before the handshake.
    fn info(&self, chain: Option<&FilterChain>, accepted: &Accepted, inspected: Inspected) -> ConnectionInfo {
        let config = &self.shared.config;
        let &Accepted { id, peer, local, start, .. } = accepted;
        let objects = ConnectionObjects::default();
        if let Some(record) = inspected.record {
            objects.get_or_insert_with(|| RefCell::new(*record));
        }
        // As in Envoy the name is only known to a listener that looks for it.
        ConnectionInfo {
            id,
            remote_address: peer,
            local_address: local.address,
            local_address_restored: local.restored,
            bypass_overload_manager: config.bypass_overload_manager,
            start,
            requested_server_name: inspected.server_name.map(Into::into),
            tls: None,
            filter_chain_name: chain.map_or_else(Arc::default, |chain| chain.name.clone()),
            listener_name: config.name.clone(),
            listener_metadata: config.metadata.clone(),
            filter_chain_metadata: chain.and_then(|chain| chain.metadata.clone()),
            buffer_limit: config.buffer_limit,
            objects,
        }
    }

    fn start(
        self: &Rc<Self>,
        chain: Rc<WorkerChain>,
        stream: TcpStream,
        accepted: Accepted,
        inspected: Inspected,
    ) {
        let info = self.info(Some(&chain.chain), &accepted, inspected);
        let Accepted { id, start, place, .. } = accepted;
        let active = ActiveConnection::new(self.clone(), chain.clone(), id, start, place);
        let handler = chain.handler.clone();
        // A task keeps what it was made of for as long as it runs: it is made of little more than the connection's future.
        let task = if !chain.chain.in_front.is_empty() || !self.shared.config.access_logs.is_empty() {
            let observed = Box::pin(self.clone().serve_observed(chain.clone(), stream, info));
            tokio::task::spawn_local(async move {
                let _active = active;
                observed.await;
            })
        } else if chain.chain.tls.is_none() {
            let served = handler.serve(Connection { transport: Transport::Tcp(stream), info: Rc::new(info) });
            tokio::task::spawn_local(async move {
                let _active = active;
                served.await;
            })
        } else {
            let secured = Box::pin(self.clone().secure(chain.clone(), stream, info));
            tokio::task::spawn_local(async move {
                let _active = active;
                if let Some(connection) = secured.await {
                    handler.serve(connection).await;
                }
            })
        };
        chain.connections.borrow_mut().insert(id, task.abort_handle());
    }

    /// Serves a connection that network filters or access logs of the listener look at.
    async fn serve_observed(self: Rc<Self>, chain: Rc<WorkerChain>, stream: TcpStream, info: ConnectionInfo) {
        let logs = &self.shared.config.access_logs;
        let mut log = ConnectionLog::new(logs, info);
        let mut filters: Vec<_> = chain.chain.in_front.iter().map(|filter| filter.create()).collect();
        if !observed::admit(&mut filters, &log.info).await {
            chain.handler.refuse(log.info.clone(), chain.chain.tls.is_some());
            return;
        }
        let transport = match &chain.chain.tls {
            None => Transport::Tcp(stream),
            Some(tls) => match self.handshake(tls, &chain.chain, stream).await {
                Ok((transport, session)) => {
                    let info = Rc::get_mut(&mut log.info).expect("nobody else holds it before it is served");
                    info.tls = Some(Box::new(session));
                    filters.iter_mut().for_each(|filter| filter.on_handshake(&log.info));
                    transport
                }
                Err(reason) => {
                    log.info.record_mut().borrow_mut().transport_failure = reason;
                    chain.handler.refuse(log.info.clone(), true);
                    return;
                }
            },
        };
        let logged = !logs.is_empty();
        observed::serve(chain.handler.clone(), transport, log.info.clone(), filters, logged).await;
    }

    /// Makes the TLS handshake of a chain that has one.
    async fn secure(
        self: Rc<Self>,
        chain: Rc<WorkerChain>,
        stream: TcpStream,
        info: ConnectionInfo,
    ) -> Option<Connection> {
        let tls = chain.chain.tls.as_ref()?;
        match self.handshake(tls, &chain.chain, stream).await {
            Ok((transport, session)) => {
                let info = ConnectionInfo { tls: Some(Box::new(session)), ..info };
                Some(Connection { transport, info: Rc::new(info) })
            }
            Err(reason) => {
                info.record_mut().borrow_mut().transport_failure = reason;
                chain.handler.refuse(Rc::new(info), true);
                None
            }
        }
    }

    /// The handshake; an error is what it failed with, when it failed with something.
    async fn handshake(
        &self,
        tls: &DownstreamTls,
        chain: &FilterChain,
        stream: TcpStream,
    ) -> Result<(Transport, TlsInfo), Option<Box<str>>> {
        let handshake = tls.accept(Transport::Tcp(stream));
        let result = match chain.handshake_timeout {
            Some(timeout) => match tokio::time::timeout(timeout, handshake).await {
                Ok(result) => result,
                Err(_) => {
                    self.shared.stats.downstream_cx_transport_socket_connect_timeout().inc();
                    return Err(None);
                }
            },
            None => handshake.await,
        };
        if let Some(stats) = &self.shared.tls_stats {
            stats.count(result.as_ref().map(|(_, info)| info));
        }
        match result {
            Ok((transport, mut info)) => {
                info.completed = Some(Instant::now());
                Ok((transport, info))
            }
            Err(error) => {
                tracing::debug!("listener '{}': TLS handshake failed: {error}", self.shared.config.name);
                Err(TlsFailure::of(&error).map(|failure| failure.to_string().into()))
            }
        }
    }
}

/// Counts a connection for as long as it exists, however it ends.
struct ActiveConnection {
    listener: Rc<WorkerListener>,
    chain: Rc<WorkerChain>,
    id: u64,
    start: Instant,
    _place: ConnectionPlace,
}

impl ActiveConnection {
    fn new(
        listener: Rc<WorkerListener>,
        chain: Rc<WorkerChain>,
        id: u64,
        start: Instant,
        place: ConnectionPlace,
    ) -> Self {
        let stats = &listener.shared.stats;
        stats.downstream_cx_total().inc();
        stats.downstream_cx_active().inc();
        listener.worker.downstream_cx_total().inc();
        listener.worker.downstream_cx_active().inc();
        Self { listener, chain, id, start, _place: place }
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        let stats = &self.listener.shared.stats;
        stats.downstream_cx_destroy().inc();
        stats.downstream_cx_active().dec();
        stats.downstream_cx_length_ms().record(self.start.elapsed().as_millis() as u64);
        self.listener.worker.downstream_cx_active().dec();
        self.chain.connections.borrow_mut().remove(&self.id);
    }
}
