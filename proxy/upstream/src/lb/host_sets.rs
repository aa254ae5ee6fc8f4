//! The hosts of a cluster sorted by priority, locality and health: what the main thread computes and workers choose from.

use std::sync::Arc;

use super::consistent::{HashTable, TableConfig};
use super::priority_load::{PriorityHealth, PriorityLoad};
use crate::host::{Health, Host};

/// Hosts in the order of configuration.
pub type Hosts = Arc<[Arc<Host>]>;

/// One locality of a priority level.
#[derive(Clone, Debug)]
pub struct LocalityHosts {
    /// `load_balancing_weight` of the locality; 0 takes no traffic under locality-weighted balancing.
    pub weight: u32,
    /// All its hosts.
    pub all: Hosts,
    /// The healthy ones.
    pub healthy: Hosts,
    /// The degraded ones.
    pub degraded: Hosts,
    /// The number of excluded ones.
    pub excluded: usize,
}

/// The hosts of one priority level.
#[derive(Clone, Debug)]
pub struct HostSet {
    /// All hosts.
    pub all: Hosts,
    /// Those that take traffic.
    pub healthy: Hosts,
    /// Those that take what healthy ones cannot.
    pub degraded: Hosts,
    /// The number of those that do not count.
    pub excluded: usize,
    /// The hosts by locality, in the order of the assignment.
    pub localities: Arc<[LocalityHosts]>,
    /// The consistent-hash table over the healthy hosts, or over all in panic; `None` for the other policies.
    pub table: Option<Arc<HashTable>>,
}

/// Settings of a cluster that shape its host sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostSetOptions {
    /// `policy.overprovisioning_factor` of the assignment in percent.
    pub overprovisioning: u32,
    /// `policy.weighted_priority_health` of the assignment.
    pub weighted_priority_health: bool,
    /// `common_lb_config.healthy_panic_threshold` in percent.
    pub panic_threshold: u32,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`.
    pub ignore_new_hosts: bool,
    /// Whether locality weights count (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
}

impl Default for HostSetOptions {
    fn default() -> Self {
        Self {
            overprovisioning: 140,
            weighted_priority_health: false,
            panic_threshold: 50,
            ignore_new_hosts: false,
            locality_weighted: false,
        }
    }
}

/// The hosts of one locality of one priority level, as configured.
#[derive(Clone, Debug)]
pub struct LocalityGroup {
    /// Priority level.
    pub priority: u32,
    /// `load_balancing_weight`; 0 when unset.
    pub weight: u32,
    /// The hosts.
    pub hosts: Vec<Arc<Host>>,
}

/// All hosts of a cluster.
#[derive(Clone, Debug, Default)]
pub struct PrioritySet {
    sets: Vec<HostSet>,
    load: PriorityLoad,
    overprovisioning: u32,
}

impl PrioritySet {
    /// Sorts `groups`, and builds a consistent-hash table per level when the policy has one.
    pub fn new(groups: &[LocalityGroup], options: HostSetOptions, table: Option<&TableConfig>) -> Self {
        let levels = groups.iter().map(|group| group.priority as usize + 1).max().unwrap_or(1);
        let mut sets: Vec<HostSet> = (0..levels)
            .map(|level| {
                let groups: Vec<&LocalityGroup> =
                    groups.iter().filter(|group| group.priority as usize == level).collect();
                HostSet::new(&groups, options)
            })
            .collect();
        let health: Vec<PriorityHealth> = sets.iter().map(|set| set.health(options)).collect();
        let load = PriorityLoad::compute(&health, options.panic_threshold);
        if let Some(table) = table {
            for (set, &panic) in sets.iter_mut().zip(&load.panic) {
                set.table = Some(Arc::new(table.build(&set.table_weights(panic, options.locality_weighted))));
            }
        }
        Self { sets, load, overprovisioning: options.overprovisioning }
    }

    /// The levels, the first choice first.
    pub fn levels(&self) -> &[HostSet] {
        &self.sets
    }

    /// The shares of the levels.
    pub fn load(&self) -> &PriorityLoad {
        &self.load
    }

    /// `overprovisioning_factor` in percent.
    pub fn overprovisioning(&self) -> u32 {
        self.overprovisioning
    }

    /// Every host of every level.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.sets.iter().flat_map(|set| set.all.iter())
    }

    /// Whether there is no host at all.
    pub fn is_empty(&self) -> bool {
        self.sets.iter().all(|set| set.all.is_empty())
    }
}

impl HostSet {
    fn new(groups: &[&LocalityGroup], options: HostSetOptions) -> Self {
        let localities: Arc<[LocalityHosts]> =
            groups.iter().map(|group| LocalityHosts::new(group, options.ignore_new_hosts)).collect();
        let joined = |pick: fn(&LocalityHosts) -> &Hosts| -> Hosts {
            match &*localities {
                // The common case shares the list of its only locality.
                [only] => pick(only).clone(),
                several => several.iter().flat_map(|locality| pick(locality).iter().cloned()).collect(),
            }
        };
        Self {
            all: joined(|locality| &locality.all),
            healthy: joined(|locality| &locality.healthy),
            degraded: joined(|locality| &locality.degraded),
            excluded: localities.iter().map(|locality| locality.excluded).sum(),
            localities,
            table: None,
        }
    }

    /// Hosts with their share of the table, summing up to 1.
    fn table_weights(&self, panic: bool, locality_weighted: bool) -> Vec<(Arc<Host>, f64)> {
        let share = |hosts: &Hosts, of: f64, into: &mut Vec<(Arc<Host>, f64)>| {
            let sum: f64 = hosts.iter().map(|host| f64::from(host.weight())).sum();
            into.extend(hosts.iter().map(|host| (host.clone(), of * f64::from(host.weight()) / sum)));
        };
        let mut weights = Vec::new();
        let total: f64 = self.localities.iter().map(|locality| f64::from(locality.weight)).sum();
        if !locality_weighted || total == 0.0 {
            share(if panic { &self.all } else { &self.healthy }, 1.0, &mut weights);
            return weights;
        }
        for locality in self.localities.iter().filter(|locality| locality.weight > 0) {
            let hosts = if panic { &locality.all } else { &locality.healthy };
            share(hosts, f64::from(locality.weight) / total, &mut weights);
        }
        weights
    }

    fn health(&self, options: HostSetOptions) -> PriorityHealth {
        let total = self.all.len() as u64;
        if !options.weighted_priority_health {
            return PriorityHealth {
                healthy: self.healthy.len() as u64,
                degraded: self.degraded.len() as u64,
                counted: total - self.excluded as u64,
                total,
                overprovisioning: options.overprovisioning,
            };
        }
        let weigh = |hosts: &Hosts| hosts.iter().map(|host| u64::from(host.weight())).sum::<u64>();
        let counted =
            self.all.iter().filter(|host| !host.health_flags().is_excluded(options.ignore_new_hosts));
        PriorityHealth {
            healthy: weigh(&self.healthy),
            degraded: weigh(&self.degraded),
            counted: counted.map(|host| u64::from(host.weight())).sum(),
            total,
            overprovisioning: options.overprovisioning,
        }
    }
}

impl LocalityHosts {
    fn new(group: &LocalityGroup, ignore_new_hosts: bool) -> Self {
        let of = |health: Health| -> Hosts {
            let taking = group
                .hosts
                .iter()
                .filter(|host| host.health() == health && !host.health_flags().is_excluded(ignore_new_hosts));
            taking.cloned().collect()
        };
        Self {
            weight: group.weight,
            all: group.hosts.iter().cloned().collect(),
            healthy: of(Health::Healthy),
            degraded: of(Health::Degraded),
            excluded: group
                .hosts
                .iter()
                .filter(|host| host.health_flags().is_excluded(ignore_new_hosts))
                .count(),
        }
    }

    /// The locality's weight after its health, the overprovisioning factor in percent applied.
    pub fn effective_weight(&self, usable: usize, overprovisioning: u32) -> f64 {
        let counted = self.all.len() - self.excluded;
        if counted == 0 {
            return 0.0;
        }
        let available = usable as f64 / counted as f64 * f64::from(overprovisioning) / 100.0;
        f64::from(self.weight) * available.min(1.0)
    }
}
