//! xDS: the aggregated stream, and resources that come from files.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use dhow_base::Rng;
use dhow_proto::envoy::config::core::v3::Node;
use dhow_proxy_upstream::{ClusterManager, Resource, RoutingPriority, SecureOptions};
use dhow_proxy_xds::{
    AdsClient, AdsConfig, ByteStream, ClientConfig, ConfigSink, Connecting, Connector, FileSubscription, Interest,
    InterestChanged, PathSource, Refusal, SubscriptionObserver, Update, type_url,
};
use dhow_stats::{Store, stat_group};

use crate::bootstrap::{Ads, Bootstrap, Source};
use crate::configuration::Configuration;

stat_group! {
    /// `cluster_manager.cds.*` and `listener_manager.lds.*`.
    pub(crate) struct SubscriptionStats {
        counters { init_fetch_timeout, update_attempt, update_failure, update_rejected, update_success }
        gauges { update_time }
        histograms { update_duration: Milliseconds }
    }
}

stat_group! {
    /// `control_plane.*`.
    pub(crate) struct ControlPlaneStats {
        counters { rate_limit_enforced }
        gauges { connected_state, pending_requests }
    }
}

/// What subscriptions share.
pub(crate) struct Subscriptions {
    configuration: Rc<RefCell<Configuration>>,
    store: std::sync::Arc<Store>,
    bootstrap: Bootstrap,
    /// Whether listeners may be asked for: the first clusters are ready.
    listeners_allowed: Cell<bool>,
    /// Whether the first clusters came (or there is nobody to bring them).
    clusters_arrived: Cell<bool>,
    /// Whether the first listeners came, likewise.
    listeners_arrived: Cell<bool>,
    interest: RefCell<Option<InterestChanged>>,
    files: RefCell<BTreeSet<PathBuf>>,
    progress: tokio::sync::Notify,
}

impl Subscriptions {
    pub(crate) fn new(
        configuration: Rc<RefCell<Configuration>>,
        store: std::sync::Arc<Store>,
        bootstrap: Bootstrap,
    ) -> Rc<Self> {
        let clusters_arrived = Cell::new(bootstrap.cds.is_none());
        let listeners_arrived = Cell::new(bootstrap.lds.is_none());
        Rc::new(Self {
            configuration,
            store,
            bootstrap,
            listeners_allowed: Cell::new(false),
            clusters_arrived,
            listeners_arrived,
            interest: RefCell::default(),
            files: RefCell::default(),
            progress: tokio::sync::Notify::new(),
        })
    }

    /// Starts the aggregated stream and the file subscriptions.
    ///
    /// # Errors
    /// A file that does not exist or cannot be watched, or a stream that cannot be configured.
    pub(crate) fn start(self: &Rc<Self>) -> Result<(), String> {
        if let Some(Source::File(file)) = self.bootstrap.cds.as_ref().map(|cds| &cds.source) {
            self.follow_file(type_url::CLUSTER, file.clone())?;
        }
        if let Some(ads) = self.bootstrap.ads.clone() {
            self.start_ads(ads)?;
        }
        self.follow_named_files()?;
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let mut changed = this.configuration.borrow().clusters.subscriptions_changed();
            while changed.changed().await.is_ok() {
                this.on_names_changed();
            }
        });
        Ok(())
    }

    /// Lets listeners come: the clusters are ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) fn allow_listeners(self: &Rc<Self>) -> Result<(), String> {
        self.listeners_allowed.set(true);
        if let Some(Source::File(file)) = self.bootstrap.lds.as_ref().map(|lds| &lds.source) {
            self.follow_file(type_url::LISTENER, file.clone())?;
        }
        self.on_names_changed();
        Ok(())
    }

    /// Whether the first clusters came or were given up.
    pub(crate) fn clusters_arrived(&self) -> bool {
        self.clusters_arrived.get()
    }

    /// Whether the first listeners came or were given up.
    pub(crate) fn listeners_arrived(&self) -> bool {
        self.listeners_arrived.get()
    }

    /// Waits for the next update.
    pub(crate) async fn progressed(&self) {
        self.progress.notified().await;
    }

    fn on_names_changed(self: &Rc<Self>) {
        if let Err(error) = self.follow_named_files() {
            tracing::error!("{error}");
        }
        if let Some(interest) = &*self.interest.borrow() {
            interest.notify();
        }
    }

    fn start_ads(self: &Rc<Self>, ads: Ads) -> Result<(), String> {
        let types = [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE];
        let node: Node = self.bootstrap.node.clone();
        let mut session = ClientConfig::new(ads.variant, node);
        session.set_node_on_first_message_only = ads.set_node_on_first_message_only;
        let config = AdsConfig {
            authority: ads.authority,
            initial_metadata: ads.initial_metadata,
            ..AdsConfig::new(ads.cluster, types.map(String::from).to_vec(), session)
        };
        let connector = ClusterConnector { clusters: self.configuration.borrow().clusters.clone() };
        let sink = Sink { shared: self.clone(), file: None };
        let observer = Observer::new(&self.store);
        let client = AdsClient::new(config, connector, sink, observer, Rng::from_entropy())
            .map_err(|error| error.to_string())?;
        *self.interest.borrow_mut() = Some(client.interest_changed());
        tokio::task::spawn_local(async move { client.run().await });
        Ok(())
    }

    /// Follows the files that assignments and routes come from, as far as they are not followed yet.
    fn follow_named_files(self: &Rc<Self>) -> Result<(), String> {
        let (eds, rds) = {
            let configuration = self.configuration.borrow();
            let eds: Vec<_> =
                configuration.clusters.eds_subscriptions().into_iter().filter_map(|s| s.file).collect();
            let rds = configuration.routes.borrow().files();
            (eds, rds)
        };
        for file in eds {
            let source = PathSource {
                path: file.path.into(),
                watched_directory: file.watched_directory.map(PathBuf::from),
            };
            self.follow_file(type_url::ENDPOINT, source)?;
        }
        for file in rds {
            self.follow_file(type_url::ROUTE, PathSource { path: PathBuf::from(&*file), watched_directory: None })?;
        }
        Ok(())
    }

    fn follow_file(self: &Rc<Self>, type_url: &'static str, source: PathSource) -> Result<(), String> {
        if !self.files.borrow_mut().insert(source.path.clone()) {
            return Ok(());
        }
        let sink = Sink { shared: self.clone(), file: Some(source.path.clone()) };
        let subscription = FileSubscription::new(type_url, source, sink, Observer::new(&self.store))
            .map_err(|error| error.to_string())?;
        tokio::task::spawn_local(async move { subscription.run().await });
        Ok(())
    }
}

/// Where updates of the stream, or of one file, are applied.
struct Sink {
    shared: Rc<Subscriptions>,
    file: Option<PathBuf>,
}

impl ConfigSink for Sink {
    fn apply(&mut self, type_url: &str, update: Update) -> Result<(), Vec<Refusal>> {
        let shared = &self.shared;
        let result = shared.configuration.borrow_mut().apply(type_url, update);
        match type_url {
            type_url::CLUSTER => shared.clusters_arrived.set(true),
            type_url::LISTENER => shared.listeners_arrived.set(true),
            _ => {}
        }
        shared.progress.notify_waiters();
        shared.on_names_changed();
        result
    }

    fn subscriptions(&self, type_url: &str) -> Interest {
        let shared = &self.shared;
        let configuration = shared.configuration.borrow();
        let is_ads = |source: Option<&crate::bootstrap::TypeSource>| source.is_some_and(|s| s.source == Source::Ads);
        match (type_url, &self.file) {
            (type_url::CLUSTER, None) if is_ads(shared.bootstrap.cds.as_ref()) => Interest::Wildcard,
            (type_url::LISTENER, None)
                if is_ads(shared.bootstrap.lds.as_ref()) && shared.listeners_allowed.get() =>
            {
                Interest::Wildcard
            }
            (type_url::CLUSTER | type_url::LISTENER, None) => Interest::None,
            (type_url::CLUSTER | type_url::LISTENER, Some(_)) => Interest::Wildcard,
            (type_url::ENDPOINT, None) => Interest::names(configuration.wanted_assignments()),
            (type_url::ROUTE, None) => Interest::names(configuration.wanted_routes()),
            (type_url::ENDPOINT, Some(file)) => {
                let subscriptions = configuration.clusters.eds_subscriptions();
                let of_file = subscriptions.into_iter().filter(|subscription| {
                    subscription.file.as_ref().is_some_and(|f| PathBuf::from(&f.path) == *file)
                });
                Interest::names(of_file.map(|subscription| subscription.service_name))
            }
            (type_url::ROUTE, Some(file)) => {
                Interest::names(configuration.routes.borrow().names_from(&file.to_string_lossy()))
            }
            _ => Interest::None,
        }
    }

    fn initial_fetch_timeout(&self, type_url: &str) -> Option<Duration> {
        let of_type = |source: Option<&crate::bootstrap::TypeSource>| source.map(|s| s.initial_fetch_timeout);
        let timeout = match type_url {
            type_url::CLUSTER => of_type(self.shared.bootstrap.cds.as_ref()),
            type_url::LISTENER => of_type(self.shared.bootstrap.lds.as_ref()),
            type_url::ENDPOINT => {
                let configuration = self.shared.configuration.borrow();
                return configuration
                    .clusters
                    .eds_subscriptions()
                    .into_iter()
                    .filter_map(|subscription| subscription.initial_fetch_timeout)
                    .min();
            }
            _ => return self.shared.configuration.borrow().routes.borrow().initial_fetch_timeout(),
        };
        timeout.filter(|timeout| !timeout.is_zero())
    }

    fn fetch_failed(&mut self, type_url: &str, name: Option<&str>) {
        let shared = &self.shared;
        match (type_url, name) {
            (type_url::CLUSTER, _) => shared.clusters_arrived.set(true),
            (type_url::LISTENER, _) => shared.listeners_arrived.set(true),
            (type_url::ENDPOINT, Some(name)) => shared.configuration.borrow().clusters.assignment_timed_out(name),
            (type_url::ROUTE, _) => {
                for error in shared.configuration.borrow_mut().listeners.start_warm(true) {
                    tracing::error!("{error}");
                }
            }
            _ => {}
        }
        shared.progress.notify_waiters();
    }
}

/// Connects to management servers through clusters.
struct ClusterConnector {
    clusters: ClusterManager,
}

impl Connector for ClusterConnector {
    fn connect<'a>(&'a self, cluster: &'a str) -> Connecting<'a> {
        Box::pin(async move {
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("cluster '{cluster}' does not exist"));
            let active = self.clusters.find(cluster).ok_or_else(missing)?;
            let hosts = active.hosts();
            let none = || io::Error::new(io::ErrorKind::NotConnected, format!("cluster '{cluster}' has no host"));
            let host = hosts.hosts().next().cloned().ok_or_else(none)?;
            let info = active.info();
            let permit = info.circuit_breakers.acquire(RoutingPriority::Default, Resource::Connections);
            let options = SecureOptions { alpn: vec![b"h2".to_vec()], ..SecureOptions::default() };
            let connection = dhow_proxy_upstream::connect(info, &host, &options, Some(permit))
                .await
                .map_err(|failure| io::Error::new(io::ErrorKind::ConnectionRefused, failure.to_string()))?;
            // The stream lives as long as the process; the guard's figures end with the connection.
            Ok(Box::new(Guarded { transport: connection.transport, _guard: connection.guard }) as Box<dyn ByteStream>)
        })
    }
}

/// A connection with what counts it.
struct Guarded {
    transport: dhow_net::Transport,
    _guard: dhow_proxy_upstream::ConnectionGuard,
}

impl tokio::io::AsyncRead for Guarded {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.transport).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Guarded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// Counts what happens to subscriptions.
struct Observer {
    cds: SubscriptionStats,
    lds: SubscriptionStats,
    control_plane: ControlPlaneStats,
}

impl Observer {
    fn new(store: &Store) -> Self {
        Self {
            cds: store.scope("cluster_manager.cds.").group(),
            lds: store.scope("listener_manager.lds.").group(),
            control_plane: store.scope("control_plane.").group(),
        }
    }

    fn stats(&self, type_url: &str) -> Option<&SubscriptionStats> {
        match type_url {
            type_url::CLUSTER => Some(&self.cds),
            type_url::LISTENER => Some(&self.lds),
            _ => None,
        }
    }
}

impl SubscriptionObserver for Observer {
    fn update_attempt(&mut self, type_url: &str, _name: Option<&str>) {
        self.stats(type_url).inspect(|stats| stats.update_attempt().inc());
    }

    fn update_success(&mut self, type_url: &str, _name: Option<&str>, _version: &str) {
        self.stats(type_url).inspect(|stats| stats.update_success().inc());
    }

    fn update_failure(&mut self, type_url: &str, _name: Option<&str>) {
        self.stats(type_url).inspect(|stats| stats.update_failure().inc());
    }

    fn update_rejected(&mut self, type_url: &str, _name: Option<&str>, message: &str) {
        self.stats(type_url).inspect(|stats| stats.update_rejected().inc());
        tracing::warn!("gRPC config for {type_url} rejected: {message}");
    }

    fn init_fetch_timeout(&mut self, type_url: &str, _name: Option<&str>) {
        self.stats(type_url).inspect(|stats| stats.init_fetch_timeout().inc());
        tracing::warn!("gRPC config: initial fetch timed out for {type_url}");
    }

    fn connected(&mut self, connected: bool) {
        self.control_plane.connected_state().set(connected.into());
    }

    fn warning(&mut self, message: &str) {
        tracing::warn!("{message}");
    }
}
