//! The main thread's side: every cluster, its discovery and its warming, and what workers get to see.

mod description;
mod dynamic_clusters;
mod dynamic_hosts;
mod state;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use dhow_base::{ConfigError, ConfigWarning, Rng};
use dhow_proto::Message;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_stats::Store;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

pub use description::{
    Accepted, Change, ClusterDescription, ClusterManagerStats, EdsFile, EdsSubscription, Initialization,
    ProxyFacts,
};
use state::{Inner, State};

use crate::cluster_settings::KnownSettings;
use crate::config::{self, Discovery, EdsSource};
use crate::dns::Resolvers;
use crate::event_log::EventLogs;
use crate::forwarding_options::ForwardingLowering;
use crate::managed_cluster::{DeliverLater, ManagedCluster, Origin, Provenance, Site, Supplies, Warming};
use crate::snapshot::{ActiveCluster, PublishedClusters, Publisher};

/// The clusters of the proxy. Clones are the same manager. Belongs to the main thread: discovery runs as tasks of the
/// runtime that [`ClusterManager::add_or_update`] is called in.
#[derive(Clone, Debug)]
pub struct ClusterManager {
    inner: Arc<Inner>,
}

impl ClusterManager {
    /// A manager without clusters, counting in `store`. Its tasks need a tokio runtime at the first
    /// [`ClusterManager::add_or_update`].
    pub fn new(store: Store) -> Self {
        Self::with_discovery(store, true)
    }

    /// A manager that checks configuration and looks nothing up, for `--mode validate`.
    pub fn for_validation(store: Store) -> Self {
        Self::with_discovery(store, false)
    }

    fn with_discovery(store: Store, discovers: bool) -> Self {
        let (reports, receiver) = mpsc::unbounded_channel();
        let inner = |this: &Weak<Inner>| Inner {
            this: this.clone(),
            stats: Arc::new(store.scope("cluster_manager").group()),
            resolvers: Resolvers::new(store.clone()),
            store,
            publisher: Publisher::new(),
            reports,
            event_logs: EventLogs::default(),
            deliver_later: {
                let this = this.clone();
                DeliverLater(Arc::new(move |name, id, after| {
                    tokio::task::spawn_local(tasks::deliver_later(this.clone(), name, id, after))
                        .abort_handle()
                }))
            },
            outlier_events: Mutex::default(),
            subscriptions: watch::Sender::new(0),
            initialization: watch::Sender::new(Initialization::default()),
            discovers,
            state: Mutex::new(State {
                next_id: 1,
                active: HashMap::new(),
                warming: HashMap::new(),
                assignments: HashMap::new(),
                staleness: HashMap::new(),
                services: HashMap::new(),
                dns_caches: HashMap::new(),
                settings: KnownSettings::default(),
                batches: 0,
                site: Site::default(),
                local_cluster: None,
                unpublished: false,
                reports: Some(receiver),
                rng: Rng::from_entropy(),
                upstream_bind: None,
                secrets: Arc::default(),
                resolver: Arc::default(),
                forwarding: ForwardingLowering::default(),
            }),
        };
        Self { inner: Arc::new_cyclic(inner) }
    }

    /// Sets what clusters know of the proxy that they are in. Call it before the first cluster is added.
    pub fn set_proxy_facts(&self, facts: ProxyFacts) {
        let ProxyFacts {
            workers,
            locality,
            local_cluster_name,
            upstream_bind,
            secrets,
            resolver,
            forwarding,
        } = facts;
        let mut state = self.inner.state.lock();
        state.site = Site {
            locality: Arc::new(locality),
            // Clusters look at zones once the local cluster is known.
            local_cluster: None,
            balancers: workers as u64 + 1,
        };
        state.local_cluster = local_cluster_name.map(|name| (name, 0));
        state.upstream_bind = upstream_bind;
        state.secrets = secrets;
        state.resolver = Arc::new(resolver);
        state.forwarding = forwarding;
    }

    /// Accepts a cluster or says why not; nothing changes then. A message equal to the one in force changes nothing, and
    /// neither does a dynamic cluster with the name of a static one.
    pub fn add_or_update(
        &self,
        cluster: Cluster,
        version: &str,
        origin: Origin,
    ) -> Result<Accepted, ConfigError> {
        let encoded = cluster.encode_to_vec().into();
        self.add_or_update_encoded(cluster, encoded, version, origin)
    }

    /// As [`ClusterManager::add_or_update`], for a message that is at hand encoded as well: that is kept for `/config_dump`.
    pub fn add_or_update_encoded(
        &self,
        mut cluster: Cluster,
        encoded: Bytes,
        version: &str,
        origin: Origin,
    ) -> Result<Accepted, ConfigError> {
        let mut state = self.inner.state.lock();
        let known = state.warming.get(&*cluster.name).or_else(|| state.active.get(&*cluster.name));
        if let Some(known) = known {
            if origin == Origin::Static {
                let reason = format!("cluster manager: duplicate cluster '{}'", cluster.name);
                return Err(ConfigError::at_root(reason));
            }
            if known.origin == Origin::Static
                || known.message == encoded
                || Cluster::decode(&*known.message).as_ref() == Ok(&cluster)
            {
                return Ok(Accepted { change: Change::Unchanged, warnings: Vec::new() });
            }
        }
        let change = if known.is_some() { Change::Updated } else { Change::Added };
        if cluster.upstream_bind_config.is_none() {
            cluster.upstream_bind_config.clone_from(&state.upstream_bind);
        }
        let (mut config, warnings) =
            config::lower_cluster(cluster, &state.secrets, &state.resolver, &state.forwarding)?;
        state.check_dns_cache(&config)?;
        let events = self.inner.open_events(&config)?;
        state.settings.share(&mut config.settings);
        let from = Provenance { id: state.next_id, message: encoded, version: version.to_owned(), origin };
        state.next_id += 1;
        let supplies = Supplies {
            site: &state.site,
            store: &self.inner.store,
            reports: &self.inner.reports,
            outlier_events: self.inner.outlier_events.lock().clone(),
            counters: &self.inner.stats,
        };
        let mut managed = ManagedCluster::new(config, from, &supplies);
        if change == Change::Added {
            self.inner.stats.cluster_added().inc();
        } else {
            self.inner.stats.cluster_modified().inc();
        }
        self.inner.subscribe(&mut state, &mut managed);
        if self.inner.discovers {
            Inner::discover(&self.inner, &mut managed, events);
            Inner::follow_reports(&self.inner, &mut state);
        }
        self.inner.place(&mut state, managed);
        self.inner.settle(&mut state);
        Ok(Accepted { change, warnings })
    }

    /// Removes a dynamic cluster; false when there is none of this name. Static clusters stay.
    pub fn remove(&self, name: &str) -> bool {
        self.remove_of(Origin::Dynamic, name)
    }

    /// Removes a cluster that a request asked for.
    fn remove_requested(&self, name: &str) {
        self.remove_of(Origin::Requested, name);
    }

    fn remove_of(&self, origin: Origin, name: &str) -> bool {
        let mut state = self.inner.state.lock();
        let removable = |clusters: &HashMap<Arc<str>, Box<ManagedCluster>>| {
            clusters.get(name).is_some_and(|cluster| cluster.origin == origin)
        };
        if !removable(&state.active) && !removable(&state.warming) {
            return false;
        }
        let gone = [state.active.remove(name), state.warming.remove(name)];
        for cluster in gone.iter().flatten() {
            self.inner.unsubscribe(&mut state, cluster);
        }
        state.unpublished = true;
        self.inner.stats.cluster_removed().inc();
        self.inner.settle(&mut state);
        true
    }

    /// Applies many changes and publishes once at the end.
    pub fn batch<T>(&self, changes: impl FnOnce(&Self) -> T) -> T {
        self.inner.state.lock().batches += 1;
        let outcome = changes(self);
        let mut state = self.inner.state.lock();
        state.batches -= 1;
        self.inner.settle(&mut state);
        outcome
    }

    /// Applies an assignment to every cluster that wants it (`cluster_name` is the service name); nobody wanting it is no
    /// error. Paths in errors start at the message.
    pub fn apply_assignment(
        &self,
        message: ClusterLoadAssignment,
    ) -> Result<Vec<ConfigWarning>, ConfigError> {
        let service = message.cluster_name.clone();
        let (assignment, warnings) = config::lower_assignment(message)?;
        let assignment = Arc::new(assignment);
        let mut state = self.inner.state.lock();
        let Some(clusters) = state.services.get(&service).cloned() else {
            return Ok(warnings);
        };
        state.assignments.insert(service.clone(), assignment.clone());
        self.inner.watch_staleness(&mut state, &service, assignment.stale_after);
        for name in clusters {
            let State { active, warming, .. } = &mut *state;
            for cluster in [warming.get_mut(&*name), active.get_mut(&*name)].into_iter().flatten() {
                self.inner.assign(cluster, &assignment);
            }
            self.inner.promote(&mut state, &name);
        }
        self.inner.settle(&mut state);
        Ok(warnings)
    }

    /// The assignment of a service no longer exists: its clusters have no hosts.
    pub fn remove_assignment(&self, service_name: &str) {
        let empty = ClusterLoadAssignment { cluster_name: service_name.to_owned(), ..Default::default() };
        // An empty message has nothing that could be refused.
        let _ = self.apply_assignment(empty);
        self.inner.state.lock().assignments.remove(service_name);
    }

    /// The first assignment of a service did not come in time: its clusters serve without hosts until it does.
    pub fn assignment_timed_out(&self, service_name: &str) {
        let mut state = self.inner.state.lock();
        for name in state.services.get(service_name).cloned().unwrap_or_default() {
            if let Some(cluster) = state.warming.get_mut(&*name) {
                cluster.warming = Warming::Done;
            }
            self.inner.promote(&mut state, &name);
        }
        self.inner.settle(&mut state);
    }

    /// The assignments that clusters want, ordered by name.
    pub fn eds_subscriptions(&self) -> Vec<EdsSubscription> {
        let state = self.inner.state.lock();
        let mut wanted = BTreeMap::new();
        for cluster in state.active.values().chain(state.warming.values()) {
            let Discovery::Eds(eds) = &cluster.discovery else {
                continue;
            };
            let file = match &eds.source {
                EdsSource::Ads => None,
                EdsSource::Path { path, watched_directory } => {
                    Some(EdsFile { path: path.clone(), watched_directory: watched_directory.clone() })
                }
            };
            let subscription = EdsSubscription {
                service_name: eds.service_name.clone(),
                file,
                initial_fetch_timeout: eds.initial_fetch_timeout,
            };
            wanted.insert((subscription.service_name.clone(), subscription.file.clone()), subscription);
        }
        wanted.into_values().collect()
    }

    /// Changes its number whenever [`ClusterManager::eds_subscriptions`] does.
    pub fn subscriptions_changed(&self) -> watch::Receiver<u64> {
        self.inner.subscriptions.subscribe()
    }

    /// The clusters that want the assignment of `service_name`, for counting what happens to their subscription.
    pub fn clusters_of_service(&self, service_name: &str) -> Vec<Arc<ActiveCluster>> {
        let state = self.inner.state.lock();
        let names = state.services.get(service_name).into_iter().flatten();
        names
            .filter_map(|name| state.warming.get(&**name).or_else(|| state.active.get(&**name)))
            .map(|c| c.active.clone())
            .collect()
    }

    /// Logs ejections by outlier detection to the file at `path`; for clusters that are added from now on.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn log_ejections(&self, path: &str) -> std::io::Result<()> {
        *self.inner.outlier_events.lock() = Some(self.inner.event_logs.open(path)?);
        Ok(())
    }

    /// Opens event logs again by their paths, for rotation.
    pub fn reopen_event_logs(&self) {
        self.inner.event_logs.reopen();
    }

    /// What workers read; one per worker.
    pub fn published(&self) -> PublishedClusters {
        self.inner.publisher.reader()
    }

    /// Whether a cluster of this name is known, active or warming.
    pub fn contains(&self, name: &str) -> bool {
        let state = self.inner.state.lock();
        state.active.contains_key(name) || state.warming.contains_key(name)
    }

    /// The cluster of this name in use, or else the one that is warming.
    pub fn find(&self, name: &str) -> Option<Arc<ActiveCluster>> {
        let state = self.inner.state.lock();
        state.active.get(name).or_else(|| state.warming.get(name)).map(|cluster| cluster.active.clone())
    }

    /// Names of the clusters that came by CDS.
    pub fn dynamic_names(&self) -> BTreeSet<String> {
        let state = self.inner.state.lock();
        let all = state.active.values().chain(state.warming.values());
        all.filter(|cluster| cluster.origin == Origin::Dynamic)
            .map(|cluster| cluster.info().name.to_string())
            .collect()
    }

    /// Every cluster, active ones first, ordered by name.
    pub fn describe(&self) -> Vec<ClusterDescription> {
        let state = self.inner.state.lock();
        let mut described = Vec::with_capacity(state.active.len() + state.warming.len());
        for (clusters, warming) in [(&state.active, false), (&state.warming, true)] {
            let mut sorted: Vec<&ManagedCluster> = clusters.values().map(Box::as_ref).collect();
            sorted.sort_by(|a, b| a.info().name.cmp(&b.info().name));
            described.extend(sorted.into_iter().map(|cluster| ClusterDescription {
                message: cluster.message.clone(),
                version: cluster.version.clone(),
                last_updated: cluster.last_updated,
                origin: cluster.origin,
                warming,
                cluster: cluster.active.clone(),
                success_rates: cluster.ejections.as_ref().map(|ejections| ejections.summaries()),
            }));
        }
        described
    }

    /// What is still warming, and a way to wait for changes.
    pub fn initialization(&self) -> watch::Receiver<Initialization> {
        self.inner.initialization.subscribe()
    }

    /// Waits until every cluster that needs no management server is ready (DNS answered, or failed to).
    pub async fn primary_ready(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.initialization().wait_for(|waiting| waiting.primary == 0).await;
    }

    /// Waits until no cluster is warming.
    pub async fn all_ready(&self) {
        let _ = self.initialization().wait_for(|waiting| *waiting == Initialization::default()).await;
    }
}
