//! The TCP proxy as a filter of a listener.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::UpstreamConnectMode;
use dhow_proxy_access_log::Logged;
use dhow_proxy_api::{
    Connection, ConnectionHandler, ConnectionInfo, DrainEvent, DrainState, LocalFuture, NetworkFilter,
    StreamFormat, StreamInfo,
};
use dhow_proxy_runtime::{LoadShedPoint, Worker, overload};
use dhow_proxy_upstream::{HttpTunnels, WorkerClusters};
use dhow_stats::Store;

use crate::config::TcpProxyConfig;
use crate::session::Session;
use crate::stats::{TcpStats, TunnelingStats};

/// Finds what opens tunnels on a worker.
pub type TunnelsOfWorker = fn(&Rc<Worker>) -> Rc<dyn HttpTunnels>;

/// `envoy.filters.network.tcp_proxy`.
#[derive(Debug)]
pub struct TcpProxy {
    config: Arc<TcpProxyConfig>,
    stats: TcpStats,
    /// Kept so that they are shown.
    _tunneling_stats: Option<TunnelingStats>,
    tunnels: TunnelsOfWorker,
}

impl TcpProxy {
    /// The filter of a configuration, counting under `tcp.<stat_prefix>.`; it asks `tunnels` where connections are carried
    /// inside of requests.
    pub fn new(config: TcpProxyConfig, store: &Store, tunnels: TunnelsOfWorker) -> Self {
        let scope = store.scope(&format!("tcp.{}.", config.stat_prefix));
        let tunneling_stats = config.tunneling.is_some().then(|| scope.scope("tcpproxy_tunneling.").group());
        Self { config: Arc::new(config), stats: scope.group(), _tunneling_stats: tunneling_stats, tunnels }
    }
}

impl NetworkFilter for TcpProxy {
    fn on_worker(&self, worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        Rc::new(Handler {
            worker: worker.clone(),
            clusters: worker.existing_extension(),
            config: self.config.clone(),
            stats: self.stats.clone(),
            tunnels: self.config.tunneling.as_ref().map(|_| (self.tunnels)(worker)),
            draining: DrainState::default(),
        })
    }
}

/// The filter on a worker.
pub(crate) struct Handler {
    pub(crate) worker: Rc<Worker>,
    pub(crate) clusters: Rc<WorkerClusters>,
    pub(crate) config: Arc<TcpProxyConfig>,
    pub(crate) stats: TcpStats,
    /// There where connections go inside of requests.
    pub(crate) tunnels: Option<Rc<dyn HttpTunnels>>,
    pub(crate) draining: DrainState,
}

impl ConnectionHandler for Handler {
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()> {
        Box::pin(async move {
            let Connection { transport, info } = connection;
            let mut session = Session::new(self, info, Instant::now());
            session.begin();
            session.proxy(transport).await;
        })
    }

    fn begins_before_handshake(&self) -> bool {
        self.config.connect_mode != UpstreamConnectMode::OnDownstreamTlsHandshake
    }

    fn refuse(self: Rc<Self>, connection: Rc<ConnectionInfo>) {
        let start = connection.start;
        Session::new(self, connection, start).end();
    }

    fn on_drain(&self, event: DrainEvent) {
        // A stream of bytes has no point at which to end gracefully: it is closed when the drain time is over, unless
        // `check_drain_close` says that any point will do.
        self.draining.apply(event);
    }
}

impl Handler {
    pub(crate) fn log(&self, stream: &StreamInfo) {
        let context = StreamFormat::new(stream);
        for log in &self.config.access_logs {
            log.log(&context, &Logged { info: stream, request: None });
        }
    }

    /// Whether load of the connection is shed at a point this time.
    pub(crate) fn sheds(&self, point: LoadShedPoint, stream: &StreamInfo) -> bool {
        overload().sheds_of(point, stream.connection.bypass_overload_manager, || self.worker.random())
    }
}
