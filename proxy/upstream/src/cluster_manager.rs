//! The main thread's side: every cluster, its discovery and its warming, and what workers get to see.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use dhow_base::{Backoff, ConfigError, ConfigWarning, Rng};
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_proto::google::protobuf::Any;
use dhow_proto::{Message, any};
use dhow_stats::{Store, stat_group};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::config::{self, Assignment, Discovery, DnsDiscovery, EdsSource};
use crate::dns::{Answer, Resolvers};
use crate::managed_cluster::{ManagedCluster, Origin, Provenance, Warming};
use crate::outlier::{OutlierReport, OutlierReports};
use crate::snapshot::{ActiveCluster, ClustersSnapshot, PublishedClusters, Publisher};

stat_group! {
    /// `cluster_manager.*`.
    pub struct ClusterManagerStats {
        counters {
            cluster_added,
            cluster_modified,
            cluster_removed,
            cluster_updated,
            cluster_updated_via_merge,
            update_merge_cancelled,
            update_out_of_merge_window,
        }
        gauges { active_clusters, warming_clusters }
    }
}

/// What an accepted cluster message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The cluster is new.
    Added,
    /// The cluster has other settings now.
    Updated,
    /// The message is the one in force already, or the name belongs to a cluster of the bootstrap.
    Unchanged,
}

/// An accepted message.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// What it did.
    pub change: Change,
    /// What its author should know; paths start at the message.
    pub warnings: Vec<ConfigWarning>,
}

/// An assignment that some cluster wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdsSubscription {
    /// `eds_cluster_config.service_name`, or the cluster's name: the name of the resource.
    pub service_name: String,
    /// The file that holds it; `None` when it comes by ADS.
    pub file: Option<EdsFile>,
    /// `initial_fetch_timeout`; `None` waits for ever. When it is over, call
    /// [`ClusterManager::assignment_timed_out`].
    pub initial_fetch_timeout: Option<Duration>,
}

/// A file with assignments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdsFile {
    /// `path`.
    pub path: String,
    /// `watched_directory.path`.
    pub watched_directory: Option<String>,
}

/// One cluster, for `/config_dump` and `/clusters`.
#[derive(Clone, Debug)]
pub struct ClusterDescription {
    /// The message as it was received.
    pub message: Any,
    /// Version of the update that brought it; empty for the bootstrap.
    pub version: String,
    /// When it was applied.
    pub last_updated: SystemTime,
    /// Where it came from.
    pub origin: Origin,
    /// Whether it still waits for its hosts; an older version may serve meanwhile.
    pub warming: bool,
    /// Settings, stats and hosts.
    pub cluster: Arc<ActiveCluster>,
}

/// Clusters that are not ready yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Initialization {
    /// Those that need no management server.
    pub primary: usize,
    /// Those whose assignment comes by EDS.
    pub secondary: usize,
}

/// The clusters of the proxy. Clones are the same manager. Belongs to the main thread: discovery runs as tasks of the
/// runtime that [`ClusterManager::add_or_update`] is called in.
#[derive(Clone, Debug)]
pub struct ClusterManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    publisher: Publisher,
    stats: ClusterManagerStats,
    resolvers: Resolvers,
    reports: OutlierReports,
    subscriptions: watch::Sender<u64>,
    initialization: watch::Sender<Initialization>,
    /// Whether discovery runs; it does not under `--mode validate`.
    discovers: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next_id: u64,
    active: HashMap<String, ManagedCluster>,
    warming: HashMap<String, ManagedCluster>,
    /// Last assignment per service, so that a cluster that is replaced need not wait for the server to repeat itself.
    assignments: HashMap<String, Arc<Assignment>>,
    /// Names of the clusters per service.
    services: HashMap<String, BTreeSet<String>>,
    batches: usize,
    unpublished: bool,
    reports: Option<mpsc::UnboundedReceiver<OutlierReport>>,
    rng: Rng,
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
        let (reports, receiver) = OutlierReports::new();
        let inner = Inner {
            stats: store.scope("cluster_manager").group(),
            store,
            publisher: Publisher::new(),
            resolvers: Resolvers::default(),
            reports,
            subscriptions: watch::Sender::new(0),
            initialization: watch::Sender::new(Initialization::default()),
            discovers,
            state: Mutex::new(State {
                next_id: 1,
                active: HashMap::new(),
                warming: HashMap::new(),
                assignments: HashMap::new(),
                services: HashMap::new(),
                batches: 0,
                unpublished: false,
                reports: Some(receiver),
                rng: Rng::from_entropy(),
            }),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Accepts a cluster or says why not; nothing changes then. A message equal to the one in force changes nothing, and
    /// neither does a dynamic cluster with the name of a static one.
    pub fn add_or_update(
        &self,
        cluster: Cluster,
        version: &str,
        origin: Origin,
    ) -> Result<Accepted, ConfigError> {
        let mut state = self.inner.state.lock();
        let known = state.warming.get(&cluster.name).or_else(|| state.active.get(&cluster.name));
        if let Some(known) = known {
            if origin == Origin::Static {
                let reason = format!("cluster manager: duplicate cluster '{}'", cluster.name);
                return Err(ConfigError::at_root(reason));
            }
            if known.origin == Origin::Static
                || Cluster::decode(&*known.message.value).as_ref() == Ok(&cluster)
            {
                return Ok(Accepted { change: Change::Unchanged, warnings: Vec::new() });
            }
        }
        let change = if known.is_some() { Change::Updated } else { Change::Added };
        let message = any::pack(&cluster);
        let (config, warnings) = config::lower_cluster(cluster)?;
        let from = Provenance { id: state.next_id, message, version: version.to_owned(), origin };
        state.next_id += 1;
        let mut managed = ManagedCluster::new(config, from, &self.inner.store, &self.inner.reports);
        if change == Change::Added {
            self.inner.stats.cluster_added().inc();
        } else {
            self.inner.stats.cluster_modified().inc();
        }
        self.inner.subscribe(&mut state, &mut managed);
        if self.inner.discovers {
            Inner::discover(&self.inner, &mut managed);
            Inner::follow_reports(&self.inner, &mut state);
        }
        let name = managed.config.name.clone();
        self.inner.place(&mut state, name, managed);
        self.inner.settle(&mut state);
        Ok(Accepted { change, warnings })
    }

    /// Removes a dynamic cluster; false when there is none of this name. Static clusters stay.
    pub fn remove(&self, name: &str) -> bool {
        let mut state = self.inner.state.lock();
        let removable = |clusters: &HashMap<String, ManagedCluster>| {
            clusters.get(name).is_some_and(|cluster| cluster.origin == Origin::Dynamic)
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
        state.assignments.insert(service, assignment.clone());
        for name in clusters {
            let State { active, warming, .. } = &mut *state;
            for cluster in [warming.get_mut(&name), active.get_mut(&name)].into_iter().flatten() {
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
            if let Some(cluster) = state.warming.get_mut(&name) {
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
            let Discovery::Eds(eds) = &cluster.config.discovery else {
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
            .filter_map(|name| state.warming.get(name).or_else(|| state.active.get(name)))
            .map(|c| c.active.clone())
            .collect()
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
            .map(|cluster| cluster.config.name.clone())
            .collect()
    }

    /// Every cluster, active ones first, ordered by name.
    pub fn describe(&self) -> Vec<ClusterDescription> {
        let state = self.inner.state.lock();
        let mut described = Vec::with_capacity(state.active.len() + state.warming.len());
        for (clusters, warming) in [(&state.active, false), (&state.warming, true)] {
            let mut sorted: Vec<&ManagedCluster> = clusters.values().collect();
            sorted.sort_by(|a, b| a.config.name.cmp(&b.config.name));
            described.extend(sorted.into_iter().map(|cluster| ClusterDescription {
                message: cluster.message.clone(),
                version: cluster.version.clone(),
                last_updated: cluster.last_updated,
                origin: cluster.origin,
                warming,
                cluster: cluster.active.clone(),
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

impl Inner {
    fn subscribe(&self, state: &mut State, managed: &mut ManagedCluster) {
        let Discovery::Eds(eds) = &managed.config.discovery else {
            return;
        };
        let service = eds.service_name.clone();
        state.services.entry(service.clone()).or_default().insert(managed.config.name.clone());
        self.subscriptions.send_modify(|changes| *changes = changes.wrapping_add(1));
        if let Some(assignment) = state.assignments.get(&service).cloned() {
            self.assign(managed, &assignment);
        }
    }

    fn unsubscribe(&self, state: &mut State, cluster: &ManagedCluster) {
        let Discovery::Eds(eds) = &cluster.config.discovery else {
            return;
        };
        let name = &cluster.config.name;
        let still_wanted = [state.active.get(name), state.warming.get(name)].into_iter().flatten().any(
            |other| matches!(&other.config.discovery, Discovery::Eds(other) if other.service_name == eds.service_name),
        );
        if still_wanted {
            return;
        }
        if let Some(users) = state.services.get_mut(&eds.service_name) {
            users.remove(name);
            if users.is_empty() {
                state.services.remove(&eds.service_name);
                state.assignments.remove(&eds.service_name);
            }
        }
        self.subscriptions.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn assign(&self, cluster: &mut ManagedCluster, assignment: &Assignment) {
        cluster.warming = Warming::Done;
        self.note_update(cluster, |cluster| cluster.assign(assignment));
    }

    fn note_update(&self, cluster: &mut ManagedCluster, update: impl FnOnce(&mut ManagedCluster) -> bool) {
        if update(cluster) {
            self.stats.cluster_updated().inc();
            self.publisher.wake();
        } else {
            cluster.info().stats.update_no_rebuild().inc();
        }
    }

    /// Puts a new version where it belongs: into use, or beside the one in use until it is warm.
    fn place(&self, state: &mut State, name: String, managed: ManagedCluster) {
        let older = state.warming.insert(name.clone(), managed);
        if let Some(older) = &older {
            self.unsubscribe(state, older);
        }
        self.promote(state, &name);
    }

    /// Takes a cluster into use when it has become ready.
    fn promote(&self, state: &mut State, name: &str) {
        let ready = state
            .warming
            .get(name)
            .is_some_and(|cluster| cluster.warming == Warming::Done || !cluster.config.wait_for_warm_on_init);
        if !ready {
            return;
        }
        if let Some(cluster) = state.warming.remove(name) {
            cluster.info().stats.warming_state().set(0);
            let older = state.active.insert(name.to_owned(), cluster);
            if let Some(older) = &older {
                self.unsubscribe(state, older);
            }
            state.unpublished = true;
        }
    }

    /// Publishes what changed, unless a batch is still open.
    fn settle(&self, state: &mut State) {
        if state.batches > 0 {
            return;
        }
        if std::mem::take(&mut state.unpublished) {
            let clusters: ClustersSnapshot = state
                .active
                .values()
                .map(|cluster| (cluster.info().name.clone(), cluster.active.clone()))
                .collect();
            self.publisher.publish(clusters);
        }
        let mut waiting = Initialization::default();
        for cluster in state.warming.values() {
            cluster.info().stats.warming_state().set(1);
            match cluster.config.discovery {
                Discovery::Eds(_) => waiting.secondary += 1,
                _ => waiting.primary += 1,
            }
        }
        self.stats.active_clusters().set(state.active.len() as u64);
        self.stats.warming_clusters().set(state.warming.len() as u64);
        self.initialization.send_if_modified(|current| {
            let changed = *current != waiting;
            *current = waiting;
            changed
        });
    }

    /// Starts what a cluster needs to find its hosts and to bring back ejected ones.
    fn discover(inner: &Arc<Self>, managed: &mut ManagedCluster) {
        if let Discovery::Dns(dns) = &managed.config.discovery {
            for (at, name) in managed.names() {
                let task = resolve_again_and_again(
                    Arc::downgrade(inner),
                    managed.config.name.clone(),
                    managed.id,
                    at,
                    name,
                    dns.clone(),
                );
                managed.tasks.push(tokio::spawn(task).abort_handle());
            }
        }
        if let Some(interval) = managed.ejections.interval() {
            let task = sweep_again_and_again(
                Arc::downgrade(inner),
                managed.config.name.clone(),
                managed.id,
                interval.max(Duration::from_millis(1)),
            );
            managed.tasks.push(tokio::spawn(task).abort_handle());
        }
    }

    fn follow_reports(inner: &Arc<Self>, state: &mut State) {
        if let Some(mut reports) = state.reports.take() {
            let inner = Arc::downgrade(inner);
            tokio::spawn(async move {
                while let Some(report) = reports.recv().await {
                    let Some(inner) = inner.upgrade() else {
                        return;
                    };
                    inner.take_report(&report);
                }
            });
        }
    }

    fn take_report(&self, report: &OutlierReport) {
        let mut state = self.state.lock();
        let State { active, rng, .. } = &mut *state;
        let Some(cluster) =
            active.get_mut(&*report.cluster).filter(|cluster| cluster.id == report.cluster_id)
        else {
            return;
        };
        let hosts = cluster.hosts().count();
        if cluster.ejections.eject(&report.host, report.reason, hosts, Instant::now(), rng) {
            cluster.rebuild();
            self.publisher.wake();
        }
    }

    /// The cluster `name` while it is the one of this `id`.
    fn with_cluster(&self, name: &str, id: u64, change: impl FnOnce(&Self, &mut ManagedCluster)) -> bool {
        let mut state = self.state.lock();
        let State { active, warming, .. } = &mut *state;
        let found = [warming.get_mut(name), active.get_mut(name)].into_iter().flatten().find(|c| c.id == id);
        let Some(cluster) = found else {
            return false;
        };
        change(self, cluster);
        self.promote(&mut state, name);
        self.settle(&mut state);
        true
    }

    fn take_answer(&self, name: &str, id: u64, at: usize, answer: &Result<Answer, String>) -> bool {
        self.with_cluster(name, id, |inner, cluster| {
            let stats = &cluster.info().stats;
            match answer {
                Ok(answer) => {
                    stats.update_success().inc();
                    let addresses = answer.addresses.clone();
                    inner.note_update(cluster, |cluster| cluster.answer(at, Some(addresses)));
                }
                Err(error) => {
                    stats.update_failure().inc();
                    tracing::debug!(cluster = name, %error, "DNS resolution failed");
                    cluster.answer(at, None);
                }
            }
        })
    }
}

/// Keeps the addresses of one name current until the cluster goes.
async fn resolve_again_and_again(
    inner: Weak<Inner>,
    cluster: String,
    id: u64,
    at: usize,
    name: String,
    dns: DnsDiscovery,
) {
    let mut rng = Rng::from_entropy();
    let mut backoff = dns.failure_refresh.map(|(base, maximum)| Backoff::new(base, maximum));
    loop {
        let resolver = match inner.upgrade() {
            Some(inner) => {
                if let Some(active) = inner.state.lock().find(&cluster, id) {
                    active.info().stats.update_attempt().inc();
                }
                inner.resolvers.get(&dns.resolver, dns.family)
            }
            None => return,
        };
        let answer = match resolver {
            Ok(resolver) => resolver.lookup(&name).await,
            Err(error) => Err(error),
        };
        match inner.upgrade() {
            Some(inner) if inner.take_answer(&cluster, id, at, &answer) => {}
            _ => return,
        }
        tokio::time::sleep(next_refresh(&dns, &answer, &mut backoff, &mut rng)).await;
    }
}

/// When to ask again.
fn next_refresh(
    dns: &DnsDiscovery,
    answer: &Result<Answer, String>,
    backoff: &mut Option<Backoff>,
    rng: &mut Rng,
) -> Duration {
    let delay = match (answer, &mut *backoff) {
        (Err(_), Some(backoff)) => return backoff.next(rng),
        (Err(_), None) => dns.refresh_rate,
        (Ok(answer), backoff) => {
            if let Some(backoff) = backoff {
                backoff.reset();
            }
            if dns.respect_ttl && !answer.ttl.is_zero() {
                answer.ttl.max(dns.min_refresh_rate)
            } else {
                dns.refresh_rate
            }
        }
    };
    let jitter = u64::try_from(dns.jitter.as_millis()).unwrap_or(u64::MAX);
    delay + Duration::from_millis(rng.below(jitter))
}

/// Looks at ejected hosts at every interval until the cluster goes.
async fn sweep_again_and_again(inner: Weak<Inner>, cluster: String, id: u64, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let found = inner.with_cluster(&cluster, id, |inner, cluster| {
            let hosts: Vec<_> = cluster.hosts().cloned().collect();
            if cluster.ejections.sweep(hosts.iter(), Instant::now()) {
                cluster.rebuild();
                inner.publisher.wake();
            }
        });
        if !found {
            return;
        }
    }
}

impl State {
    fn find(&self, name: &str, id: u64) -> Option<Arc<ActiveCluster>> {
        let found =
            [self.warming.get(name), self.active.get(name)].into_iter().flatten().find(|c| c.id == id);
        found.map(|cluster| cluster.active.clone())
    }
}
