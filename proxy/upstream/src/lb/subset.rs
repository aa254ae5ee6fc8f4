//! Subset load balancing: hosts grouped by the values of their metadata, and which group a request's metadata selects.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dhow_matching::{MetadataCriteria, canonical, lookup_key};
use dhow_proto::google::protobuf::{Struct, Value, value::Kind};

use super::host_sets::{HostSetOptions, LocalityGroup, PrioritySet};
use crate::host::Host;
use crate::metadata::LB_FILTER;

/// `lb_subset_config`, or the configuration of the subset policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubsetConfig {
    /// `fallback_policy`.
    pub fallback: SubsetFallback,
    /// `default_subset`.
    pub default_subset: Struct,
    /// `subset_selectors`.
    pub selectors: Vec<SubsetSelector>,
    /// `allow_redundant_keys`: keys of a request that no selector has are left out of the lookup.
    pub allow_redundant_keys: bool,
    /// `locality_weight_aware`.
    pub locality_weight_aware: bool,
    /// `scale_locality_weight`: a locality's weight shrinks with the part of its hosts that is in the subset.
    pub scale_locality_weight: bool,
    /// `panic_mode_any`.
    pub panic_mode_any: bool,
    /// `list_as_any`.
    pub list_as_any: bool,
    /// `metadata_fallback_policy: FALLBACK_LIST`.
    pub fallback_list: bool,
}

/// What serves a request whose subset does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubsetFallback {
    /// `NO_FALLBACK`: nothing.
    #[default]
    None,
    /// `ANY_ENDPOINT`.
    Any,
    /// `DEFAULT_SUBSET`.
    Default,
}

/// One of `subset_selectors`.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetSelector {
    /// `keys`, in order, each once.
    pub keys: Vec<String>,
    /// `single_host_per_subset`: only the first host of each value counts.
    pub single_host: bool,
    /// `fallback_policy` of the selector; `None` leaves it to the cluster's.
    pub fallback: Option<SelectorFallback>,
}

/// What serves a request whose keys are those of a selector when the subset does not exist.
#[derive(Clone, Debug, PartialEq)]
pub enum SelectorFallback {
    /// One of the policies that a cluster can have as well.
    Simple(SubsetFallback),
    /// `KEYS_SUBSET`: look again with these keys only.
    Keys(Vec<String>),
}

/// The subsets of a cluster at one moment.
#[derive(Debug, Default)]
pub struct Subsets {
    by_key: HashMap<Box<[u8]>, Subset>,
    default: Option<Subset>,
    /// Hosts that single-host subsets leave out.
    pub(crate) duplicates: u64,
    next_slot: usize,
}

/// One subset.
#[derive(Debug)]
pub(crate) struct Subset {
    /// Tells the cursors of one subset from those of another, for as long as it exists.
    pub(crate) slot: usize,
    /// Whether `single_host_per_subset` made it.
    pub(crate) is_single: bool,
    pub(crate) hosts: PrioritySet,
}

/// What a lookup came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup<'a> {
    /// A subset.
    Found(&'a Subset),
    /// No subset; the selector with the request's keys says what instead.
    SelectorFallback(SubsetFallback),
    /// No subset; the cluster says what instead.
    Fallback,
}

/// Members of a subset: for each of the cluster's groups that has some, its position and the hosts.
type Members = BTreeMap<usize, Vec<Arc<Host>>>;

impl Subsets {
    /// Groups the hosts. `before` is what there was until now; its slots stay with their subsets.
    pub(crate) fn build(
        config: &SubsetConfig,
        groups: &[LocalityGroup],
        options: &HostSetOptions,
        before: Option<&Self>,
    ) -> Self {
        let mut built =
            Self { next_slot: before.map_or(1, |before| before.next_slot), ..<Self as Default>::default() };
        let options = &HostSetOptions {
            locality_weighted: options.locality_weighted && config.locality_weight_aware,
            ..options.clone()
        };
        let mut members: HashMap<Box<[u8]>, (bool, Members)> = HashMap::new();
        for (at, host) in
            groups.iter().enumerate().flat_map(|(at, group)| group.hosts.iter().map(move |h| (at, h)))
        {
            for selector in &config.selectors {
                for key in keys_of(selector, host, config.list_as_any) {
                    let (is_single, found) = members.entry(key).or_default();
                    *is_single = selector.single_host;
                    if selector.single_host && !found.is_empty() {
                        built.duplicates += 1;
                        continue;
                    }
                    found.entry(at).or_default().push(host.clone());
                }
            }
        }
        for (key, (is_single, members)) in members {
            let slot = before.and_then(|before| before.by_key.get(&key)).map(|subset| subset.slot);
            let slot = slot.unwrap_or_else(|| {
                built.next_slot += 1;
                built.next_slot - 1
            });
            built
                .by_key
                .insert(key, Subset { slot, is_single, hosts: subset_of(config, groups, &members, options) });
        }
        let wants_default = config.fallback == SubsetFallback::Default
            || config
                .selectors
                .iter()
                .any(|selector| selector.fallback == Some(SelectorFallback::Simple(SubsetFallback::Default)));
        if wants_default {
            let mut members = Members::new();
            for (at, group) in groups.iter().enumerate() {
                let matching = group.hosts.iter().filter(|host| config.is_default(host));
                members.insert(at, matching.cloned().collect());
            }
            built.default = Some(Subset {
                slot: 0,
                is_single: false,
                hosts: subset_of(config, groups, &members, options),
            });
        }
        built
    }

    /// How many subsets there are now that `before` did not have, and how many are gone.
    pub(crate) fn changes(&self, before: Option<&Self>) -> (usize, usize) {
        let known = |key: &[u8]| before.is_some_and(|before| before.by_key.contains_key(key));
        let created = self.by_key.keys().filter(|key| !known(key)).count();
        let removed = before
            .map_or(0, |before| before.by_key.keys().filter(|key| !self.by_key.contains_key(*key)).count());
        (created, removed)
    }

    /// The number of subsets.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Every subset, that of `default_subset` included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subset> {
        self.by_key.values().chain(&self.default)
    }

    /// The subset of `default_subset`.
    pub(crate) fn default_subset(&self) -> Option<&Subset> {
        self.default.as_ref()
    }

    /// What serves a request with these criteria.
    pub(crate) fn look_up<'a>(&'a self, config: &SubsetConfig, criteria: &MetadataCriteria) -> Lookup<'a> {
        let reduced = config.without_redundant_keys(criteria);
        let criteria = reduced.as_ref().unwrap_or(criteria);
        if let Some(subset) = self.by_key.get(criteria.lookup_key()) {
            return Lookup::Found(subset);
        }
        let has_keys = |selector: &&SubsetSelector| {
            selector.keys.len() == criteria.keys().len()
                && selector.keys.iter().map(String::as_str).eq(criteria.keys())
        };
        match config.selectors.iter().find(has_keys).and_then(|selector| selector.fallback.as_ref()) {
            None => Lookup::Fallback,
            Some(SelectorFallback::Simple(policy)) => Lookup::SelectorFallback(*policy),
            // The keys are a true part of the selector's, so this ends.
            Some(SelectorFallback::Keys(keys)) => {
                self.look_up(config, &criteria.restricted(|key| keys.iter().any(|kept| kept == key)))
            }
        }
    }
}

impl SubsetConfig {
    /// Whether a host has everything that `default_subset` asks for.
    fn is_default(&self, host: &Host) -> bool {
        let own = host.metadata().endpoint_struct(LB_FILTER);
        self.default_subset.fields.iter().all(|(key, wanted)| {
            let value = own.and_then(|own| own.fields.get(key));
            value == Some(wanted)
                || (self.list_as_any && value.is_some_and(|value| elements(value).contains(&wanted)))
        })
    }

    /// The criteria reduced to the keys of the selector with the most keys that they all have, the first of equals; `None` when
    /// that changes nothing.
    fn without_redundant_keys(&self, criteria: &MetadataCriteria) -> Option<MetadataCriteria> {
        if !self.allow_redundant_keys {
            return None;
        }
        let covered = |selector: &&SubsetSelector| {
            selector.keys.iter().all(|key| criteria.keys().any(|other| other == key))
        };
        let widest =
            self.selectors.iter().filter(covered).rev().max_by_key(|selector| selector.keys.len())?;
        (widest.keys.len() < criteria.keys().len())
            .then(|| criteria.restricted(|key| widest.keys.iter().any(|kept| kept == key)))
    }
}

/// Keys with the encoded value that a host has for each.
type Combination<'a> = Vec<(&'a str, Box<[u8]>)>;

/// The lookup keys under which a selector files a host; several when values are lists that mean any of their elements.
fn keys_of(selector: &SubsetSelector, host: &Host, list_as_any: bool) -> Vec<Box<[u8]>> {
    let Some(own) = host.metadata().endpoint_struct(LB_FILTER) else {
        return Vec::new();
    };
    let mut combinations: Vec<Combination<'_>> = vec![Vec::new()];
    for key in &selector.keys {
        let Some(value) = own.fields.get(key) else {
            return Vec::new();
        };
        let values = if list_as_any { elements(value) } else { vec![value] };
        combinations = combinations
            .iter()
            .flat_map(|chosen| {
                values.iter().map(move |value| {
                    let mut chosen = chosen.clone();
                    chosen.push((key, canonical(value)));
                    chosen
                })
            })
            .collect();
    }
    combinations
        .iter()
        .filter(|pairs| !pairs.is_empty())
        .map(|pairs| lookup_key(pairs.iter().map(|(key, value)| (*key, &**value))))
        .collect()
}

/// The elements of a list, or the value itself.
fn elements(value: &Value) -> Vec<&Value> {
    match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().collect(),
        _ => vec![value],
    }
}

fn subset_of(
    config: &SubsetConfig,
    groups: &[LocalityGroup],
    members: &Members,
    options: &HostSetOptions,
) -> PrioritySet {
    let groups: Vec<LocalityGroup> = members
        .iter()
        .map(|(&at, hosts)| {
            let whole = &groups[at];
            let weight = if config.scale_locality_weight && !whole.hosts.is_empty() {
                let part = hosts.len() as f64 / whole.hosts.len() as f64;
                ((part * f64::from(whole.weight)).round() as u32).max(1)
            } else {
                whole.weight
            };
            LocalityGroup {
                priority: whole.priority,
                locality: whole.locality.clone(),
                weight,
                hosts: hosts.clone(),
            }
        })
        .collect();
    PrioritySet::new(&groups, options)
}
