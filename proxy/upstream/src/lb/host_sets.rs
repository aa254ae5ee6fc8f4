//! The hosts of a cluster sorted by priority, locality and health: what the main thread computes and workers choose from.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use dhow_runtime_config::Current;

use super::consistent::{HashTable, TableConfig};
use super::previous_priorities::PreviousPriorities;
use super::priority_load::{PriorityHealth, PriorityLoad, panic_threshold};
use super::subset::Subsets;
use super::zone::{LocalCluster, ZoneAware, ZoneObstacle, ZoneRouting};
use crate::host::{Health, Host, Locality};

/// Hosts in the order of configuration.
pub type Hosts = Arc<[Arc<Host>]>;

/// One locality of a priority level.
#[derive(Clone, Debug)]
pub struct LocalityHosts {
    /// Which one it is.
    pub locality: Arc<Locality>,
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
    /// The hosts by locality: the proxy's own first, if it is there, the others in the order of their names.
    pub localities: Arc<[LocalityHosts]>,
    /// Whether the first locality is the proxy's own.
    pub has_own_locality: bool,
    /// The consistent-hash table over the healthy hosts, or over all in panic; `None` for the other policies.
    pub table: Option<Arc<HashTable>>,
}

/// Settings of a cluster that shape its host sets.
#[derive(Clone, Debug, PartialEq)]
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
    /// The consistent-hash table that each level gets.
    pub table: Option<TableConfig>,
    /// `policy.drop_overloads` of the assignment in millionths.
    pub drop_overload: u32,
    /// Zone-aware routing, when there is a local cluster and the policy takes part.
    pub zone: Option<(ZoneAware, Arc<LocalCluster>)>,
    /// The proxy's own locality.
    pub own_locality: Arc<Locality>,
}

impl Default for HostSetOptions {
    fn default() -> Self {
        Self {
            overprovisioning: 140,
            weighted_priority_health: false,
            panic_threshold: 50,
            ignore_new_hosts: false,
            locality_weighted: false,
            table: None,
            drop_overload: 0,
            zone: None,
            own_locality: Arc::default(),
        }
    }
}

/// The hosts of one locality of one priority level, as configured.
#[derive(Clone, Debug)]
pub struct LocalityGroup {
    /// Priority level.
    pub priority: u32,
    /// The locality.
    pub locality: Arc<Locality>,
    /// `load_balancing_weight`; 0 when unset.
    pub weight: u32,
    /// The hosts.
    pub hosts: Vec<Arc<Host>>,
}

/// All hosts of a cluster, or of one subset of it.
#[derive(Clone, Debug, Default)]
pub struct PrioritySet {
    sets: Vec<HostSet>,
    load: PriorityLoad,
    /// What `load` was computed from.
    healths: Box<[PriorityHealth]>,
    overprovisioning: u32,
    zone: Option<Zone>,
    locality_weighted: bool,
    drop_overload: u32,
    pub(crate) subsets: Option<Arc<Subsets>>,
    /// Hosts by address, made when it is first asked for.
    by_address: OnceLock<HashMap<Arc<str>, Arc<Host>>>,
}

/// Zone-aware routing at the first priority.
#[derive(Clone, Debug)]
struct Zone {
    routing: Result<ZoneRouting, ZoneObstacle>,
    enabled: u32,
    local_panics: bool,
}

impl PrioritySet {
    /// Sorts `groups`, and builds a consistent-hash table per level when the policy has one.
    pub fn new(groups: &[LocalityGroup], options: &HostSetOptions) -> Self {
        let levels = groups.iter().map(|group| group.priority as usize + 1).max().unwrap_or(1);
        let mut sets: Vec<HostSet> = (0..levels)
            .map(|level| {
                let groups: Vec<&LocalityGroup> =
                    groups.iter().filter(|group| group.priority as usize == level).collect();
                HostSet::new(&groups, options)
            })
            .collect();
        let health: Vec<PriorityHealth> = sets.iter().map(|set| set.health(options)).collect();
        let threshold = panic_threshold(options.panic_threshold, &Current);
        let load = PriorityLoad::compute(&health, threshold);
        if let Some(table) = &options.table {
            for (set, &panic) in sets.iter_mut().zip(&load.panic) {
                set.table = Some(Arc::new(table.build(&set.table_weights(panic, options.locality_weighted))));
            }
        }
        let zone = options.zone.as_ref().map(|(zone, local)| Zone {
            routing: zone.routing(&sets[0], local),
            enabled: zone.routing_enabled,
            local_panics: local.panics(threshold),
        });
        Self {
            sets,
            load,
            healths: health.into(),
            overprovisioning: options.overprovisioning,
            zone,
            locality_weighted: options.locality_weighted,
            drop_overload: options.drop_overload,
            subsets: None,
            by_address: OnceLock::new(),
        }
    }

    /// How requests of the first priority go to localities, the percentage of requests that this applies to, and whether
    /// the local cluster is in panic; `None` when zones do not matter.
    pub(crate) fn zone(&self) -> Option<(&ZoneRouting, u32, bool)> {
        let zone = self.zone.as_ref()?;
        Some((zone.routing.as_ref().ok()?, zone.enabled, zone.local_panics))
    }

    /// Whether locality weights count; in a subset they may not although they do in its cluster.
    pub(crate) fn is_locality_weighted(&self) -> bool {
        self.locality_weighted
    }

    /// Why the last look at zones came to nothing; `None` when there was no look, or it did not.
    pub(crate) fn zone_outcome(&self) -> Option<Result<(), ZoneObstacle>> {
        self.zone.as_ref().map(|zone| zone.routing.as_ref().map(|_| ()).map_err(|why| *why))
    }

    /// The levels, the first choice first.
    pub fn levels(&self) -> &[HostSet] {
        &self.sets
    }

    /// The shares of the levels.
    pub fn load(&self) -> &PriorityLoad {
        &self.load
    }

    /// The level and class of hosts for one request; `draw` is any random number.
    pub(super) fn choose_level(
        &self,
        previous: Option<&RefCell<PreviousPriorities>>,
        draw: u64,
    ) -> (usize, bool) {
        match previous {
            None => self.load.choose(draw),
            Some(previous) => {
                previous.borrow_mut().choose(&self.load, &self.healths, |host| self.level_of(host), draw)
            }
        }
    }

    /// The level that a host is on.
    pub(crate) fn level_of(&self, host: &Arc<Host>) -> Option<usize> {
        self.sets.iter().position(|set| set.all.iter().any(|other| Arc::ptr_eq(other, host)))
    }

    /// The figures of the levels that [`PrioritySet::load`] was computed from.
    pub fn healths(&self) -> &[PriorityHealth] {
        &self.healths
    }

    /// `overprovisioning_factor` in percent.
    pub fn overprovisioning(&self) -> u32 {
        self.overprovisioning
    }

    /// Every host of every level.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.sets.iter().flat_map(|set| set.all.iter())
    }

    /// `load_balancing_weight` of a locality at a priority level; 0 when it has none.
    pub fn locality_weight(&self, priority: u32, locality: &Locality) -> u32 {
        let set = self.sets.get(priority as usize);
        let mut localities = set.into_iter().flat_map(|set| set.localities.iter());
        localities.find(|one| *one.locality == *locality).map_or(0, |one| one.weight)
    }

    /// `drop_overloads`: requests of a million to turn away before a host is chosen.
    pub fn drop_overload(&self) -> u32 {
        self.drop_overload
    }

    /// The host at an address, in the form in which Envoy prints addresses.
    pub fn at_address(&self, address: &str) -> Option<&Arc<Host>> {
        let index = self
            .by_address
            .get_or_init(|| self.hosts().map(|host| (host.address_text().clone(), host.clone())).collect());
        index.get(address)
    }

    /// Whether there is no host at all.
    pub fn is_empty(&self) -> bool {
        self.sets.iter().all(|set| set.all.is_empty())
    }
}

impl HostSet {
    fn new(groups: &[&LocalityGroup], options: &HostSetOptions) -> Self {
        // One locality may be spread over several groups; what they say about its weight last counts.
        let mut merged: Vec<LocalityGroup> = Vec::with_capacity(groups.len());
        for group in groups {
            match merged.iter_mut().find(|known| known.locality == group.locality) {
                Some(known) => {
                    known.hosts.extend(group.hosts.iter().cloned());
                    known.weight = group.weight;
                }
                None => merged.push((*group).clone()),
            }
        }
        let all: Hosts = groups.iter().flat_map(|group| group.hosts.iter().cloned()).collect();
        let is_own =
            |group: &LocalityGroup| group.locality == options.own_locality && !group.hosts.is_empty();
        merged.sort_by(|a, b| is_own(b).cmp(&is_own(a)).then_with(|| a.locality.cmp(&b.locality)));
        let has_own_locality = merged.first().is_some_and(is_own);
        let localities: Arc<[LocalityHosts]> =
            merged.iter().map(|group| LocalityHosts::new(group, options.ignore_new_hosts)).collect();
        let excluded = localities.iter().map(|locality| locality.excluded).sum();
        let of = |health: Health| -> Hosts { usable(&all, health, options.ignore_new_hosts) };
        match &*localities {
            // The common case shares the lists of its only locality.
            [only] => Self {
                all: only.all.clone(),
                healthy: only.healthy.clone(),
                degraded: only.degraded.clone(),
                excluded,
                has_own_locality,
                table: None,
                localities,
            },
            _ => Self {
                healthy: of(Health::Healthy),
                degraded: of(Health::Degraded),
                all,
                excluded,
                has_own_locality,
                table: None,
                localities,
            },
        }
    }

    /// Number of localities that have hosts.
    pub(super) fn spread(&self) -> usize {
        self.localities.iter().filter(|locality| !locality.all.is_empty()).count()
    }

    /// Hosts with their share of the table, summing up to 1. Where localities count and none has a weight, there are none.
    fn table_weights(&self, panic: bool, locality_weighted: bool) -> Vec<(Arc<Host>, f64)> {
        let share = |hosts: &Hosts, of: f64, into: &mut Vec<(Arc<Host>, f64)>| {
            let sum: f64 = hosts.iter().map(|host| f64::from(host.weight())).sum();
            into.extend(hosts.iter().map(|host| (host.clone(), of * f64::from(host.weight()) / sum)));
        };
        let mut weights = Vec::new();
        let total: f64 = self.localities.iter().map(|locality| f64::from(locality.weight)).sum();
        if !locality_weighted {
            share(if panic { &self.all } else { &self.healthy }, 1.0, &mut weights);
            return weights;
        }
        for locality in self.localities.iter().filter(|locality| locality.weight > 0) {
            let hosts = if panic { &locality.all } else { &locality.healthy };
            share(hosts, f64::from(locality.weight) / total, &mut weights);
        }
        weights
    }

    fn health(&self, options: &HostSetOptions) -> PriorityHealth {
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
        let all: Hosts = group.hosts.iter().cloned().collect();
        let healthy = usable(&all, Health::Healthy, ignore_new_hosts);
        Self {
            locality: group.locality.clone(),
            weight: group.weight,
            degraded: usable(&all, Health::Degraded, ignore_new_hosts),
            excluded: all.iter().filter(|host| host.health_flags().is_excluded(ignore_new_hosts)).count(),
            // Most of the time everything is healthy, and one list does for both.
            healthy: if healthy.len() == all.len() { all.clone() } else { healthy },
            all,
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

/// The hosts in a class, without excluded ones.
fn usable(hosts: &Hosts, health: Health, ignore_new_hosts: bool) -> Hosts {
    let taking = hosts
        .iter()
        .filter(|host| host.health() == health && !host.health_flags().is_excluded(ignore_new_hosts));
    taking.cloned().collect()
}
