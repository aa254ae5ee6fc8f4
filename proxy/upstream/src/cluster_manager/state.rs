//! The clusters themselves, behind the manager's lock, and the steps from a change to its publication.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_base::Rng;
use dhow_stats::Store;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::description::{ClusterManagerStats, Initialization};
use super::tasks;
use crate::config::{Assignment, Discovery};
use crate::dns::{Answer, Resolvers};
use crate::managed_cluster::{ManagedCluster, Warming};
use crate::outlier::{OutlierReport, OutlierReports};
use crate::snapshot::{ActiveCluster, ClustersSnapshot, Publisher};

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) stats: ClusterManagerStats,
    pub(super) resolvers: Resolvers,
    pub(super) reports: OutlierReports,
    pub(super) subscriptions: watch::Sender<u64>,
    pub(super) initialization: watch::Sender<Initialization>,
    /// Whether discovery runs; it does not under `--mode validate`.
    pub(super) discovers: bool,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) next_id: u64,
    pub(super) active: HashMap<String, ManagedCluster>,
    pub(super) warming: HashMap<String, ManagedCluster>,
    /// Last assignment per service, so that a cluster that is replaced need not wait for the server to repeat itself.
    pub(super) assignments: HashMap<String, Arc<Assignment>>,
    /// Names of the clusters per service.
    pub(super) services: HashMap<String, BTreeSet<String>>,
    pub(super) batches: usize,
    pub(super) unpublished: bool,
    pub(super) reports: Option<mpsc::UnboundedReceiver<OutlierReport>>,
    pub(super) rng: Rng,
}

impl Inner {
    pub(super) fn subscribe(&self, state: &mut State, managed: &mut ManagedCluster) {
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

    pub(super) fn unsubscribe(&self, state: &mut State, cluster: &ManagedCluster) {
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
            self.stats.cluster_updated().inc();
            self.publisher.wake();
        } else {
            cluster.info().stats.update_no_rebuild().inc();
        }
    }

    /// Puts a new version where it belongs: into use, or beside the one in use until it is warm.
    pub(super) fn place(&self, state: &mut State, name: String, managed: ManagedCluster) {
        let older = state.warming.insert(name.clone(), managed);
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
    pub(super) fn settle(&self, state: &mut State) {
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
    pub(super) fn discover(inner: &Arc<Self>, managed: &mut ManagedCluster) {
        if let Discovery::Dns(dns) = &managed.config.discovery {
            for (at, name) in managed.names() {
                let task = tasks::resolve_again_and_again(
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
            let task = tasks::sweep_again_and_again(
                Arc::downgrade(inner),
                managed.config.name.clone(),
                managed.id,
                interval.max(Duration::from_millis(1)),
            );
            managed.tasks.push(tokio::spawn(task).abort_handle());
        }
    }

    pub(super) fn follow_reports(inner: &Arc<Self>, state: &mut State) {
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

    pub(super) fn take_report(&self, report: &OutlierReport) {
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
        answer: &Result<Answer, String>,
    ) -> bool {
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

impl State {
    pub(super) fn find(&self, name: &str, id: u64) -> Option<Arc<ActiveCluster>> {
        let found =
            [self.warming.get(name), self.active.get(name)].into_iter().flatten().find(|c| c.id == id);
        found.map(|cluster| cluster.active.clone())
    }
}
