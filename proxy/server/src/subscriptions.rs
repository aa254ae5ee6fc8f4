//! xDS: the aggregated stream, and resources that come from files.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use dhow_base::Rng;
use dhow_proto::envoy::config::core::v3::Node;
use dhow_proxy_upstream::{ClusterManager, Resource, RoutingPriority, SecureOptions};
use dhow_proxy_xds::{
    AdsClient, AdsConfig, ByteStream, ClientConfig, ConfigSink, Connecting, Connector, FileSubscription,
    Interest, InterestChanged, PathSource, Refusal, Update, type_url,
};
use dhow_stats::Store;

use crate::bootstrap::{Ads, Bootstrap, Source};
use crate::configuration::Configuration;
use crate::subscription_stats::{Observer, SharedStats};

/// A file that is followed.
struct Followed {
    /// What was wanted of it when it was last read.
    names: Vec<String>,
    reread: InterestChanged,
}

/// What subscriptions share.
pub(crate) struct Subscriptions {
    configuration: Rc<RefCell<Configuration>>,
    stats: SharedStats,
    bootstrap: Bootstrap,
    /// Whether listeners may be asked for: the first clusters are ready.
    listeners_allowed: Cell<bool>,
    /// Whether the first clusters came (or there is nobody to bring them).
    clusters_arrived: Cell<bool>,
    /// Whether the first listeners came, likewise.
    listeners_arrived: Cell<bool>,
    interest: RefCell<Option<InterestChanged>>,
    files: RefCell<HashMap<(&'static str, Rc<Path>), Followed>>,
    progress: tokio::sync::Notify,
}

impl Subscriptions {
    pub(crate) fn new(
        configuration: Rc<RefCell<Configuration>>,
        store: &Store,
        bootstrap: Bootstrap,
    ) -> Rc<Self> {
        let clusters_arrived = Cell::new(bootstrap.cds.is_none());
        let listeners_arrived = Cell::new(bootstrap.lds.is_none());
        Rc::new(Self {
            configuration,
            stats: SharedStats::new(store, &bootstrap),
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

    pub(crate) fn configuration(&self) -> &RefCell<Configuration> {
        &self.configuration
    }

    pub(crate) fn stats(&self) -> &SharedStats {
        &self.stats
    }

    /// Names of a type that is fetched by name which come from a file.
    pub(crate) fn names_from(&self, type_url: &str, file: &Path) -> Vec<String> {
        let configuration = self.configuration.borrow();
        if type_url == type_url::ROUTE {
            return configuration.routes.borrow().names_from(file);
        }
        let subscriptions = configuration.clusters.eds_subscriptions();
        let of_file =
            subscriptions.into_iter().filter(|s| s.file.as_ref().is_some_and(|f| Path::new(&f.path) == file));
        of_file.map(|subscription| subscription.service_name).collect()
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
        let observer = Observer::new(self.clone(), None);
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
        for source in rds {
            self.follow_file(type_url::ROUTE, source)?;
        }
        Ok(())
    }

    /// Reads a file now and whenever it changes; one that is followed already is read again when more is wanted of it.
    fn follow_file(self: &Rc<Self>, type_url: &'static str, source: PathSource) -> Result<(), String> {
        let path: Rc<Path> = source.path.as_path().into();
        let names = match type_url {
            type_url::ENDPOINT | type_url::ROUTE => self.names_from(type_url, &path),
            _ => Vec::new(),
        };
        if let Some(followed) = self.files.borrow_mut().get_mut(&(type_url, path.clone())) {
            let has_more = names.iter().any(|name| !followed.names.contains(name));
            followed.names = names;
            if has_more {
                followed.reread.notify();
            }
            return Ok(());
        }
        let sink = Sink { shared: self.clone(), file: Some(path.clone()) };
        let observer = Observer::new(self.clone(), Some(path.clone()));
        let subscription =
            FileSubscription::new(type_url, source, sink, observer).map_err(|error| error.to_string())?;
        let followed = Followed { names, reread: subscription.interest_changed() };
        self.files.borrow_mut().insert((type_url, path), followed);
        tokio::task::spawn_local(async move { subscription.run().await });
        Ok(())
    }
}

/// Where updates of the stream, or of one file, are applied.
struct Sink {
    shared: Rc<Subscriptions>,
    file: Option<Rc<Path>>,
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
        let is_ads =
            |source: Option<&crate::bootstrap::TypeSource>| source.is_some_and(|s| s.source == Source::Ads);
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
            (type_url::ENDPOINT | type_url::ROUTE, Some(file)) => {
                Interest::names(shared.names_from(type_url, file))
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
        match type_url {
            type_url::CLUSTER => shared.clusters_arrived.set(true),
            type_url::LISTENER => shared.listeners_arrived.set(true),
            type_url::ENDPOINT => {
                let names = match (name, &self.file) {
                    (Some(name), _) => vec![name.to_owned()],
                    (None, Some(file)) => shared.names_from(type_url, file),
                    (None, None) => Vec::new(),
                };
                let configuration = shared.configuration.borrow();
                names.iter().for_each(|name| configuration.clusters.assignment_timed_out(name));
            }
            type_url::ROUTE => {
                for error in shared.configuration.borrow_mut().listeners.start_warm(true) {
                    tracing::error!("{error}");
                }
            }
            _ => {}
        }
        shared.progress.notify_waiters();
    }
}

/// Connects through clusters: to management servers, and to where statistics are sent.
pub(crate) struct ClusterConnector {
    pub(crate) clusters: ClusterManager,
}

impl Connector for ClusterConnector {
    fn connect<'a>(&'a self, cluster: &'a str) -> Connecting<'a> {
        Box::pin(async move {
            let missing =
                || io::Error::new(io::ErrorKind::NotFound, format!("cluster '{cluster}' does not exist"));
            let active = self.clusters.find(cluster).ok_or_else(missing)?;
            let hosts = active.hosts();
            let none =
                || io::Error::new(io::ErrorKind::NotConnected, format!("cluster '{cluster}' has no host"));
            let host = hosts.hosts().next().cloned().ok_or_else(none)?;
            let info = active.info();
            let permit = info.circuit_breakers.acquire(RoutingPriority::Default, Resource::Connections);
            let options = SecureOptions { alpn: vec![b"h2".to_vec()], ..SecureOptions::default() };
            let connection = dhow_proxy_upstream::connect(info, &host, &options, Some(permit))
                .await
                .map_err(|failure| io::Error::new(io::ErrorKind::ConnectionRefused, failure.to_string()))?;
            // The stream lives as long as the process; the guard's figures end with the connection.
            Ok(Box::new(Guarded { transport: connection.transport, _guard: connection.guard })
                as Box<dyn ByteStream>)
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
