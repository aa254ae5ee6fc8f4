//! The store: all live scopes, and what their stats add up to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::bins::Bins;
use crate::handle::signed_floor;
use crate::page::{Query, StatType};
use crate::scope::{Entries, Scope, ScopeInner, Singles, join, sanitize};
use crate::tags::{TagRules, Tagged};
use crate::{Unit, shard};

/// All stats of a process; clones are the same store.
#[derive(Clone, Default)]
pub struct Store {
    inner: Arc<StoreInner>,
}

type NameFilter = Box<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
pub(crate) struct StoreInner {
    scopes: Mutex<HashMap<Arc<str>, Weak<ScopeInner>>>,
    merged: Mutex<HashMap<u32, Merged>>,
    settings: RwLock<Settings>,
    /// Stores whose stats are shown with these, each with rules of its own about which names exist.
    narrowed: Mutex<Vec<Weak<StoreInner>>>,
}

#[derive(Default)]
struct Settings {
    tags: TagRules,
    /// `stats_config.stats_matcher`: names that it refuses do not exist.
    accepts: Option<NameFilter>,
    /// The same by scope, for the scope and those below it instead.
    accepts_below: HashMap<Box<str>, NameFilter>,
    /// `stats_config.histogram_bucket_settings`, first match wins.
    buckets: Vec<(NameFilter, Vec<f64>)>,
}

impl Settings {
    /// Whether the stat of this name in the scope of this prefix exists.
    fn accepts(&self, prefix: &str, name: &str) -> bool {
        let is_above = |scope: &str| {
            prefix.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let below = self.accepts_below.iter().find(|(scope, _)| is_above(scope)).map(|(_, accepts)| accepts);
        below.or(self.accepts.as_ref()).is_none_or(|accepts| accepts(name))
    }
}

/// A histogram's state at the last merge.
#[derive(Default)]
struct Merged {
    /// What the id had counted when it was given to its present name.
    before: Bins,
    total: Bins,
    interval: Bins,
}

/// One histogram as it was when histograms were last merged.
#[derive(Clone, Debug, Default)]
pub struct HistogramValue {
    /// Recorded between the last two merges.
    pub interval: Bins,
    /// Recorded since the histogram exists.
    pub cumulative: Bins,
    /// Unit of the numbers.
    pub unit: Option<Unit>,
}

/// The value of a stat.
#[derive(Clone, Debug)]
pub enum SnapshotValue {
    /// A counter's sum.
    Counter(u64),
    /// A gauge's sum.
    Gauge(u64),
    /// A histogram, with its bins.
    Histogram(HistogramValue),
    /// A text.
    Text(String),
}

/// Stats with their values, ordered by name; a name occurs once per kind of stat.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Full name and value.
    pub stats: Vec<(String, SnapshotValue)>,
    /// Those that are not in the store, in the order in which they are shown: behind all others but histograms.
    pub unstored: Vec<UnstoredStat>,
}

/// A stat that is counted elsewhere and read when somebody asks.
#[derive(Clone, Debug)]
pub struct UnstoredStat {
    /// Full name.
    pub name: String,
    /// The name and the tags to show instead; no tags are extracted from the full name.
    pub tagged: Tagged,
    /// A counter or a gauge.
    pub value: SnapshotValue,
}

impl Snapshot {
    /// Adds those of `stats` that a query wants. It makes no difference to them whether they were ever used, as in Envoy.
    pub fn add_unstored(&mut self, query: &Query, stats: impl IntoIterator<Item = UnstoredStat>) {
        self.unstored.extend(stats.into_iter().filter(|stat| {
            let kind = match stat.value {
                SnapshotValue::Gauge(_) => StatType::Gauges,
                _ => StatType::Counters,
            };
            query.wants(kind) && query.wants_name(&stat.name)
        }));
    }

    /// All stats in the order in which counters and gauges are shown.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (&str, &SnapshotValue)> {
        let stored = self.stats.iter().map(|(name, value)| (name.as_str(), value));
        stored.chain(self.unstored.iter().map(|stat| (stat.name.as_str(), &stat.value)))
    }
}

impl Store {
    /// An empty store with Envoy's default tags.
    pub fn new() -> Self {
        Self::default()
    }

    /// The scope of a prefix, with or without a dot at its end; empty for the root. While it is alive, the same prefix gives the same scope.
    pub fn scope(&self, prefix: &str) -> Scope {
        self.inner.scope(prefix)
    }

    /// The scope of exactly this prefix, without a dot at its end: the colons of a name that users chose stay.
    pub fn scope_verbatim(&self, prefix: &str) -> Scope {
        self.inner.scope_verbatim(prefix)
    }

    /// Replaces the tag rules (`stats_config.stats_tags`, `use_all_default_tags`).
    pub fn set_tag_rules(&self, tags: TagRules) {
        self.inner.settings.write().tags = tags;
    }

    /// Runs `read` with the tag rules.
    pub fn with_tag_rules<T>(&self, read: impl FnOnce(&TagRules) -> T) -> T {
        read(&self.inner.settings.read().tags)
    }

    /// Sets which full names exist (`stats_config.stats_matcher`).
    pub fn set_matcher(&self, accepts: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.inner.settings.write().accepts = Some(Box::new(accepts));
    }

    /// Sets which full names exist in a scope and those below it, whatever is said of all (`stats_matcher` of a cluster); none
    /// leaves it at that.
    pub fn set_matcher_below<F>(&self, prefix: &str, accepts: Option<F>)
    where
        F: Fn(&str) -> bool + Send + Sync + 'static,
    {
        let prefix = sanitize(Cow::Owned(prefix.to_owned()));
        let below = &mut self.inner.settings.write().accepts_below;
        match accepts {
            Some(accepts) => _ = below.insert(prefix.into_owned().into(), Box::new(accepts)),
            None => _ = below.remove(&*prefix),
        }
    }

    /// A store whose stats are shown with those of this one, as far as `accepts` takes their full names and whatever is said of
    /// all (`stats_matcher` of a listener). They go when the last clone and the last of its scopes do.
    pub fn narrowed(&self, accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let narrowed = Self::new();
        narrowed.set_matcher(accepts);
        let mut all = self.inner.narrowed.lock();
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&narrowed.inner));
        narrowed
    }

    /// This store's state and that of those which are shown with it.
    fn stores(&self) -> Vec<Arc<StoreInner>> {
        let narrowed = self.inner.narrowed.lock();
        std::iter::once(self.inner.clone()).chain(narrowed.iter().filter_map(Weak::upgrade)).collect()
    }

    /// Adds bucket bounds (ascending, in the histogram's unit) for the histograms whose full names match; the first that matches counts.
    pub fn add_histogram_buckets(
        &self,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
        bounds: Vec<f64>,
    ) {
        self.inner.settings.write().buckets.push((Box::new(matches), bounds));
    }

    /// The bucket bounds of a histogram when they are not the default ones.
    pub fn histogram_buckets(&self, name: &str) -> Option<Vec<f64>> {
        let settings = self.inner.settings.read();
        settings.buckets.iter().find(|(matches, _)| matches(name)).map(|(_, bounds)| bounds.clone())
    }

    /// Closes the interval of all histograms: what was recorded since the last call becomes the interval that is printed. Called at every stats flush.
    pub fn merge_histograms(&self) {
        for store in self.stores() {
            store.merge_histograms();
        }
    }

    /// Sets all counters to zero (`/reset_counters`).
    pub fn reset_counters(&self) {
        for scope in self.stores().iter().flat_map(|store| store.live()) {
            let entries = scope.inner.entries.lock();
            for &(_, slot) in entries.singles().into_iter().flat_map(|singles| &singles.counters) {
                shard::reset(slot);
            }
            for group in &entries.groups {
                for at in 0..group.shape.counters.len() as u32 {
                    shard::reset(group.slots + at);
                }
            }
        }
    }

    /// The stats that a query wants, ordered by name.
    pub fn snapshot(&self, query: &Query) -> Snapshot {
        let mut stats = Vec::new();
        for store in self.stores() {
            let mut reader = Reader { inner: &store, query, stats, sums: Vec::new() };
            for scope in store.live() {
                reader.read(&scope);
            }
            stats = reader.stats;
        }
        stats.sort_by(|(a, x), (b, y)| a.cmp(b).then(kind(x).cmp(&kind(y))));
        stats.dedup_by(|(later, value), (name, sum)| later == name && add_same_kind(sum, value));
        Snapshot { stats, unstored: Vec::new() }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("scopes", &self.inner.scopes.lock().len()).finish_non_exhaustive()
    }
}

impl StoreInner {
    pub(crate) fn scope(self: &Arc<Self>, prefix: &str) -> Scope {
        self.scope_verbatim(&sanitize(Cow::Borrowed(prefix)))
    }

    pub(crate) fn scope_verbatim(self: &Arc<Self>, prefix: &str) -> Scope {
        let mut scopes = self.scopes.lock();
        if let Some(inner) = scopes.get(prefix).and_then(Weak::upgrade) {
            return Scope { inner };
        }
        let prefix: Arc<str> = prefix.into();
        let scope = Scope::new(prefix.clone(), Arc::downgrade(self));
        scopes.insert(prefix, Arc::downgrade(&scope.inner));
        scope
    }

    /// Drops what is kept of a scope that ended: the state of its histograms, and its entry, unless a new scope has taken the prefix.
    pub(crate) fn scope_ended(&self, prefix: &str, histograms: impl Iterator<Item = (u32, usize)>) {
        let mut merged = self.merged.lock();
        for (first, count) in histograms {
            for id in first..first + count as u32 {
                merged.remove(&id);
            }
        }
        drop(merged);
        let mut scopes = self.scopes.lock();
        if scopes.get(prefix).is_some_and(|scope| scope.strong_count() == 0) {
            scopes.remove(prefix);
        }
    }

    /// Makes newly assigned histogram ids start empty.
    pub(crate) fn forget_histograms(&self, first: u32, count: usize) {
        for id in first..first + count as u32 {
            let before = shard::sum_bins(id);
            let mut merged = self.merged.lock();
            if before.is_empty() {
                merged.remove(&id);
            } else {
                merged.insert(id, Merged { before, ..Merged::default() });
            }
        }
    }

    fn merge_histograms(&self) {
        for scope in self.live() {
            let ids = histogram_ids(&scope.inner.entries.lock());
            for id in ids {
                let sum = shard::sum_bins(id);
                let mut merged = self.merged.lock();
                if sum.is_empty() && !merged.contains_key(&id) {
                    continue;
                }
                let merged = merged.entry(id).or_default();
                let total = sum.since(&merged.before);
                merged.interval = total.since(&merged.total);
                merged.total = total;
            }
        }
    }

    fn live(&self) -> Vec<Scope> {
        let scopes = self.scopes.lock();
        scopes.values().filter_map(|scope| scope.upgrade().map(|inner| Scope { inner })).collect()
    }
}

fn histogram_ids(entries: &Entries) -> Vec<u32> {
    let all = entries.histogram_runs().flat_map(|(first, count)| first..first + count as u32);
    all.filter(|&id| id != shard::NO_SLOT).collect()
}

fn kind(value: &SnapshotValue) -> u8 {
    match value {
        SnapshotValue::Counter(_) => 0,
        SnapshotValue::Gauge(_) => 1,
        SnapshotValue::Text(_) => 2,
        SnapshotValue::Histogram(_) => 3,
    }
}

/// Two scopes may spell the same full name; they are one stat to a reader.
fn add_same_kind(sum: &mut SnapshotValue, other: &SnapshotValue) -> bool {
    match (sum, other) {
        (SnapshotValue::Counter(a), SnapshotValue::Counter(b)) => *a += b,
        (SnapshotValue::Gauge(a), SnapshotValue::Gauge(b)) => *a += b,
        (SnapshotValue::Histogram(a), SnapshotValue::Histogram(b)) => {
            a.interval.merge(&b.interval);
            a.cumulative.merge(&b.cumulative);
        }
        (SnapshotValue::Text(_), SnapshotValue::Text(_)) => {}
        _ => return false,
    }
    true
}

struct Reader<'a> {
    inner: &'a StoreInner,
    query: &'a Query,
    stats: Vec<(String, SnapshotValue)>,
    sums: Vec<(u64, bool)>,
}

impl Reader<'_> {
    fn read(&mut self, scope: &Scope) {
        let entries = scope.inner.entries.lock();
        let prefix = &*scope.inner.prefix;
        for group in &entries.groups {
            self.sums.clear();
            shard::sum_run(group.slots, group.shape.slots(), &mut self.sums);
            let sums = std::mem::take(&mut self.sums);
            let (counters, gauges) = sums.split_at(group.shape.counters.len());
            for (name, &(sum, used)) in group.shape.counters.iter().zip(counters) {
                self.push(StatType::Counters, prefix, name, used, || SnapshotValue::Counter(sum));
            }
            for (name, &(sum, used)) in group.shape.gauges.iter().zip(gauges) {
                self.push(StatType::Gauges, prefix, name, used, || SnapshotValue::Gauge(signed_floor(sum)));
            }
            self.sums = sums;
            for (at, (name, unit)) in group.shape.histograms.iter().enumerate() {
                self.histogram(prefix, name, *unit, group.histograms + at as u32);
            }
        }
        if let Some(singles) = entries.singles() {
            self.read_singles(prefix, singles);
        }
    }

    fn read_singles(&mut self, prefix: &str, entries: &Singles) {
        for (name, slot) in &entries.counters {
            let (sum, used) = self.one(*slot);
            self.push(StatType::Counters, prefix, name, used, || SnapshotValue::Counter(sum));
        }
        for (name, slot) in &entries.gauges {
            let (sum, used) = self.one(*slot);
            self.push(StatType::Gauges, prefix, name, used, || SnapshotValue::Gauge(signed_floor(sum)));
        }
        for (name, unit, id) in &entries.histograms {
            self.histogram(prefix, name, *unit, *id);
        }
        for (name, text) in &entries.texts {
            let text = text.value();
            self.push(StatType::TextReadouts, prefix, name, !text.is_empty(), || SnapshotValue::Text(text));
        }
    }

    fn one(&mut self, slot: u32) -> (u64, bool) {
        self.sums.clear();
        shard::sum_run(slot, 1, &mut self.sums);
        self.sums[0]
    }

    fn histogram(&mut self, prefix: &str, name: &str, unit: Unit, id: u32) {
        let (used, value) = match self.inner.merged.lock().get(&id) {
            Some(merged) => (
                !merged.total.is_empty(),
                HistogramValue {
                    interval: merged.interval.clone(),
                    cumulative: merged.total.clone(),
                    unit: Some(unit),
                },
            ),
            None => (false, HistogramValue { unit: Some(unit), ..HistogramValue::default() }),
        };
        self.push(StatType::Histograms, prefix, name, used, || SnapshotValue::Histogram(value));
    }

    fn push(
        &mut self,
        kind: StatType,
        prefix: &str,
        name: &str,
        used: bool,
        value: impl FnOnce() -> SnapshotValue,
    ) {
        if !self.query.wants(kind) || (self.query.used_only && !used) {
            return;
        }
        let name = join(prefix, name);
        let settings = self.inner.settings.read();
        if self.query.wants_name(&name) && settings.accepts(prefix, &name) {
            self.stats.push((name, value()));
        }
    }
}
