//! The clusters themselves, behind the manager's lock, and the steps from a change to its publication.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dhow_base::{ConfigError, FieldPath, Rng};
use dhow_proto::envoy::config::core::v3::BindConfig;
use dhow_stats::Store;
use dhow_tls::Secrets;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::description::{ClusterManagerStats, Initialization};
use super::{dynamic_clusters, dynamic_hosts, tasks};
use crate::cluster_settings::KnownSettings;
use crate::config::{Assignment, ClusterConfig, Discovery};
use crate::connect::system_text;
use crate::dns::{Answer, LookupError, ResolverOptions, Resolvers};
use crate::dns_cache::DnsCacheSettings;
use crate::event_log::{EventFile, EventLogs};
use crate::forwarding_options::ForwardingLowering;
use crate::host::Host;
use crate::lb::LocalCluster;
use crate::managed_cluster::{DeliverLater, ManagedCluster, Site, Warming};
use crate::outlier::{Finding, HostReport, Moment, ReportSender};
use crate::snapshot::{ActiveCluster, ClustersSnapshot, Publisher};

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) this: Weak<Inner>,
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) stats: Arc<ClusterManagerStats>,
    pub(super) resolvers: Resolvers,
    pub(super) reports: ReportSender,
    pub(super) event_logs: EventLogs,
    /// `cluster_manager.outlier_detection.event_log_path`.
    pub(super) outlier_events: Mutex<Option<Arc<EventFile>>>,
    /// What delivers merged changes.
    pub(super) deliver_later: DeliverLater,
    pub(super) subscriptions: watch::Sender<u64>,
    pub(super) initialization: watch::Sender<Initialization>,
    /// Whether discovery runs; it does not under `--mode validate`.
    pub(super) discovers: bool,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) next_id: u64,
    /// Boxed, as tables keep room for twice as many clusters as there are.
    pub(super) active: HashMap<Arc<str>, Box<ManagedCluster>>,
    pub(super) warming: HashMap<Arc<str>, Box<ManagedCluster>>,
    /// Last assignment per service, so that a cluster that is replaced need not wait for the server to repeat itself.
    pub(super) assignments: HashMap<String, Arc<Assignment>>,
    /// The timers of assignments that go when no update comes (`endpoint_stale_after`), per service.
    pub(super) staleness: HashMap<String, AbortHandle>,
    /// Names of the clusters per service.
    pub(super) services: HashMap<String, BTreeSet<String>>,
    /// The settings of DNS caches by their names, which clusters may share.
    pub(super) dns_caches: HashMap<String, DnsCacheSettings>,
    /// What clusters share.
    pub(super) settings: KnownSettings,
    pub(super) batches: usize,
    pub(super) site: Site,
    /// `local_cluster_name`, and the generation of its hosts that clusters know of.
    pub(super) local_cluster: Option<(String, u64)>,
    pub(super) unpublished: bool,
    pub(super) reports: Option<mpsc::UnboundedReceiver<HostReport>>,
    pub(super) rng: Rng,
    /// `cluster_manager.upstream_bind_config`.
    pub(super) upstream_bind: Option<BindConfig>,
    /// `static_resources.secrets`.
    pub(super) secrets: Arc<Secrets>,
    /// How names are resolved unless a cluster says it.
    pub(super) resolver: Arc<ResolverOptions>,
    pub(super) forwarding: ForwardingLowering,
}

impl Inner {
    pub(super) fn subscribe(&self, state: &mut State, managed: &mut ManagedCluster) {
        let Discovery::Eds(eds) = &managed.discovery else {
            return;
        };
        let service = eds.service_name.clone();
        state.services.entry(service.clone()).or_default().insert(managed.info().name.to_string());
        self.subscriptions.send_modify(|changes| *changes = changes.wrapping_add(1));
        if let Some(assignment) = state.assignments.get(&service).cloned() {
            self.assign(managed, &assignment);
        }
    }

    pub(super) fn unsubscribe(&self, state: &mut State, cluster: &ManagedCluster) {
        let Discovery::Eds(eds) = &cluster.discovery else {
            return;
        };
        let name = &*cluster.info().name;
        let still_wanted = [state.active.get(name), state.warming.get(name)].into_iter().flatten().any(
            |other| matches!(&other.discovery, Discovery::Eds(other) if other.service_name == eds.service_name),
        );
        if still_wanted {
            return;
        }
        if let Some(users) = state.services.get_mut(&eds.service_name) {
            users.remove(name);
            if users.is_empty() {
                state.services.remove(&eds.service_name);
                state.assignments.remove(&eds.service_name);
                if let Some(timer) = state.staleness.remove(&eds.service_name) {
                    timer.abort();
                }
            }
        }
        self.subscriptions.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// An assignment came for a service: it holds for as long as it says.
    pub(super) fn watch_staleness(&self, state: &mut State, service: &str, stale_after: Option<Duration>) {
        if let Some(timer) = state.staleness.remove(service) {
            timer.abort();
        }
        let Some(after) = stale_after else {
            return;
        };
        state.each_of_service(service, |cluster| cluster.info().stats.assignment_timeout_received().inc());
        if self.discovers {
            let task = tasks::expire_assignment(self.this.clone(), service.to_owned(), after);
            state.staleness.insert(service.to_owned(), tokio::task::spawn_local(task).abort_handle());
        }
    }

    /// No update came in time: the clusters of a service have no hosts until one does.
    pub(super) fn drop_stale_assignment(&self, service: &str) {
        let mut state = self.state.lock();
        state.staleness.remove(service);
        let empty = Arc::new(Assignment::default());
        state.assignments.insert(service.to_owned(), empty.clone());
        state.each_of_service(service, |cluster| {
            cluster.info().stats.assignment_stale().inc();
            self.assign(cluster, &empty);
        });
        self.settle(&mut state);
    }

    pub(super) fn assign(&self, cluster: &mut ManagedCluster, assignment: &Assignment) {
        cluster.warming = Warming::Done;
        self.note_update(cluster, |cluster| cluster.assign(assignment));
    }

    pub(super) fn note_update(
        &self,
        cluster: &mut ManagedCluster,
        update: impl FnOnce(&mut ManagedCluster) -> bool,
    ) {
        if update(cluster) {
            self.publisher.wake();
        } else {
            cluster.info().stats.discovery.update_no_rebuild().inc();
        }
    }

    /// Puts a new version where it belongs: into use, or beside the one in use until it is warm.
    pub(super) fn place(&self, state: &mut State, managed: ManagedCluster) {
        let name = managed.info().name.clone();
        let older = state.warming.insert(name.clone(), Box::new(managed));
        if let Some(older) = &older {
            self.unsubscribe(state, older);
        }
        self.promote(state, &name);
    }

    /// Takes a cluster into use when it has become ready.
    pub(super) fn promote(&self, state: &mut State, name: &str) {
        let ready = state
            .warming
            .get(name)
            .is_some_and(|cluster| cluster.is_warm() || !cluster.info().wait_for_warm_on_init);
        if !ready {
            return;
        }
        if let Some(mut cluster) = state.warming.remove(name) {
            cluster.info().stats.discovery.warming_state().set(0);
            cluster.delivery.begin(self.deliver_later.clone());
            let older = state.active.insert(cluster.info().name.clone(), cluster);
            if let Some(older) = &older {
                self.unsubscribe(state, older);
            }
            state.unpublished = true;
        }
    }

    /// Tells zone-aware clusters when the hosts of the local cluster changed.
    fn follow_local_cluster(&self, state: &mut State) {
        let State { local_cluster: Some((name, seen)), active, warming, site, .. } = state else {
            return;
        };
        let Some(own) = active.get(&**name) else {
            return;
        };
        let generation = own.active.generation();
        if generation == *seen {
            return;
        }
        *seen = generation;
        let look = own.active.hosts().levels().first().map(LocalCluster::of).unwrap_or_default();
        let look = Arc::new(look);
        site.local_cluster = Some(look.clone());
        let mut changed = false;
        for (other, cluster) in active.iter_mut().chain(warming.iter_mut()) {
            // The local cluster does not route to itself by zone: it would never come to rest.
            changed |= **other != **name && cluster.follow_local_cluster(&look);
        }
        if changed {
            self.publisher.wake();
        }
    }

    /// Publishes what changed, unless a batch is still open.
    pub(super) fn settle(&self, state: &mut State) {
        if state.batches > 0 {
            return;
        }
        self.follow_local_cluster(state);
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
            cluster.info().stats.discovery.warming_state().set(1);
            match cluster.discovery {
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
    pub(super) fn discover(inner: &Arc<Self>, managed: &mut ManagedCluster, events: Vec<Arc<EventFile>>) {
        if let Discovery::Dns(dns) = &managed.discovery {
            for (at, name) in managed.names() {
                let task = tasks::resolve_again_and_again(
                    Arc::downgrade(inner),
                    managed.info().name.to_string(),
                    managed.id,
                    at,
                    name,
                    (**dns).clone(),
                );
                managed.tasks.push(tokio::task::spawn_local(task).abort_handle());
            }
        }
        if let Some(requests) = managed.active.dns_cache().and_then(|cache| cache.take_requests()) {
            let (weak, active) = (Arc::downgrade(inner), managed.active.clone());
            let task = dynamic_hosts::resolve_on_request(weak, active, managed.id, requests);
            managed.tasks.push(tokio::task::spawn_local(task).abort_handle());
        }
        if let Some(requests) = managed.active.sub_clusters().and_then(|clusters| clusters.take_requests()) {
            // It outlives the cluster for as long as it takes to remove what it made.
            let (weak, active) = (Arc::downgrade(inner), managed.active.clone());
            tokio::task::spawn_local(dynamic_clusters::make_on_request(
                weak,
                active,
                managed.message.clone(),
                requests,
            ));
        }
        if let Discovery::OriginalDst(interval) = &managed.discovery {
            let task = tasks::follow_original_hosts(
                Arc::downgrade(inner),
                managed.active.clone(),
                managed.id,
                (*interval).max(Duration::from_millis(1)),
            );
            managed.tasks.push(tokio::task::spawn_local(task).abort_handle());
        }
        let (weak, name, id) = (Arc::downgrade(inner), managed.info().name.clone(), managed.id);
        let on_checked = move |host: &Arc<Host>, healthy: bool| {
            if let Some(inner) = weak.upgrade() {
                inner.with_cluster(&name, id, |inner, cluster| {
                    if let Some(ejections) = cluster.ejections.as_mut().filter(|_| healthy) {
                        ejections.uneject_healthy(host, Instant::now());
                    }
                    cluster.apply_checks();
                    inner.publisher.wake();
                });
            }
        };
        managed.check_health(events, Arc::new(on_checked));
        if let Some(interval) = managed.ejections.as_ref().map(|ejections| ejections.interval()) {
            let task = tasks::sweep_again_and_again(
                Arc::downgrade(inner),
                managed.info().name.to_string(),
                managed.id,
                interval,
            );
            managed.tasks.push(tokio::task::spawn_local(task).abort_handle());
        }
    }

    /// Opens the event logs that a cluster's health checks write to.
    pub(super) fn open_events(&self, config: &ClusterConfig) -> Result<Vec<Arc<EventFile>>, ConfigError> {
        let Some(check) = &config.health_check else {
            return Ok(Vec::new());
        };
        let open = |path: &String| {
            self.event_logs.open(path).map_err(|error| {
                let at = FieldPath::root().field("health_checks").index(0);
                ConfigError::new(at, format!("unable to open file '{path}': {}", system_text(&error)))
            })
        };
        check.event_logs.iter().map(open).collect()
    }

    pub(super) fn follow_reports(inner: &Arc<Self>, state: &mut State) {
        if let Some(mut reports) = state.reports.take() {
            let inner = Arc::downgrade(inner);
            tokio::task::spawn_local(async move {
                while let Some(report) = reports.recv().await {
                    let Some(inner) = inner.upgrade() else {
                        return;
                    };
                    inner.take_report(&report);
                }
            });
        }
    }

    pub(super) fn take_report(&self, report: &HostReport) {
        let mut state = self.state.lock();
        let State { active, rng, .. } = &mut *state;
        let Some(cluster) =
            active.get_mut(&*report.cluster).filter(|cluster| cluster.id == report.cluster_id)
        else {
            return;
        };
        let hosts = cluster.hosts().count();
        let changed = match report.finding {
            Finding::Outlier(reason) => {
                let mut moment = Moment { now: Instant::now(), rng };
                cluster.ejections.as_mut().is_some_and(|ejections| {
                    ejections.eject_for_streak(&report.host, reason, hosts, &mut moment)
                })
            }
            Finding::Degraded => cluster
                .ejections
                .as_mut()
                .is_some_and(|ejections| ejections.degrade(&report.host, Instant::now())),
            Finding::WantsNoTraffic => {
                cluster.health.as_ref().is_some_and(|health| health.fail_passively(&report.host))
            }
        };
        if changed {
            cluster.apply_checks();
            self.follow_local_cluster(&mut state);
            self.publisher.wake();
        }
    }

    /// The cluster `name` while it is the one of this `id`.
    pub(super) fn with_cluster(
        &self,
        name: &str,
        id: u64,
        change: impl FnOnce(&Self, &mut ManagedCluster),
    ) -> bool {
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

    pub(super) fn take_answer(
        &self,
        name: &str,
        id: u64,
        at: usize,
        answer: &Result<Answer, LookupError>,
    ) -> bool {
        self.with_cluster(name, id, |inner, cluster| {
            let stats = &cluster.info().stats.discovery;
            let nothing = answer.as_ref().is_err_and(|error| !cluster.is_dns_failure(error));
            match answer {
                Err(_) if nothing => {
                    stats.update_success().inc();
                    inner.note_update(cluster, |cluster| cluster.answer(at, Some(Vec::new())));
                }
                Ok(answer) => {
                    stats.update_success().inc();
                    let addresses = answer.addresses.clone();
                    inner.note_update(cluster, |cluster| cluster.answer(at, Some(addresses)));
                }
                Err(error) => {
                    stats.update_failure().inc();
                    tracing::debug!(cluster = name, error = %error.text, "DNS resolution failed");
                    cluster.answer(at, None);
                }
            }
        })
    }
}

impl State {
    /// Refuses a cluster whose DNS cache is known with other settings.
    pub(super) fn check_dns_cache(&mut self, config: &ClusterConfig) -> Result<(), ConfigError> {
        let Discovery::DynamicForwardProxy(hosts) = &config.discovery else {
            return Ok(());
        };
        let settings = &hosts.cache;
        let known = self.dns_caches.entry(settings.name.clone()).or_insert_with(|| settings.clone());
        if known == settings {
            return Ok(());
        }
        let path = FieldPath::root().field("cluster_type").field("typed_config").field("dns_cache_config");
        let reason = format!("config specified DNS cache '{}' with different settings", settings.name);
        Err(ConfigError::new(path, reason))
    }

    /// Does something with every cluster that has its hosts from `service`.
    fn each_of_service(&mut self, service: &str, mut action: impl FnMut(&mut ManagedCluster)) {
        let Self { active, warming, services, .. } = self;
        for name in services.get(service).into_iter().flatten() {
            let found = [warming.get_mut(name.as_str()), active.get_mut(name.as_str())];
            found.into_iter().flatten().for_each(|cluster| action(cluster));
        }
    }

    pub(super) fn find(&self, name: &str, id: u64) -> Option<Arc<ActiveCluster>> {
        let found =
            [self.warming.get(name), self.active.get(name)].into_iter().flatten().find(|c| c.id == id);
        found.map(|cluster| cluster.active.clone())
    }
}
