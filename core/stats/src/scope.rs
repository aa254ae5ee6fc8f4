//! Scopes: a name prefix and the stats under it, alive for as long as somebody holds a clone.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::group::{GroupShape, StatGroup};
use crate::handle::{Counter, Gauge, Histogram, TextReadout};
use crate::response_codes::ResponseCodeStats;
use crate::store::StoreInner;
use crate::{Unit, shard};

/// The part of a stat's name after its scope; a literal costs nothing to keep.
pub type StatName = Cow<'static, str>;

/// A name prefix under which stats are registered. Clones are the same scope; the stats go when the last one does.
#[derive(Clone)]
pub struct Scope {
    pub(crate) inner: Arc<ScopeInner>,
}

pub(crate) struct ScopeInner {
    /// Without the dot at its end; empty for the root.
    pub(crate) prefix: Arc<str>,
    pub(crate) store: Weak<StoreInner>,
    pub(crate) entries: Mutex<Entries>,
}

#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) groups: Vec<GroupEntry>,
    /// Most scopes have groups only.
    singles: Option<Box<Singles>>,
}

/// Stats that were registered one by one.
#[derive(Default)]
pub(crate) struct Singles {
    pub(crate) counters: Vec<(StatName, u32)>,
    pub(crate) gauges: Vec<(StatName, u32)>,
    pub(crate) histograms: Vec<(StatName, Unit, u32)>,
    pub(crate) texts: Vec<(StatName, TextReadout)>,
}

pub(crate) struct GroupEntry {
    pub(crate) shape: &'static GroupShape,
    pub(crate) slots: u32,
    pub(crate) histograms: u32,
}

impl Entries {
    /// What was registered one by one, if anything was.
    pub(crate) fn singles(&self) -> Option<&Singles> {
        self.singles.as_deref()
    }

    fn singles_mut(&mut self) -> &mut Singles {
        self.singles.get_or_insert_default()
    }

    /// First id and number of all runs of histograms.
    pub(crate) fn histogram_runs(&self) -> impl Iterator<Item = (u32, usize)> {
        let grouped = self.groups.iter().map(|group| (group.histograms, group.shape.histograms.len()));
        let singles = self.singles().into_iter().flat_map(|singles| &singles.histograms);
        grouped.chain(singles.map(|&(_, _, id)| (id, 1)))
    }

    /// First slot and number of all runs of slots.
    fn slot_runs(&self) -> impl Iterator<Item = (u32, usize)> {
        let grouped = self.groups.iter().map(|group| (group.slots, group.shape.slots()));
        let singles = self.singles().into_iter();
        let singles = singles.flat_map(|singles| singles.counters.iter().chain(&singles.gauges));
        grouped.chain(singles.map(|&(_, slot)| (slot, 1)))
    }
}

fn slot_named(stats: &mut Vec<(StatName, u32)>, name: StatName) -> u32 {
    if let Some((_, slot)) = stats.iter().find(|(known, _)| *known == name) {
        return *slot;
    }
    let slot = shard::take_slots(1);
    stats.push((name, slot));
    slot
}

impl Scope {
    pub(crate) fn new(prefix: Arc<str>, store: Weak<StoreInner>) -> Self {
        Self { inner: Arc::new(ScopeInner { prefix, store, entries: Mutex::default() }) }
    }

    /// The prefix, without a dot at its end.
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// The scope `<this prefix>.<name>`; two calls with the same name give the same scope while it is alive.
    pub fn scope(&self, name: &str) -> Self {
        let prefix = join(&self.inner.prefix, name);
        match self.inner.store.upgrade() {
            Some(store) => store.scope(&prefix),
            None => Self::new(prefix.into(), Weak::new()),
        }
    }

    /// The counter of this name; the same name gives the same counter.
    pub fn counter(&self, name: impl Into<StatName>) -> Counter {
        Counter {
            slot: slot_named(&mut self.inner.entries.lock().singles_mut().counters, sanitize(name.into())),
        }
    }

    /// The counter of exactly this name: the colons of a name that users chose stay.
    pub fn counter_verbatim(&self, name: impl Into<StatName>) -> Counter {
        Counter { slot: slot_named(&mut self.inner.entries.lock().singles_mut().counters, name.into()) }
    }

    /// The gauge of this name.
    pub fn gauge(&self, name: impl Into<StatName>) -> Gauge {
        Gauge { slot: slot_named(&mut self.inner.entries.lock().singles_mut().gauges, sanitize(name.into())) }
    }

    /// The scope below this one of exactly this name, without a dot at its end.
    pub fn scope_verbatim(&self, name: &str) -> Self {
        let prefix = join(&self.inner.prefix, name);
        match self.inner.store.upgrade() {
            Some(store) => store.scope_verbatim(&prefix),
            None => Self::new(prefix.into(), Weak::new()),
        }
    }

    /// The gauge of exactly this name: the colons of a name that users chose stay.
    pub fn gauge_verbatim(&self, name: impl Into<StatName>) -> Gauge {
        Gauge { slot: slot_named(&mut self.inner.entries.lock().singles_mut().gauges, name.into()) }
    }

    /// The histogram of this name; the unit of the first registration stays.
    pub fn histogram(&self, name: impl Into<StatName>, unit: Unit) -> Histogram {
        self.histogram_verbatim(sanitize(name.into()), unit)
    }

    /// The histogram of exactly this name: the colons of a name that users chose stay.
    pub fn histogram_verbatim(&self, name: impl Into<StatName>, unit: Unit) -> Histogram {
        let name = name.into();
        let mut entries = self.inner.entries.lock();
        let entries = entries.singles_mut();
        if let Some(&(_, _, id)) = entries.histograms.iter().find(|(known, ..)| *known == name) {
            return Histogram { id };
        }
        let id = shard::take_histograms(1);
        self.forget_histograms(id, 1);
        entries.histograms.push((name, unit, id));
        Histogram { id }
    }

    /// The text readout of this name.
    pub fn text_readout(&self, name: impl Into<StatName>) -> TextReadout {
        let name = sanitize(name.into());
        let mut entries = self.inner.entries.lock();
        let entries = entries.singles_mut();
        if let Some((_, text)) = entries.texts.iter().find(|(known, _)| *known == name) {
            return text.clone();
        }
        let text = TextReadout::default();
        entries.texts.push((name, text.clone()));
        text
    }

    /// The stats of a group under this scope; the same group gives the same stats.
    pub fn group<G: StatGroup>(&self) -> G {
        let shape = G::SHAPE;
        let mut entries = self.inner.entries.lock();
        if let Some(known) = entries.groups.iter().find(|known| std::ptr::eq(known.shape, shape)) {
            return G::from_base(self.clone(), known.slots, known.histograms);
        }
        let slots = if shape.slots() == 0 { shard::NO_SLOT } else { shard::take_slots(shape.slots()) };
        let count = shape.histograms.len();
        let histograms = if count == 0 { shard::NO_SLOT } else { shard::take_histograms(count) };
        self.forget_histograms(histograms, count);
        entries.groups.reserve_exact(1);
        entries.groups.push(GroupEntry { shape, slots, histograms });
        G::from_base(self.clone(), slots, histograms)
    }

    /// Counters per response code under this scope, created when a code is first seen: `<stem>_200`, `<stem>_2xx`, `<stem>_completed`.
    pub fn response_codes(&self, stem: &'static str) -> ResponseCodeStats {
        ResponseCodeStats::new(self.clone(), stem)
    }

    fn forget_histograms(&self, first: u32, count: usize) {
        if let Some(store) = self.inner.store.upgrade() {
            store.forget_histograms(first, count);
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scope").field(&self.inner.prefix).finish()
    }
}

impl Drop for ScopeInner {
    fn drop(&mut self) {
        let entries = self.entries.get_mut();
        for (first, count) in entries.slot_runs() {
            shard::return_slots(first, count);
        }
        for (first, count) in entries.histogram_runs() {
            shard::return_histograms(first, count);
        }
        if let Some(store) = self.store.upgrade() {
            store.scope_ended(&self.prefix, entries.histogram_runs());
        }
    }
}

/// A prefix and a name as one name.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    match (prefix.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => prefix.to_owned(),
        _ => format!("{prefix}.{name}"),
    }
}

/// Replaces what may not be in a name as Envoy does: a scheme's `://`, colons and NUL become `_`, dots at the ends go.
pub(crate) fn sanitize(name: Cow<'_, str>) -> Cow<'_, str> {
    let trimmed = name.trim_matches('.');
    if !trimmed.bytes().any(|b| b == b':' || b == 0) {
        return if trimmed.len() == name.len() { name } else { Cow::Owned(trimmed.to_owned()) };
    }
    Cow::Owned(trimmed.replace("://", "_").replace(":/", "_").replace([':', '\0'], "_"))
}
