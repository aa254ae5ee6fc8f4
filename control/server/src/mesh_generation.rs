//! The newest snapshot, as the ADS server asks for it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use dhow_control_discovery::Generation;
use dhow_control_generate::proxy_of_node;
use dhow_control_model::push::{Notice, Proxy};
use dhow_proto::envoy::config::core::v3::Node;
use dhow_xds::Resource;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::snapshot::{ProxyResources, Snapshot};

/// Holds the newest snapshot. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct MeshGeneration {
    shared: Arc<Shared>,
}

/// Type URL, name and version: what tells resources apart.
type ResourceKey = (String, Arc<str>, Arc<str>);

#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    changes: watch::Sender<u64>,
    /// Resources that some snapshot or session holds, by type, name and version: equal ones are kept in memory once.
    in_use: Mutex<HashMap<ResourceKey, Resource>>,
    /// What the log has said already about the present configuration.
    said: Mutex<HashSet<String>>,
}

impl MeshGeneration {
    pub fn new(snapshot: Snapshot) -> Self {
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            changes: watch::Sender::new(1),
            in_use: Mutex::default(),
            said: Mutex::default(),
        };
        let generation = Self { shared: Arc::new(shared) };
        generation.report();
        generation
    }

    /// Makes a snapshot the newest.
    pub fn publish(&self, snapshot: Snapshot) {
        self.shared.snapshot.store(Arc::new(snapshot));
        // Nobody but this table holds what is not in use any longer.
        self.shared.in_use.lock().retain(|_, resource| Arc::strong_count(&resource.body) > 1);
        self.report();
        self.shared.changes.send_modify(|number| *number += 1);
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Logs what is wrong with the newest configuration, once for as long as it stays wrong.
    fn report(&self) {
        let snapshot = self.snapshot();
        let mut said = self.shared.said.lock();
        let mut still = HashSet::new();
        for problem in &snapshot.problems {
            let text = problem.to_string();
            if !said.contains(&text) {
                match problem.severity {
                    dhow_control_sources::Severity::Error => tracing::error!("{text}"),
                    dhow_control_sources::Severity::Warning => tracing::warn!("{text}"),
                }
            }
            still.insert(text);
        }
        for notice in &snapshot.push.notices {
            let text = notice_text(notice);
            if !said.contains(&text) {
                tracing::warn!("{text}");
            }
            still.insert(text);
        }
        *said = still;
    }

    fn generated(&self, proxy: &Proxy) -> Arc<ProxyResources> {
        let resources = self.snapshot().resources(proxy, |resource| self.share(resource));
        let mut said = self.shared.said.lock();
        for notice in &resources.notices {
            let text = notice_text(notice);
            if said.insert(text.clone()) {
                tracing::warn!("{text}");
            }
        }
        resources
    }

    fn share(&self, resource: Resource) -> Resource {
        let key = (resource.body.type_url.clone(), resource.name.clone(), resource.version.clone());
        self.shared.in_use.lock().entry(key).or_insert(resource).clone()
    }
}

/// A notice as the log shows it.
pub(crate) fn notice_text(notice: &Notice) -> String {
    format!("{}: {}", notice.object, notice.warning)
}

impl Generation for MeshGeneration {
    type View = Proxy;

    fn view(&self, node: &Node) -> Result<Arc<Proxy>, String> {
        proxy_of_node(node).map(Arc::new)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn resources(&self, view: &Proxy, type_url: &str, names: Option<&BTreeSet<String>>) -> Arc<[Resource]> {
        let all = self.generated(view).of_type(type_url);
        match names {
            None => all,
            Some(names) => all.iter().filter(|resource| names.contains(&*resource.name)).cloned().collect(),
        }
    }
}
