//! A worker's choice of a host: the cursors it keeps between requests and the order in which Envoy decides.

use std::sync::Arc;

use dhow_base::Rng;

use super::consistent::TableConfig;
use super::edf::EdfScheduler;
use super::host_sets::{HostSet, Hosts, LocalityHosts, PrioritySet};
use crate::host::Host;

/// `lb_policy` or the first supported entry of `load_balancing_policy`, without the settings shared by all policies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LbPolicy {
    /// Hosts in turn.
    RoundRobin,
    /// The least busy of some hosts.
    LeastRequest {
        /// `choice_count`: hosts that are compared; 2 by default. `u32::MAX` compares all (`FULL_SCAN`).
        choices: u32,
        /// `active_request_bias`; 1.0 by default.
        bias: f64,
    },
    /// Any host.
    Random,
    /// By hash, with tables in the host sets.
    Consistent(TableConfig),
    /// The cluster type decides (`CLUSTER_PROVIDED`).
    ClusterProvided,
}

/// Settings of load balancing that apply to every policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LbConfig {
    /// The policy.
    pub policy: LbPolicy,
    /// `locality_weighted_lb_config`: localities take traffic by their weights.
    pub locality_weighted: bool,
    /// `zone_aware_lb_config.fail_traffic_on_panic`: no host instead of all hosts in panic.
    pub fail_on_panic: bool,
}

/// What a choice says beside the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// All hosts were candidates because too few are healthy: counted as `lb_healthy_panic`.
    pub panicked: bool,
}

/// The cursors of one worker for one cluster. They live as long as the host sets they were made for.
#[derive(Debug)]
pub struct Cursors {
    seed: u64,
    levels: Vec<LevelCursors>,
}

#[derive(Debug)]
struct LevelCursors {
    all: Cursor,
    healthy: Cursor,
    degraded: Cursor,
    localities: Option<LocalityCursors>,
}

#[derive(Debug)]
struct LocalityCursors {
    healthy: EdfScheduler,
    degraded: EdfScheduler,
    healthy_hosts: Vec<Cursor>,
    degraded_hosts: Vec<Cursor>,
}

/// Place in one list of hosts.
#[derive(Debug)]
struct Cursor {
    next: u64,
    /// Present when weights differ.
    weighted: Option<EdfScheduler>,
}

impl Cursors {
    /// Cursors for `hosts`; `seed` sets where rounds begin, so that workers do not move in step.
    pub fn new(config: &LbConfig, hosts: &PrioritySet, seed: u64) -> Self {
        let level = |set: &HostSet| LevelCursors {
            all: Cursor::new(config.policy, &set.all, seed),
            healthy: Cursor::new(config.policy, &set.healthy, seed),
            degraded: Cursor::new(config.policy, &set.degraded, seed),
            localities: config
                .locality_weighted
                .then(|| LocalityCursors::new(config.policy, set, hosts.overprovisioning(), seed))
                .flatten(),
        };
        Self { seed, levels: hosts.levels().iter().map(level).collect() }
    }

    /// The same for changed host sets: rounds go on where they were.
    pub fn renewed(&self, config: &LbConfig, hosts: &PrioritySet) -> Self {
        let mut renewed = Self::new(config, hosts, self.seed);
        for (new, old) in renewed.levels.iter_mut().zip(&self.levels) {
            new.all.next = old.all.next;
            new.healthy.next = old.healthy.next;
            new.degraded.next = old.degraded.next;
        }
        renewed
    }

    /// One choice. `hash` is what the route's hash policy made of the request; `attempt` counts hosts refused before.
    pub fn choose(
        &mut self,
        config: &LbConfig,
        hosts: &PrioritySet,
        rng: &mut Rng,
        hash: Option<u64>,
        attempt: u32,
    ) -> (Option<Arc<Host>>, Outcome) {
        if let LbPolicy::Consistent(_) = config.policy {
            return choose_consistently(hosts, hash.unwrap_or_else(|| rng.next_u64()), attempt);
        }
        let (level, degraded) = hosts.load().choose(rng.next_u64());
        let (Some(set), Some(cursors)) = (hosts.levels().get(level), self.levels.get_mut(level)) else {
            return (None, Outcome::default());
        };
        if hosts.load().panic.get(level).copied().unwrap_or(false) {
            let outcome = Outcome { panicked: true };
            if config.fail_on_panic {
                return (None, outcome);
            }
            return (cursors.all.pick(config.policy, &set.all, rng), outcome);
        }
        if let Some(localities) = &mut cursors.localities
            && let Some(host) =
                localities.pick(config.policy, &set.localities, degraded, hosts.overprovisioning(), rng)
        {
            return (Some(host), Outcome::default());
        }
        let host = if degraded {
            cursors.degraded.pick(config.policy, &set.degraded, rng)
        } else {
            cursors.healthy.pick(config.policy, &set.healthy, rng)
        };
        (host, Outcome::default())
    }
}

fn choose_consistently(hosts: &PrioritySet, hash: u64, attempt: u32) -> (Option<Arc<Host>>, Outcome) {
    let (level, _) = hosts.load().choose(hash);
    let panicked = hosts.load().panic.get(level).copied().unwrap_or(false);
    let table = hosts.levels().get(level).and_then(|set| set.table.as_ref());
    (table.and_then(|table| table.choose(hash, attempt)).cloned(), Outcome { panicked })
}

impl LocalityCursors {
    /// `None` when no locality has a weight that counts, so that all hosts are treated alike.
    fn new(policy: LbPolicy, set: &HostSet, overprovisioning: u32, seed: u64) -> Option<Self> {
        let schedule = |usable: fn(&LocalityHosts) -> &Hosts| {
            EdfScheduler::new(
                set.localities
                    .iter()
                    .map(|locality| locality.effective_weight(usable(locality).len(), overprovisioning)),
            )
        };
        let cursors = |usable: fn(&LocalityHosts) -> &Hosts| {
            set.localities.iter().map(|locality| Cursor::new(policy, usable(locality), seed)).collect()
        };
        let (healthy, degraded) =
            (schedule(|locality| &locality.healthy), schedule(|locality| &locality.degraded));
        (!healthy.is_empty() || !degraded.is_empty()).then(|| Self {
            healthy,
            degraded,
            healthy_hosts: cursors(|locality| &locality.healthy),
            degraded_hosts: cursors(|locality| &locality.degraded),
        })
    }

    fn pick(
        &mut self,
        policy: LbPolicy,
        localities: &[LocalityHosts],
        degraded: bool,
        overprovisioning: u32,
        rng: &mut Rng,
    ) -> Option<Arc<Host>> {
        let (scheduler, cursors, usable): (_, _, fn(&LocalityHosts) -> &Hosts) = if degraded {
            (&mut self.degraded, &mut self.degraded_hosts, |locality| &locality.degraded)
        } else {
            (&mut self.healthy, &mut self.healthy_hosts, |locality| &locality.healthy)
        };
        let weight = |index: usize| {
            let locality: &LocalityHosts = &localities[index];
            locality.effective_weight(usable(locality).len(), overprovisioning)
        };
        let chosen = scheduler.pick(weight)?;
        cursors[chosen].pick(policy, usable(&localities[chosen]), rng)
    }
}

impl Cursor {
    fn new(policy: LbPolicy, hosts: &Hosts, seed: u64) -> Self {
        let weights_differ = hosts.windows(2).any(|pair| pair[0].weight() != pair[1].weight());
        let schedules = matches!(policy, LbPolicy::RoundRobin | LbPolicy::LeastRequest { .. });
        let weighted = (schedules && weights_differ).then(|| {
            let weights: Vec<f64> = hosts.iter().map(|host| policy.weight(host)).collect();
            // A start within the first thousands of picks is as good as any and keeps the deadlines exact.
            EdfScheduler::with_picks(&weights, (seed % 4096) as u32)
        });
        Self { next: seed, weighted }
    }

    fn pick(&mut self, policy: LbPolicy, hosts: &Hosts, rng: &mut Rng) -> Option<Arc<Host>> {
        if hosts.is_empty() {
            return None;
        }
        if let Some(scheduler) = &mut self.weighted {
            return scheduler.pick(|index| policy.weight(&hosts[index])).map(|index| hosts[index].clone());
        }
        let count = hosts.len();
        let chosen = match policy {
            LbPolicy::RoundRobin => {
                let index = (self.next % count as u64) as usize;
                self.next = self.next.wrapping_add(1);
                index
            }
            LbPolicy::LeastRequest { choices, .. } => least_busy(hosts, choices, rng),
            LbPolicy::Random | LbPolicy::Consistent(_) | LbPolicy::ClusterProvided => rng.index(count),
        };
        Some(hosts[chosen].clone())
    }
}

/// The least busy of `choices` hosts drawn at random, the first drawn among equals; `u32::MAX` compares all and draws
/// among equals.
fn least_busy(hosts: &Hosts, choices: u32, rng: &mut Rng) -> usize {
    if choices == u32::MAX {
        let least = hosts.iter().map(|host| host.active_requests()).min().unwrap_or(0);
        let equal: Vec<usize> =
            (0..hosts.len()).filter(|&index| hosts[index].active_requests() <= least).collect();
        return if equal.is_empty() { rng.index(hosts.len()) } else { equal[rng.index(equal.len())] };
    }
    let mut best = rng.index(hosts.len());
    let mut load = hosts[best].active_requests();
    for _ in 1..choices {
        let candidate = rng.index(hosts.len());
        let candidate_load = hosts[candidate].active_requests();
        if candidate_load < load {
            (best, load) = (candidate, candidate_load);
        }
    }
    best
}

impl LbPolicy {
    /// The weight of a host at this moment under weighted scheduling.
    fn weight(self, host: &Host) -> f64 {
        let weight = f64::from(host.weight());
        match self {
            Self::LeastRequest { bias: 1.0, .. } => weight / (host.active_requests() + 1) as f64,
            Self::LeastRequest { bias, .. } if bias > 0.0 => {
                weight / ((host.active_requests() + 1) as f64).powf(bias)
            }
            _ => weight,
        }
    }
}
