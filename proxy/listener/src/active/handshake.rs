//! A connection from the choice of its filter chain until the last network filter has it, its handshake made or still to be made.

use std::rc::Rc;
use std::time::Instant;

use dhow_net::Transport;
use dhow_proxy_api::{Connection, ConnectionInfo, LocalFuture};
use dhow_tls::TlsFailure;

use super::{WorkerChain, WorkerListener};
use crate::handshaking::Handshaking;
use crate::observed::{self, ConnectionLog};

/// `%DOWNSTREAM_LOCAL_CLOSE_REASON%` of a handshake that took too long.
const TOO_LONG: &str = "transport_socket_timeout";

impl WorkerListener {
    /// Serves a connection that network filters or access logs of the listener look at.
    pub(super) async fn serve_observed(
        self: Rc<Self>,
        chain: Rc<WorkerChain>,
        stream: Transport,
        info: ConnectionInfo,
    ) {
        let logs = &self.shared.config.access_logs;
        let mut log = ConnectionLog::of_chain(logs, info, &chain.draining);
        self.serve_logged(&chain, stream, &log.info).await;
        log.finish();
    }

    async fn serve_logged(
        self: &Rc<Self>,
        chain: &Rc<WorkerChain>,
        stream: Transport,
        info: &Rc<ConnectionInfo>,
    ) {
        let mut filters: Vec<_> = chain.chain.in_front.iter().map(|filter| filter.create()).collect();
        if !observed::admit(&mut filters, info).await {
            chain.handler.clone().refuse(info.clone());
            return;
        }
        let logged = !self.shared.config.access_logs.is_empty();
        let serve =
            |transport| observed::serve(chain.handler.clone(), transport, info.clone(), filters, logged);
        if !info.tls.is_expected() {
            serve(stream).await;
        } else if chain.handler.begins_before_handshake() {
            let served = serve(self.handshaking(chain, stream, info));
            self.within_handshake_time(chain, info, Box::pin(served)).await;
        } else {
            match self.handshake_in_time(chain, stream, info).await {
                Some(transport) => serve(transport).await,
                None => chain.handler.clone().refuse(info.clone()),
            }
        }
    }

    /// Makes the handshake of a connection that is served after it.
    pub(super) async fn secure(
        self: Rc<Self>,
        chain: Rc<WorkerChain>,
        stream: Transport,
        info: Rc<ConnectionInfo>,
    ) -> Option<Connection> {
        match self.handshake_in_time(&chain, stream, &info).await {
            Some(transport) => Some(Connection { transport, info }),
            None => {
                chain.handler.clone().refuse(info);
                None
            }
        }
    }

    /// Serves a connection from before its handshake.
    pub(super) async fn serve_early(
        self: Rc<Self>,
        chain: Rc<WorkerChain>,
        stream: Transport,
        info: Rc<ConnectionInfo>,
    ) {
        let transport = self.handshaking(&chain, stream, &info);
        let served = chain.handler.clone().serve(Connection { transport, info: info.clone() });
        self.within_handshake_time(&chain, &info, served).await;
    }

    /// The transport of a connection whose handshake is made by who reads and writes it.
    fn handshaking(
        self: &Rc<Self>,
        chain: &Rc<WorkerChain>,
        stream: Transport,
        info: &Rc<ConnectionInfo>,
    ) -> Transport {
        let (listener, chain, info) = (self.clone(), chain.clone(), info.clone());
        let handshake = async move { listener.handshake(&chain, stream, &info).await };
        Transport::Secure(Box::new(Handshaking::UnderWay(Box::pin(handshake))))
    }

    /// Serves a connection; no longer than until the end of the time for its handshake unless that is done by then.
    async fn within_handshake_time(
        &self,
        chain: &WorkerChain,
        info: &ConnectionInfo,
        mut served: LocalFuture<()>,
    ) {
        let Some(timeout) = chain.chain.handshake_timeout else { return served.await };
        if tokio::time::timeout(timeout, &mut served).await.is_err() {
            match info.tls.session() {
                Some(_) => served.await,
                None => self.note_too_long(info),
            }
        }
    }

    /// Makes the handshake of a chain that terminates TLS; none when it fails or takes too long, which is noted.
    async fn handshake_in_time(
        &self,
        chain: &WorkerChain,
        stream: Transport,
        info: &ConnectionInfo,
    ) -> Option<Transport> {
        let handshake = self.handshake(chain, stream, info);
        let Some(timeout) = chain.chain.handshake_timeout else { return handshake.await };
        match tokio::time::timeout(timeout, handshake).await {
            Ok(transport) => transport,
            Err(_) => {
                self.note_too_long(info);
                None
            }
        }
    }

    fn note_too_long(&self, info: &ConnectionInfo) {
        self.shared.stats.downstream_cx_transport_socket_connect_timeout().inc();
        info.record_mut().borrow_mut().local_close_reason = Some(TOO_LONG.into());
    }

    /// Makes the handshake of a chain that terminates TLS; none when it fails, which is noted.
    async fn handshake(
        &self,
        chain: &WorkerChain,
        stream: Transport,
        info: &ConnectionInfo,
    ) -> Option<Transport> {
        let tls = chain.chain.tls.as_ref()?;
        let result = tls.accept(stream).await;
        if let Some(stats) = &self.shared.tls_stats {
            stats.count(result.as_ref().map(|(_, info)| info));
        }
        match result {
            Ok((transport, mut session)) => {
                session.completed = Some(Instant::now());
                info.tls.establish(session);
                Some(transport)
            }
            Err(error) => {
                tracing::debug!("listener '{}': TLS handshake failed: {error}", self.shared.config.name);
                let reason = TlsFailure::of(&error).map(|failure| failure.to_string().into());
                info.record_mut().borrow_mut().transport_failure = reason;
                None
            }
        }
    }
}
