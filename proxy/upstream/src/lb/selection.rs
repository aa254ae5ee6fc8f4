//! A worker's choice of a host: the cursors it keeps between requests and the order in which Envoy decides.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use dhow_base::Rng;
use dhow_matching::MetadataCriteria;
use dhow_runtime_config::Fraction;

use super::bounded;
use super::edf::EdfScheduler;
use super::foresight::{Foreseen, Turn};
use super::host_sets::{HostSet, Hosts, LocalityHosts, PrioritySet};
use super::policy::{LbConfig, LbPolicy, SlowStart};
use super::previous_priorities::PreviousPriorities;
use super::subset::{Lookup, Subset, SubsetFallback, Subsets};
use super::zone::ZoneRouting;
use crate::host::Host;

/// What a choice takes into account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick<'a> {
    /// What the route's hash policy made of the request.
    pub hash: Option<u64>,
    /// Hosts refused before.
    pub attempt: u32,
    /// `metadata_match` of the route.
    pub criteria: Option<&'a MetadataCriteria>,
    /// The age of hosts is measured to this point, in milliseconds; only read under slow start.
    pub now: u64,
    /// What `upstream.zone_routing.enabled` says in the place of `routing_enabled`.
    pub zone_routing: Option<Fraction>,
    /// The level, and whether its degraded hosts are meant, when that is decided already.
    pub level: Option<(usize, bool)>,
    /// The levels that earlier attempts of the request went to, where retries leave them.
    pub previous: Option<&'a RefCell<PreviousPriorities>>,
}

/// What a choice says beside the host, for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// All hosts were candidates because too few are healthy: counted as `lb_healthy_panic`.
    pub panicked: bool,
    /// What zone-aware routing did.
    pub zone: ZoneEvent,
    /// What subset balancing did.
    pub subset: SubsetEvent,
}

/// What zone-aware routing did with one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZoneEvent {
    /// Nothing.
    #[default]
    None,
    /// `lb_zone_routing_all_directly`.
    Direct,
    /// `lb_zone_routing_sampled`: stayed local.
    Sampled,
    /// `lb_zone_routing_cross_zone`.
    CrossZone,
    /// `lb_zone_routing_cross_zone` and `lb_zone_no_capacity_left`.
    NoCapacity,
    /// `lb_local_cluster_not_ok`.
    LocalClusterNotOk,
}

/// What subset balancing did with one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubsetEvent {
    /// Nothing that is counted.
    #[default]
    None,
    /// `lb_subsets_selected`.
    Selected,
    /// `lb_subsets_fallback`.
    Fallback,
    /// `lb_subsets_fallback_panic`.
    FallbackPanic,
}

/// The cursors of one worker for one cluster. They live as long as the host sets they were made for.
#[derive(Debug)]
pub struct Cursors {
    seed: u64,
    pub(super) levels: Vec<LevelCursors>,
    /// Those of subsets that were used, by slot.
    subsets: HashMap<usize, Cursors>,
    pub(super) foreseen: Foreseen,
}

#[derive(Debug)]
pub(super) struct LevelCursors {
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
    /// Present when weights differ, or hosts may be new.
    weighted: Option<EdfScheduler>,
    /// Until when weights are worth a look although they do not differ: the end of slow start.
    weighted_until: u64,
}

/// What decides among the hosts of one list.
#[derive(Clone, Copy)]
struct Rule<'a> {
    policy: LbPolicy,
    slow_start: Option<&'a SlowStart>,
    now: u64,
}

impl Cursors {
    /// Cursors for `hosts`; `seed` sets where rounds begin, so that workers do not move in step. `now` is as in [`Pick`].
    pub fn new(config: &LbConfig, hosts: &PrioritySet, seed: u64, now: u64) -> Self {
        let rule = Rule::of(config, now);
        let level = |(level, set): (usize, &HostSet)| LevelCursors {
            all: Cursor::new(rule, &set.all, seed),
            healthy: Cursor::new(rule, &set.healthy, seed),
            degraded: Cursor::new(rule, &set.degraded, seed),
            localities: (hosts.is_locality_weighted() || (level == 0 && hosts.zone().is_some()))
                .then(|| LocalityCursors::new(rule, set, hosts.overprovisioning(), seed)),
        };
        let levels = hosts.levels().iter().enumerate().map(level).collect();
        Self { seed, levels, subsets: HashMap::new(), foreseen: Foreseen::default() }
    }

    /// The same for changed host sets: rounds go on where they were.
    pub fn renewed(&mut self, config: &LbConfig, hosts: &PrioritySet, now: u64) -> Self {
        let mut renewed = Self::new(config, hosts, self.seed, now);
        for (new, old) in renewed.levels.iter_mut().zip(&self.levels) {
            new.all.next = old.all.next;
            new.healthy.next = old.healthy.next;
            new.degraded.next = old.degraded.next;
        }
        if let Some(subsets) = &hosts.subsets {
            for subset in subsets.iter() {
                if let Some(mut old) = self.subsets.remove(&subset.slot) {
                    renewed.subsets.insert(subset.slot, old.renewed(config, &subset.hosts, now));
                }
            }
        }
        renewed
    }

    /// One choice.
    pub fn choose(
        &mut self,
        config: &LbConfig,
        hosts: &PrioritySet,
        rng: &mut Rng,
        pick: Pick<'_>,
    ) -> (Option<Arc<Host>>, Outcome) {
        match &hosts.subsets {
            None => self.choose_plainly(config, hosts, rng, pick),
            Some(subsets) => self.choose_by_subset(config, hosts, subsets, rng, pick),
        }
    }

    fn choose_by_subset(
        &mut self,
        config: &LbConfig,
        hosts: &PrioritySet,
        subsets: &Subsets,
        rng: &mut Rng,
        pick: Pick<'_>,
    ) -> (Option<Arc<Host>>, Outcome) {
        let Some(own) = config.subset.as_deref() else {
            return self.choose_plainly(config, hosts, rng, pick);
        };
        let alternatives =
            pick.criteria.and_then(MetadataCriteria::alternatives).filter(|_| own.fallback_list);
        let Some(alternatives) = alternatives else {
            return self.choose_once(config, hosts, subsets, rng, pick);
        };
        let mut last = (None, Outcome::default());
        for criteria in alternatives {
            last = self.choose_once(config, hosts, subsets, rng, Pick { criteria: Some(criteria), ..pick });
            if last.0.is_some() {
                break;
            }
        }
        last
    }

    fn choose_once(
        &mut self,
        config: &LbConfig,
        hosts: &PrioritySet,
        subsets: &Subsets,
        rng: &mut Rng,
        pick: Pick<'_>,
    ) -> (Option<Arc<Host>>, Outcome) {
        let Some(own) = config.subset.as_deref() else {
            return (None, Outcome::default());
        };
        match pick.criteria.map_or(Lookup::Fallback, |criteria| subsets.look_up(own, criteria)) {
            Lookup::Found(Subset { hosts, is_single: true, .. }) => {
                // There is no choice, and so nobody asks for its health.
                let outcome = Outcome { subset: SubsetEvent::Selected, ..Outcome::default() };
                return (hosts.hosts().next().cloned(), outcome);
            }
            Lookup::Found(subset) => {
                let (host, outcome) = self.choose_in_subset(config, subset, rng, pick);
                return (host, Outcome { subset: SubsetEvent::Selected, ..outcome });
            }
            Lookup::SelectorFallback(policy) => {
                return self.fall_back(config, hosts, subsets, policy, rng, pick);
            }
            Lookup::Fallback if own.fallback == SubsetFallback::None => return (None, Outcome::default()),
            Lookup::Fallback => {}
        }
        let (host, outcome) = self.fall_back(config, hosts, subsets, own.fallback, rng, pick);
        if host.is_some() {
            return (host, Outcome { subset: SubsetEvent::Fallback, ..outcome });
        }
        if !own.panic_mode_any {
            return (host, outcome);
        }
        let (host, outcome) = self.choose_plainly(config, hosts, rng, pick);
        let subset = if host.is_some() { SubsetEvent::FallbackPanic } else { SubsetEvent::None };
        (host, Outcome { subset, ..outcome })
    }

    fn fall_back(
        &mut self,
        config: &LbConfig,
        hosts: &PrioritySet,
        subsets: &Subsets,
        policy: SubsetFallback,
        rng: &mut Rng,
        pick: Pick<'_>,
    ) -> (Option<Arc<Host>>, Outcome) {
        match (policy, subsets.default_subset()) {
            (SubsetFallback::Any, _) => self.choose_plainly(config, hosts, rng, pick),
            (SubsetFallback::Default, Some(subset)) => self.choose_in_subset(config, subset, rng, pick),
            (SubsetFallback::None | SubsetFallback::Default, _) => (None, Outcome::default()),
        }
    }

    fn choose_in_subset(
        &mut self,
        config: &LbConfig,
        subset: &Subset,
        rng: &mut Rng,
        pick: Pick<'_>,
    ) -> (Option<Arc<Host>>, Outcome) {
        let seed = self.seed;
        let cursors = self
            .subsets
            .entry(subset.slot)
            .or_insert_with(|| Self::new(config, &subset.hosts, seed, pick.now));
        cursors.choose_plainly(config, &subset.hosts, rng, pick)
    }

    fn choose_plainly(
        &mut self,
        config: &LbConfig,
        hosts: &PrioritySet,
        rng: &mut Rng,
        pick: Pick<'_>,
    ) -> (Option<Arc<Host>>, Outcome) {
        if let LbPolicy::Consistent(_) = config.policy {
            let hash = pick.hash.unwrap_or_else(|| rng.next_u64());
            return choose_consistently(config, hosts, hash, pick);
        }
        let turn = self.foreseen.now(rng);
        choose_by_turn(&mut self.levels, config, hosts, rng, pick, turn)
    }
}

/// A choice by the levels' cursors, made or foreseen.
pub(super) fn choose_by_turn(
    levels: &mut [LevelCursors],
    config: &LbConfig,
    hosts: &PrioritySet,
    rng: &mut Rng,
    pick: Pick<'_>,
    mut turn: Turn<'_>,
) -> (Option<Arc<Host>>, Outcome) {
    let rule = Rule::of(config, pick.now);
    let (level, degraded) = pick.level.unwrap_or_else(|| hosts.choose_level(pick.previous, turn.draw));
    let (Some(set), Some(cursors)) = (hosts.levels().get(level), levels.get_mut(level)) else {
        return (None, Outcome::default());
    };
    let mut outcome = Outcome::default();
    if hosts.load().panic.get(level).copied().unwrap_or(false) {
        outcome.panicked = true;
        if config.fails_on_panic() {
            return (None, outcome);
        }
        return (cursors.all.pick(rule, &set.all, rng, &mut turn), outcome);
    }
    if let Some(localities) = &mut cursors.localities {
        let chosen = if hosts.is_locality_weighted() {
            localities.weighted(&set.localities, degraded, hosts.overprovisioning())
        } else {
            match choose_zone(config, hosts, set, rng, pick.zone_routing) {
                Ok((chosen, event)) => {
                    outcome.zone = event;
                    chosen
                }
                Err(event) => return (None, Outcome { zone: event, ..outcome }),
            }
        };
        if let Some(chosen) = chosen {
            let cursor = localities.cursor(chosen, degraded);
            let locality = &set.localities[chosen];
            let usable = if degraded { &locality.degraded } else { &locality.healthy };
            return (cursor.pick(rule, usable, rng, &mut turn), outcome);
        }
    }
    let host = if degraded {
        cursors.degraded.pick(rule, &set.degraded, rng, &mut turn)
    } else {
        cursors.healthy.pick(rule, &set.healthy, rng, &mut turn)
    };
    (host, outcome)
}

/// The locality that zone-aware routing sends a request to, `None` for all of them; an error leaves it without a host.
fn choose_zone(
    config: &LbConfig,
    hosts: &PrioritySet,
    set: &HostSet,
    rng: &mut Rng,
    by_runtime: Option<Fraction>,
) -> Result<(Option<usize>, ZoneEvent), ZoneEvent> {
    let Some((routing, enabled, local_panics)) = hosts.zone() else {
        return Ok((None, ZoneEvent::None));
    };
    let takes_part = match by_runtime {
        Some(fraction) => fraction.contains(rng.next_u64()),
        None => enabled >= 100 || rng.below(100) < u64::from(enabled),
    };
    if !takes_part {
        return Ok((None, ZoneEvent::None));
    }
    if local_panics {
        return match config.fails_on_panic() {
            true => Err(ZoneEvent::LocalClusterNotOk),
            false => Ok((None, ZoneEvent::LocalClusterNotOk)),
        };
    }
    let (local, capacity) = match routing {
        ZoneRouting::Direct => return Ok((Some(0), ZoneEvent::Direct)),
        ZoneRouting::Residual { local, capacity } => (*local, capacity),
    };
    if rng.below(10_000) < local {
        return Ok((Some(0), ZoneEvent::Sampled));
    }
    let total = capacity.last().copied().unwrap_or(0);
    if total == 0 {
        return Ok((Some(rng.index(set.localities.len())), ZoneEvent::NoCapacity));
    }
    let threshold = rng.below(total);
    let chosen = capacity.iter().position(|&reached| threshold < reached).unwrap_or(0);
    Ok((Some(chosen), ZoneEvent::CrossZone))
}

fn choose_consistently(
    config: &LbConfig,
    hosts: &PrioritySet,
    hash: u64,
    pick: Pick<'_>,
) -> (Option<Arc<Host>>, Outcome) {
    let attempt = pick.attempt;
    let (level, _) = pick.level.unwrap_or_else(|| hosts.choose_level(pick.previous, hash));
    let panicked = hosts.load().panic.get(level).copied().unwrap_or(false);
    let table = hosts.levels().get(level).and_then(|set| set.table.as_deref());
    let host = table.and_then(|table| {
        let index = match config.hash_balance_factor {
            Some(factor) => bounded::choose(table, factor, hash, attempt),
            None => table.index(hash, attempt),
        };
        table.hosts().get(index?).cloned()
    });
    (host, Outcome { panicked, ..Outcome::default() })
}

impl LocalityCursors {
    fn new(rule: Rule<'_>, set: &HostSet, overprovisioning: u32, seed: u64) -> Self {
        let schedule = |usable: fn(&LocalityHosts) -> &Hosts| {
            EdfScheduler::new(
                set.localities
                    .iter()
                    .map(|locality| locality.effective_weight(usable(locality).len(), overprovisioning)),
            )
        };
        let cursors = |usable: fn(&LocalityHosts) -> &Hosts| {
            set.localities.iter().map(|locality| Cursor::new(rule, usable(locality), seed)).collect()
        };
        Self {
            healthy: schedule(|locality| &locality.healthy),
            degraded: schedule(|locality| &locality.degraded),
            healthy_hosts: cursors(|locality| &locality.healthy),
            degraded_hosts: cursors(|locality| &locality.degraded),
        }
    }

    /// The next locality by weight; `None` when no locality has a weight that counts.
    fn weighted(
        &mut self,
        localities: &[LocalityHosts],
        degraded: bool,
        overprovisioning: u32,
    ) -> Option<usize> {
        let scheduler = if degraded { &mut self.degraded } else { &mut self.healthy };
        scheduler.pick(|index| {
            let locality = &localities[index];
            let usable = if degraded { &locality.degraded } else { &locality.healthy };
            locality.effective_weight(usable.len(), overprovisioning)
        })
    }

    /// The place among the hosts of a locality.
    fn cursor(&mut self, at: usize, degraded: bool) -> &mut Cursor {
        match degraded {
            true => &mut self.degraded_hosts[at],
            false => &mut self.healthy_hosts[at],
        }
    }
}

impl Cursor {
    fn new(rule: Rule<'_>, hosts: &Hosts, seed: u64) -> Self {
        let weights_differ = hosts.windows(2).any(|pair| pair[0].weight() != pair[1].weight());
        let schedules = matches!(rule.policy, LbPolicy::RoundRobin | LbPolicy::LeastRequest { .. });
        let slow_until = |slow: &SlowStart| {
            let youngest = hosts.iter().map(|host| host.slow_start_from()).max().unwrap_or(0);
            youngest + slow.window.as_millis() as u64
        };
        let weighted_until = if weights_differ { u64::MAX } else { rule.slow_start.map_or(0, slow_until) };
        let weighted = (schedules && weighted_until > 0 && hosts.len() > 1).then(|| {
            let weights: Vec<f64> = hosts.iter().map(|host| rule.weight(host)).collect();
            // A start within the first thousands of picks is as good as any and keeps the deadlines exact.
            EdfScheduler::with_picks(&weights, (seed % 4096) as u32)
        });
        Self { next: seed, weighted, weighted_until }
    }

    fn pick(
        &mut self,
        rule: Rule<'_>,
        hosts: &Hosts,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) -> Option<Arc<Host>> {
        if hosts.is_empty() {
            return None;
        }
        if let Some(scheduler) = &mut self.weighted {
            if self.weighted_until > rule.now {
                let weight = |index: usize| rule.weight(&hosts[index]);
                let index = if turn.peeks { scheduler.peek(weight) } else { scheduler.pick(weight) };
                return index.map(|index| hosts[index].clone());
            }
            self.weighted = None;
        }
        let count = hosts.len();
        let chosen = match rule.policy {
            LbPolicy::RoundRobin => (turn.place(&mut self.next) % count as u64) as usize,
            // Who will be the least busy is not known before.
            LbPolicy::LeastRequest { .. } if turn.peeks => return None,
            LbPolicy::LeastRequest { choices, .. } => least_busy(hosts, choices, rng),
            // The number that chose the level, as in Envoy.
            LbPolicy::Random | LbPolicy::Consistent(_) | LbPolicy::ClusterProvided => {
                (turn.draw % count as u64) as usize
            }
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

impl<'a> Rule<'a> {
    fn of(config: &'a LbConfig, now: u64) -> Self {
        Self { policy: config.policy, slow_start: config.slow_start.as_ref(), now }
    }

    /// The weight of a host at this moment under weighted scheduling.
    fn weight(self, host: &Host) -> f64 {
        let weight = f64::from(host.weight());
        let weight = match self.policy {
            LbPolicy::LeastRequest { bias: 1.0, .. } => weight / (host.active_requests() + 1) as f64,
            LbPolicy::LeastRequest { bias, .. } if bias > 0.0 => {
                weight / ((host.active_requests() + 1) as f64).powf(bias)
            }
            _ => weight,
        };
        match self.slow_start {
            Some(slow) => weight * slow.factor(self.now.saturating_sub(host.slow_start_from())),
            None => weight,
        }
    }
}
