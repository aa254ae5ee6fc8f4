//! Zone-aware routing: how much of the first priority's traffic stays in the proxy's own zone, in Envoy's integer
//! arithmetic on hundredths of a percent.

use dhow_runtime_config::{Current, RuntimeValues};

use super::host_sets::{HostSet, LocalityHosts};
use crate::host::Locality;

/// `zone_aware_lb_config`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZoneAware {
    /// `routing_enabled` in percent of the requests; 100 by default.
    pub routing_enabled: u32,
    /// `min_cluster_size`: clusters with fewer healthy hosts do not route by zone; 6 by default.
    pub min_cluster_size: u64,
    /// `fail_traffic_on_panic`: no host instead of all hosts in panic.
    pub fail_on_panic: bool,
    /// `force_local_zone.min_size`, or 1 with `force_locality_direct_routing`: everything stays local when the zone has
    /// at least that many healthy hosts.
    pub force_local: Option<u32>,
    /// `locality_basis: HEALTHY_HOSTS_WEIGHT`: shares count weights instead of hosts.
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            fail_on_panic: false,
            force_local: None,
            by_weight: false,
        }
    }
}

/// What the local cluster (`local_cluster_name`) looks like: the proxies that share the upstream hosts with this one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalCluster {
    /// Healthy hosts and their weights by locality, of the first priority.
    pub localities: Vec<(Locality, u64, u64)>,
    /// Number of localities that have hosts, healthy or not.
    pub spread: usize,
    /// Whether this proxy's own locality is one of them.
    pub has_own: bool,
    /// Percent of the hosts that count which are healthy or degraded.
    pub usable_percent: f64,
}

/// How the requests of the first priority are spread over localities. The local one is the first of the host set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneRouting {
    /// All to the local zone.
    Direct,
    /// A part to the local zone, the rest to those with capacity to spare.
    Residual {
        /// In hundredths of a percent.
        local: u64,
        /// Running sums of the spare capacity of the localities.
        capacity: Vec<u64>,
    },
}

/// Why requests are not routed by zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneObstacle {
    /// There are less than two localities, of the hosts or of the local cluster's.
    OneLocality,
    /// The local cluster has no hosts in the own locality: `lb_local_cluster_not_ok`.
    NoLocalHosts,
    /// Less healthy hosts than `min_cluster_size`: `lb_zone_cluster_too_small`.
    TooSmall,
}

impl LocalCluster {
    /// The view of a local cluster through the host set of its first priority.
    pub fn of(set: &HostSet) -> Self {
        let counted = set.all.len() - set.excluded;
        let usable = set.healthy.len() + set.degraded.len();
        let localities = set.localities.iter().filter(|locality| !locality.healthy.is_empty());
        Self {
            localities: localities
                .map(|locality| {
                    (Locality::clone(&locality.locality), measure(locality, false), measure(locality, true))
                })
                .collect(),
            spread: set.spread(),
            has_own: set.has_own_locality,
            usable_percent: if counted == 0 { 0.0 } else { 100.0 * usable as f64 / counted as f64 },
        }
    }

    /// Whether too few of its hosts are usable for shares to mean anything.
    pub fn panics(&self, threshold: u32) -> bool {
        self.usable_percent < f64::from(threshold.min(100))
    }
}

impl ZoneAware {
    /// The routing of one host set, the first priority's.
    pub fn routing(&self, set: &HostSet, local: &LocalCluster) -> Result<ZoneRouting, ZoneObstacle> {
        if set.spread() < 2 || (local.spread < 2 && self.force_local.is_none()) {
            return Err(ZoneObstacle::OneLocality);
        }
        if !local.has_own {
            return Err(ZoneObstacle::NoLocalHosts);
        }
        let least = Current.number("upstream.zone_routing.min_cluster_size").unwrap_or(self.min_cluster_size);
        if (set.healthy.len() as u64) < least {
            return Err(ZoneObstacle::TooSmall);
        }
        let shares = self.shares(set, local);
        let local_hosts = set.localities.first().filter(|_| set.has_own_locality);
        if let Some(own) = local_hosts {
            let (of_proxies, of_hosts) = shares[0];
            let forced = self.force_local.is_some_and(|least| own.healthy.len() >= least as usize);
            if forced || (of_hosts > 0 && of_hosts >= of_proxies) {
                return Ok(ZoneRouting::Direct);
            }
        }
        let kept = match (local_hosts, shares.first()) {
            (Some(_), Some(&(of_proxies, of_hosts))) if of_proxies > 0 => of_hosts * 10_000 / of_proxies,
            _ => 0,
        };
        let mut sum = 0;
        let capacity = shares.iter().enumerate().map(|(at, &(of_proxies, of_hosts))| {
            // What the local zone can take it has got already.
            if at > 0 || local_hosts.is_none() {
                sum += of_hosts.saturating_sub(of_proxies);
            }
            sum
        });
        Ok(ZoneRouting::Residual { capacity: capacity.collect(), local: kept })
    }

    /// For each locality the share of the proxies and of the upstream hosts that it has, in hundredths of a percent.
    fn shares(&self, set: &HostSet, local: &LocalCluster) -> Vec<(u64, u64)> {
        let of_proxies =
            |(_, count, weight): &(Locality, u64, u64)| if self.by_weight { *weight } else { *count };
        let proxies: u64 = local.localities.iter().map(of_proxies).sum();
        let hosts: u64 = set.localities.iter().map(|locality| measure(locality, self.by_weight)).sum();
        let share = |part: u64, whole: u64| (10_000 * part).checked_div(whole).unwrap_or(0);
        let of = |locality: &LocalityHosts| {
            if locality.healthy.is_empty() {
                return (0, 0);
            }
            let here = local.localities.iter().find(|(other, ..)| *other == *locality.locality);
            (share(here.map_or(0, of_proxies), proxies), share(measure(locality, self.by_weight), hosts))
        };
        set.localities.iter().map(of).collect()
    }
}

fn measure(locality: &LocalityHosts, by_weight: bool) -> u64 {
    match by_weight {
        true => locality.healthy.iter().map(|host| u64::from(host.weight())).sum(),
        false => locality.healthy.len() as u64,
    }
}
