//! What the server knows about one type on one stream: what the client wants, what it holds, what it has not answered.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::{Resource, type_url};

/// A response that was not answered yet.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) nonce: String,
    /// What it is about, removals included.
    names: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) type_url: Arc<str>,
    pub(super) wildcard: bool,
    /// Names asked for besides the wildcard, or without it.
    pub(super) names: Arc<BTreeSet<String>>,
    /// A state-of-the-world request of this stream listed names, so that an empty list now means none.
    pub(super) listed_names: bool,
    /// What the client holds, as far as the server told it or it told the server: name and version.
    held: BTreeMap<Arc<str>, Arc<str>>,
    /// Names to be answered although nothing may have changed.
    forced: BTreeSet<String>,
    /// Names of refused responses. The client may have refused good resources and removals together with a bad one.
    refused: BTreeSet<Arc<str>>,
    /// The first request was not answered yet.
    pub(super) unanswered: bool,
    /// Something may have to be sent: a newer snapshot, more interest.
    pub(super) due: bool,
    pub(super) outstanding: Option<Outstanding>,
    /// Since when its push waits for clusters and endpoints.
    pub(super) held_back_since: Option<Instant>,
    /// Since when removals wait for the routes that may still point at them.
    pub(super) removals_wait_since: Option<Instant>,
    /// Removals wait no longer.
    pub(super) removals_released: bool,
    /// The clusters of the last state-of-the-world response, so that they can be repeated while their removal waits.
    last_clusters: Vec<Resource>,
    /// The nonce sent last; empty before the first response.
    pub(super) nonce_sent: String,
    /// The nonce acknowledged last.
    pub(super) nonce_acked: String,
    /// The version sent last.
    pub(super) version_sent: String,
    /// Why the response answered last was refused.
    pub(super) refusal: Option<String>,
}

/// What changed for a client since it was last told.
#[derive(Debug, Default)]
pub(super) struct Difference<'a> {
    pub(super) changed: Vec<&'a Resource>,
    pub(super) removed: Vec<Arc<str>>,
}

impl Watch {
    pub(super) fn new(type_url: &str) -> Self {
        Self {
            type_url: type_url.into(),
            wildcard: false,
            names: Arc::default(),
            listed_names: false,
            held: BTreeMap::new(),
            forced: BTreeSet::new(),
            refused: BTreeSet::new(),
            unanswered: true,
            due: true,
            outstanding: None,
            held_back_since: None,
            removals_wait_since: None,
            removals_released: false,
            last_clusters: Vec::new(),
            nonce_sent: String::new(),
            nonce_acked: String::new(),
            version_sent: String::new(),
            refusal: None,
        }
    }

    /// Whether the client is about to get, or has not yet answered, a response of this type.
    pub(super) fn is_busy(&self) -> bool {
        self.due || self.outstanding.is_some()
    }

    /// What the client says to hold from before this stream.
    pub(super) fn holds(&mut self, versions: impl IntoIterator<Item = (String, String)>) {
        let known = versions.into_iter().filter(|(name, _)| self.wildcard || self.names.contains(name));
        self.held = known.map(|(name, version)| (name.into(), version.into())).collect();
    }

    pub(super) fn has_version_of(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// The client has to be told about `name`, whatever it holds.
    pub(super) fn force(&mut self, name: &str) {
        self.forced.insert(name.to_owned());
        self.due = true;
    }

    /// The client no longer holds what it did not ask for.
    pub(super) fn forget_unwanted(&mut self) {
        if !self.wildcard {
            let names = Arc::clone(&self.names);
            self.held.retain(|name, _| names.contains(name.as_ref()));
            self.forced.retain(|name| names.contains(name));
            self.refused.retain(|name| names.contains(name.as_ref()));
        }
    }

    /// Compares what there is with what the client holds. Whatever was forced counts as changed, or as removed where it
    /// does not exist. Resources that were refused together are sent together again once one of them changed.
    pub(super) fn difference<'a>(&mut self, current: &'a [Resource]) -> Difference<'a> {
        let mut present = HashSet::with_capacity(current.len());
        let mut difference = Difference::default();
        let mut refused_changed = false;
        let mut refused_unchanged = Vec::new();
        for resource in current {
            if !present.insert(&*resource.name) {
                continue; // a second resource of the same name would make the response malformed
            }
            let changed = self.held.get(&resource.name) != Some(&resource.version);
            let was_refused = self.refused.contains(&resource.name);
            refused_changed |= changed && was_refused;
            if changed || self.forced.contains(&*resource.name) {
                difference.changed.push(resource);
            } else if was_refused {
                refused_unchanged.push(resource);
            }
        }
        for name in self.held.keys().filter(|name| !present.contains(&***name)) {
            refused_changed |= self.refused.contains(name);
            difference.removed.push(Arc::clone(name));
        }
        for name in self.forced.iter().filter(|name| !present.contains(name.as_str())) {
            if !self.held.contains_key(name.as_str()) {
                difference.removed.push(name.as_str().into());
            }
        }
        if refused_changed {
            difference.changed.append(&mut refused_unchanged);
            let removals = self.refused.iter().filter(|name| !present.contains(&***name));
            difference.removed.extend(removals.filter(|name| !self.held.contains_key(&**name)).cloned());
        }
        difference
    }

    /// Takes out of `removed` what the client holds, if it has to wait; returns what that is.
    pub(super) fn withhold_removals(
        &mut self,
        removed: &mut Vec<Arc<str>>,
        may_wait: bool,
        now: Instant,
    ) -> Vec<Arc<str>> {
        let (held, others): (Vec<_>, Vec<_>) =
            removed.drain(..).partition(|name| self.held.contains_key(name));
        *removed = others;
        if may_wait && !self.removals_released && !held.is_empty() {
            self.removals_wait_since.get_or_insert(now);
            return held;
        }
        removed.extend(held);
        self.removals_wait_since = None;
        self.removals_released = false;
        Vec::new()
    }

    /// A full set for a state-of-the-world response: the first resource of each name, and those whose removal waits.
    pub(super) fn full_set(&mut self, current: &[Resource], withheld: &[Arc<str>]) -> Vec<Resource> {
        let mut seen = HashSet::with_capacity(current.len());
        let mut set: Vec<Resource> =
            current.iter().filter(|resource| seen.insert(&*resource.name)).cloned().collect();
        if *self.type_url == *type_url::CLUSTER {
            let waiting = self.last_clusters.drain(..).filter(|cluster| withheld.contains(&cluster.name));
            set.extend(waiting);
            self.last_clusters.clone_from(&set);
        }
        set
    }

    /// The difference was looked at, and nothing or everything of it is being sent.
    pub(super) fn settle(&mut self) {
        self.due = false;
        self.forced.clear();
        self.held_back_since = None;
    }

    /// Takes note of a response that leaves.
    pub(super) fn sent<'a>(
        &mut self,
        nonce: &str,
        version: &str,
        resources: impl Iterator<Item = &'a Resource>,
        removed: &[Arc<str>],
    ) {
        let mut names = Vec::new();
        for resource in resources {
            names.push(Arc::clone(&resource.name));
            self.held.insert(Arc::clone(&resource.name), Arc::clone(&resource.version));
        }
        self.gone(removed);
        names.extend_from_slice(removed);
        self.unanswered = false;
        self.nonce_sent = nonce.to_owned();
        self.version_sent = version.to_owned();
        self.outstanding = Some(Outstanding { nonce: nonce.to_owned(), names });
    }

    /// The client does not hold these any more, or soon will not.
    pub(super) fn gone(&mut self, names: &[Arc<str>]) {
        for name in names {
            self.held.remove(name);
            self.refused.remove(name);
        }
    }

    /// The client answered the outstanding response.
    pub(super) fn answered(&mut self, refusal: Option<String>) {
        let Some(Outstanding { nonce, names }) = self.outstanding.take() else { return };
        match refusal {
            None => {
                for name in &names {
                    self.refused.remove(name);
                }
                self.nonce_acked = nonce;
                self.refusal = None;
            }
            Some(message) => {
                self.refused.extend(names);
                self.refusal = Some(message);
            }
        }
    }

    /// Whether its pushes wait until the clusters and endpoints of the same snapshot have arrived.
    pub(super) fn points_at_clusters(&self) -> bool {
        matches!(
            &*self.type_url,
            type_url::LISTENER | type_url::SCOPED_ROUTE | type_url::ROUTE | type_url::VIRTUAL_HOST
        )
    }
}
