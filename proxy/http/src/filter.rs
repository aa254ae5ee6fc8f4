//! The connection manager as a network filter.

use std::rc::Rc;
use std::sync::Arc;

use dhow_proxy_api::{Connection, ConnectionHandler, ConnectionInfo, DrainEvent, LocalFuture, NetworkFilter};
use dhow_proxy_runtime::Worker;
use dhow_stats::Store;

use crate::config::{ConnectionManagerConfig, RouteSource};
use crate::manager::Manager;
use crate::route_slot::RouteSlot;
use crate::serve::serve;
use crate::stats::HttpStats;
use crate::stream::Responder;

/// `envoy.filters.network.http_connection_manager`.
#[derive(Debug)]
pub struct HttpConnectionManager {
    config: Arc<ConnectionManagerConfig>,
    stats: Arc<HttpStats>,
    routes: Arc<RouteSlot>,
}

impl HttpConnectionManager {
    /// The filter of a configuration. Routes that come by RDS are published in [`routes`](Self::routes); their virtual hosts are
    /// counted in `route_stats`, everything else in `store`.
    pub fn new(
        config: ConnectionManagerConfig,
        store: &Store,
        route_stats: &Store,
        listener_stat_prefix: &str,
    ) -> Self {
        let stats = HttpStats::new(store, listener_stat_prefix, &config.stat_prefix, store);
        Self::counting(config, stats, route_stats)
    }

    /// The filter of a configuration without routes and filters, for [`answered_by`](Self::answered_by). It counts nothing that
    /// routers count.
    pub fn without_router(
        config: ConnectionManagerConfig,
        store: &Store,
        listener_stat_prefix: &str,
    ) -> Self {
        let stats = HttpStats::new(store, listener_stat_prefix, &config.stat_prefix, &Store::new());
        Self::counting(config, stats, store)
    }

    fn counting(config: ConnectionManagerConfig, stats: HttpStats, route_stats: &Store) -> Self {
        let routes = Arc::new(RouteSlot::new(route_stats));
        if let RouteSource::Static(table) = &config.routes {
            routes.publish(table.clone());
        }
        Self { config: Arc::new(config), stats: Arc::new(stats), routes }
    }

    /// Where its routes are published.
    pub fn routes(&self) -> &Arc<RouteSlot> {
        &self.routes
    }

    /// The handler of connections of one thread whose requests are answered by `responder`.
    pub fn answered_by(
        &self,
        responder: Rc<dyn Responder>,
        thread: &Rc<Worker>,
    ) -> Rc<dyn ConnectionHandler> {
        self.handler(thread, Some(responder))
    }

    fn handler(
        &self,
        worker: &Rc<Worker>,
        responder: Option<Rc<dyn Responder>>,
    ) -> Rc<dyn ConnectionHandler> {
        let manager = Manager::new(worker, self.config.clone(), self.stats.clone(), &self.routes, responder);
        Rc::new(Handler { manager })
    }

    /// What it was configured with.
    pub fn config(&self) -> &Arc<ConnectionManagerConfig> {
        &self.config
    }
}

impl NetworkFilter for HttpConnectionManager {
    fn on_worker(&self, worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        self.handler(worker, None)
    }

    fn is_warm(&self) -> bool {
        matches!(self.config.routes, RouteSource::Scoped(_)) || self.routes.is_ready()
    }

    fn waits_for(&self) -> Option<String> {
        match &self.config.routes {
            RouteSource::Rds { name, .. } if !self.routes.is_ready() => {
                Some(format!("shared target RdsRouteConfigSubscription RDS init {name}"))
            }
            _ => None,
        }
    }
}

struct Handler {
    manager: Rc<Manager>,
}

impl ConnectionHandler for Handler {
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()> {
        Box::pin(serve(self.manager.clone(), connection))
    }

    fn refuse(self: Rc<Self>, connection: Rc<ConnectionInfo>) {
        // It counts as one that was served. A failed handshake is the client's doing, whoever found the fault.
        let failed = connection.record().is_some_and(|record| record.borrow().transport_failure.is_some());
        let stats = &self.manager.stats.manager;
        stats.downstream_cx_total().inc();
        if connection.tls.is_expected() {
            stats.downstream_cx_ssl_total().inc();
        }
        stats.downstream_cx_destroy().inc();
        match failed {
            true => stats.downstream_cx_destroy_remote().inc(),
            false => stats.downstream_cx_destroy_local().inc(),
        }
    }

    fn on_drain(&self, event: DrainEvent) {
        self.manager.draining.apply(event);
    }
}
