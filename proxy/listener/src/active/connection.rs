//! A connection from its acceptance until its filter chain is chosen.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dhow_base::ResponseFlag;
use dhow_net::{StreamAddress, Transport};
use dhow_proxy_api::{Connection, ConnectionInfo, ConnectionObjects, ConnectionTls, DirectEnds};
use dhow_proxy_runtime::ConnectionPlace;

use super::{WorkerChain, WorkerListener};
use crate::filter_chain::{ConnectionFacts, FilterChain};
use crate::inspect::{Inspected, Sought, inspect};
use crate::observed::ConnectionLog;

/// Our side of a connection.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) address: StreamAddress,
    /// Whether the address was restored from before a redirection.
    pub(super) restored: bool,
}

/// A connection as it was accepted.
pub(super) struct Accepted {
    pub(super) id: u64,
    pub(super) peer: StreamAddress,
    pub(super) local: Local,
    /// The ends of the socket, once one of them is another.
    pub(super) direct: Option<Box<DirectEnds>>,
    pub(super) start: Instant,
    /// Its place among all connections of clients.
    pub(super) place: ConnectionPlace,
}

impl WorkerListener {
    /// Goes on with a connection that belongs to this listener.
    pub(super) fn admit(self: Rc<Self>, stream: Transport, mut accepted: Accepted) {
        let config = &self.shared.config;
        let local = &accepted.local.address;
        if !config.inspect_tls.includes(local)
            && !config.inspect_http.includes(local)
            && config.proxy_protocol.is_none()
        {
            // Every connection passes through this state in Envoy, which makes the gauge one that was used.
            self.shared.stats.downstream_pre_cx_active().add(0);
            self.choose_and_start(stream, accepted, Inspected::default());
            return;
        }
        tokio::task::spawn_local(async move {
            let mut inspected = Inspected::default();
            match self.inspect(stream, &mut accepted, &mut inspected).await {
                Some(stream) => self.choose_and_start(stream, accepted, inspected),
                None => self.log_unserved(accepted, inspected, None),
            }
        });
    }

    fn choose_and_start(self: &Rc<Self>, stream: Transport, accepted: Accepted, inspected: Inspected) {
        let facts = ConnectionFacts {
            destination: &accepted.local.address,
            source: &accepted.peer,
            direct_source: accepted.direct.as_ref().map_or(&accepted.peer, |direct| &direct.remote),
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
    async fn inspect(
        &self,
        stream: Transport,
        accepted: &mut Accepted,
        inspected: &mut Inspected,
    ) -> Option<Transport> {
        let config = &self.shared.config;
        let stats = &self.shared.stats;
        stats.downstream_pre_cx_active().inc();
        let work = async {
            if let (Some((filter, scope)), Some(stats)) =
                (&config.proxy_protocol, &self.shared.proxy_protocol_stats)
                && scope.includes(&accepted.local.address)
            {
                let header = filter.take_header(&stream, stats).await?;
                if let Some((source, destination)) = header.ends {
                    accepted.direct.get_or_insert_with(|| {
                        let local = accepted.local.address.clone();
                        Box::new(DirectEnds { remote: accepted.peer.clone(), local })
                    });
                    accepted.peer = source.into();
                    let address = StreamAddress::Ip(destination);
                    let restored = address != accepted.local.address;
                    accepted.local = Local { address, restored };
                }
                inspected.record = header.record;
            }
            let local = &accepted.local.address;
            let sought = Sought {
                tls: config.inspect_tls.includes(local).then_some(config.tls_inspection),
                http: config.inspect_http.includes(local),
            };
            if sought.tls.is_some() || sought.http {
                inspect(&stream, sought, &self.shared.inspection_stats, inspected).await?;
            }
            Ok::<_, io::Error>(())
        };
        let result = match config.inspection_timeout {
            Some(timeout) => tokio::time::timeout(timeout, work).await,
            None => Ok(work.await),
        };
        stats.downstream_pre_cx_active().dec();
        match result {
            Ok(Ok(())) => Some(stream),
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
                if config.continue_on_timeout { stream.renewed().ok() } else { None }
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
        let Accepted { id, peer, local, direct, start, .. } = accepted;
        let objects = ConnectionObjects::default();
        if let Some(record) = inspected.record {
            objects.get_or_insert_with(|| RefCell::new(*record));
        }
        // As in Envoy the name is only known to a listener that looks for it.
        ConnectionInfo {
            id: *id,
            remote_address: peer.clone(),
            local_address: local.address.clone(),
            direct: direct.clone(),
            local_address_restored: local.restored,
            bypass_overload_manager: config.bypass_overload_manager,
            start: *start,
            requested_server_name: inspected.server_name.map(Into::into),
            tls: match chain.is_some_and(|chain| chain.tls.is_some()) {
                true => ConnectionTls::expected(),
                false => ConnectionTls::default(),
            },
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
        stream: Transport,
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
            let served = handler.serve(Connection { transport: stream, info: Rc::new(info) });
            tokio::task::spawn_local(async move {
                let _active = active;
                served.await;
            })
        } else if handler.begins_before_handshake() {
            let served = Box::pin(self.clone().serve_early(chain.clone(), stream, Rc::new(info)));
            tokio::task::spawn_local(async move {
                let _active = active;
                served.await;
            })
        } else {
            let secured = Box::pin(self.clone().secure(chain.clone(), stream, Rc::new(info)));
            tokio::task::spawn_local(async move {
                let _active = active;
                if let Some(connection) = secured.await {
                    handler.serve(connection).await;
                }
            })
        };
        chain.connections.borrow_mut().insert(id, task.abort_handle());
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
