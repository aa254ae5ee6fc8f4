//! From changed hosts to what workers choose from: sorting, counting, and merging changes that follow each other closely.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::{ManagedCluster, host_set_options};
use crate::cluster_manager::ClusterManagerStats;
use crate::lb::{PrioritySet, Subsets, ZoneObstacle};
use crate::merge_window::{MergeWindow, Verdict};

/// Calls [`ManagedCluster::deliver_waiting`] of the cluster with this name and id after some time.
#[derive(Clone)]
pub(crate) struct DeliverLater(pub(crate) Arc<dyn Fn(Arc<str>, u64, Duration) -> AbortHandle + Send + Sync>);

impl fmt::Debug for DeliverLater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliverLater")
    }
}

/// The changes of one cluster on their way to the workers.
#[derive(Debug)]
pub(crate) struct Delivery {
    window: MergeWindow,
    counters: Arc<ClusterManagerStats>,
    /// Set once the cluster is in use. Until then nobody looks, and changes are neither merged nor counted.
    later: Option<DeliverLater>,
    timer: Option<AbortHandle>,
    waiting: Option<Box<PrioritySet>>,
}

impl Delivery {
    pub(crate) fn new(window: Duration, counters: Arc<ClusterManagerStats>) -> Self {
        Self { window: MergeWindow::new(window), counters, later: None, timer: None, waiting: None }
    }

    /// The cluster is in use from now on.
    pub(crate) fn begin(&mut self, later: DeliverLater) {
        self.later = Some(later);
    }

    /// Takes new host sets; gives them back when they are to be published now.
    fn take(
        &mut self,
        hosts: PrioritySet,
        mergeable: bool,
        cluster: (&Arc<str>, u64),
    ) -> Option<PrioritySet> {
        let Some(later) = &self.later else {
            return Some(hosts);
        };
        // A change of health concerns all levels, and Envoy delivers each for itself.
        let updates = if mergeable { hosts.levels().len() as u64 } else { 1 };
        match self.window.update(Instant::now(), mergeable) {
            Verdict::Deliver { cancels, late } => {
                self.waiting = None;
                if cancels {
                    self.counters.update_merge_cancelled().add(updates);
                }
                if late {
                    self.counters.update_out_of_merge_window().add(updates);
                }
                self.counters.cluster_updated().add(updates);
                Some(hosts)
            }
            Verdict::Wait { timer } => {
                self.waiting = Some(Box::new(hosts));
                let (name, id) = cluster;
                if let Some(after) = timer
                    && let Some(older) = self.timer.replace(later.0(name.clone(), id, after))
                {
                    older.abort();
                }
                None
            }
        }
    }

    /// The time is over: what waited is to be published.
    fn expire(&mut self) -> Option<PrioritySet> {
        self.timer = None;
        if !self.window.expire(Instant::now()) {
            return None;
        }
        let hosts = self.waiting.take()?;
        self.counters.cluster_updated_via_merge().add(hosts.levels().len() as u64);
        Some(*hosts)
    }

    /// The subsets of what waits.
    fn subsets(&self) -> Option<Arc<Subsets>> {
        self.waiting.as_ref()?.subsets.clone()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

impl ManagedCluster {
    /// Sorts the hosts anew after health or membership changed, and publishes them; changes that are `mergeable` may wait
    /// for others.
    pub(crate) fn rebuild(&mut self, mergeable: bool) {
        let hosts = self.sort_hosts();
        let cluster = (&self.active.info().name, self.id);
        if let Some(hosts) = self.delivery.take(hosts, mergeable, cluster) {
            self.active.replace_hosts(hosts);
        }
    }

    /// Publishes the changes that waited.
    pub(crate) fn deliver_waiting(&mut self) {
        if let Some(hosts) = self.delivery.expire() {
            self.active.replace_hosts(hosts);
        }
    }

    pub(super) fn sort_hosts(&self) -> PrioritySet {
        let options = host_set_options(self.info(), self.policy, &self.site);
        let mut hosts = PrioritySet::new(&self.groups, &options);
        if let Some(config) = self.info().balancing.lb.subset.clone() {
            let before = self.delivery.subsets().or_else(|| self.active.hosts().subsets.clone());
            let subsets = Subsets::build(&config, &self.groups, &options, before.as_deref());
            self.count_subsets(&subsets, before.as_deref());
            hosts.subsets = Some(Arc::new(subsets));
        }
        self.count_zone(&hosts);
        let sum = |of: fn(&crate::lb::HostSet) -> usize| hosts.levels().iter().map(of).sum::<usize>() as u64;
        let stats = &self.info().stats.discovery;
        stats.membership_total().set(sum(|set| set.all.len()));
        stats.membership_healthy().set(sum(|set| set.healthy.len()));
        stats.membership_degraded().set(sum(|set| set.degraded.len()));
        stats.membership_excluded().set(sum(|set| set.excluded));
        // Envoy builds the tables of all levels one after the other and writes down what each is like, if it has hosts.
        let tables = || hosts.levels().iter().filter_map(|level| level.table.as_deref());
        if let Some(table) = tables().rfind(|table| !table.is_empty()).or_else(|| tables().next()) {
            self.info().stats.describe_table(table);
        }
        hosts
    }

    /// Counts subsets that came and went once per load balancer: Envoy has one on each worker and one on the main thread.
    fn count_subsets(&self, now: &Subsets, before: Option<&Subsets>) {
        let stats = &self.info().stats;
        let (created, removed) = now.changes(before);
        stats.lb_subsets_created().add(created as u64 * self.site.balancers);
        stats.lb_subsets_removed().add(removed as u64 * self.site.balancers);
        stats.lb_subsets_active().set(now.len() as u64 * self.site.balancers);
        stats.set_single_host_duplicates(now.duplicates);
    }

    /// Counts a look at zones, once per load balancer.
    fn count_zone(&self, hosts: &PrioritySet) {
        let Some(outcome) = hosts.zone_outcome() else {
            return;
        };
        let (stats, times) = (&self.info().stats, self.site.balancers);
        stats.lb_recalculate_zone_structures().add(times);
        match outcome {
            Err(ZoneObstacle::NoLocalHosts) => stats.lb_local_cluster_not_ok().add(times),
            Err(ZoneObstacle::TooSmall) => stats.lb_zone_cluster_too_small().add(times),
            Err(ZoneObstacle::OneLocality) | Ok(()) => {}
        }
    }
}
