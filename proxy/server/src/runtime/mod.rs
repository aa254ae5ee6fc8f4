//! The layered runtime of the process: where layers come from, when they are read again, what is counted.

mod config;
mod disk;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use dhow_proxy_admin::{RuntimeEntry, RuntimeValues};
use dhow_proxy_xds::{MoveWatch, WatchTarget};
use dhow_runtime_config::{Layer, Snapshot};
use dhow_stats::{Store, stat_group};

pub(crate) use config::{LayerSource, lower};
use disk::read_directory;

stat_group! {
    /// `runtime.*`.
    pub(crate) struct RuntimeStats {
        counters { deprecated_feature_use, load_error, load_success, override_dir_exists, override_dir_not_exists }
        gauges { admin_overrides_active, deprecated_feature_seen_since_process_start, num_keys, num_layers }
    }
}

/// Reads the layers, publishes them together, and keeps what an operator sets.
#[derive(Debug)]
pub(crate) struct RuntimeLoader {
    sources: Vec<LayerSource>,
    overrides: RefCell<Layer>,
    current: RefCell<Arc<Snapshot>>,
    stats: RuntimeStats,
}

impl RuntimeLoader {
    /// Reads the layers for the first time and publishes them.
    pub(crate) fn new(sources: Vec<LayerSource>, store: &Store) -> Rc<Self> {
        let admin_name = sources.iter().find_map(|source| match source {
            LayerSource::Admin { name } => Some(name.as_str()),
            LayerSource::Static(_) | LayerSource::Disk { .. } => None,
        });
        let overrides = RefCell::new(Layer::new(admin_name.unwrap_or_default()));
        let stats = store.scope("runtime.").group();
        let loader = Rc::new(Self { sources, overrides, current: RefCell::default(), stats });
        loader.load();
        loader
    }

    /// Reads the layers again and publishes them. A directory that cannot be read is left out and counted.
    pub(crate) fn load(&self) {
        let (mut layers, mut directories, mut failed) = (Vec::new(), 0, false);
        for source in &self.sources {
            match source {
                LayerSource::Static(layer) => layers.push(layer.clone()),
                LayerSource::Admin { .. } => layers.push(self.overrides.borrow().clone()),
                LayerSource::Disk { name, directory, .. } => {
                    if !directory.is_dir() {
                        continue;
                    }
                    match read_directory(name, directory) {
                        Ok(layer) => {
                            directories += 1;
                            layers.push(layer);
                        }
                        Err(error) => {
                            tracing::debug!(
                                "error loading runtime values for layer {name} from disk: {error}"
                            );
                            failed = true;
                        }
                    }
                }
            }
        }
        let snapshot = Arc::new(Snapshot::new(layers));
        self.count(&snapshot, directories, failed);
        *self.current.borrow_mut() = snapshot.clone();
        dhow_runtime_config::publish(snapshot);
    }

    fn count(&self, snapshot: &Snapshot, directories: usize, failed: bool) {
        let stats = &self.stats;
        if failed {
            stats.load_error().inc()
        } else {
            stats.load_success().inc()
        }
        // The name is from a time when a second directory was called the override.
        if directories > 1 {
            stats.override_dir_exists().inc()
        } else {
            stats.override_dir_not_exists().inc()
        }
        stats.num_keys().set(snapshot.keys().len() as u64);
        stats.num_layers().set(snapshot.layers().len() as u64);
    }

    /// Watches for directories that are swapped by their symbolic link; each swap reads all layers again.
    ///
    /// # Errors
    /// Envoy's words for what cannot be watched.
    pub(crate) fn watch(self: &Rc<Self>) -> Result<(), String> {
        for source in &self.sources {
            let LayerSource::Disk { symlink_root, .. } = source else { continue };
            let mut watch = MoveWatch::new(&WatchTarget::File(symlink_root.clone())).map_err(|error| {
                let reason = crate::lifecycle::plain(&error);
                format!("unable to add filesystem watch for file {}: {reason}", symlink_root.display())
            })?;
            let loader = Rc::downgrade(self);
            tokio::task::spawn_local(async move {
                while watch.moved().await.is_ok() {
                    let Some(loader) = loader.upgrade() else { return };
                    loader.load();
                }
            });
        }
        Ok(())
    }

    /// Counts uses of deprecated fields.
    pub(crate) fn deprecated_features_used(&self, count: u64) {
        if count == 0 {
            // What was never written to counts as unused.
            return;
        }
        self.stats.deprecated_feature_use().add(count);
        self.stats.deprecated_feature_seen_since_process_start().add(count);
    }

    /// What `/runtime` shows.
    pub(crate) fn describe(&self) -> RuntimeValues {
        let snapshot = self.current.borrow().clone();
        let mut keys: Vec<_> = snapshot.keys().collect();
        keys.sort_unstable();
        let text = |layer: &Layer, key: &str| layer.get(key).map(|value| value.text().to_owned());
        let entry = |key: &str| RuntimeEntry {
            key: key.to_owned(),
            layer_values: snapshot
                .layers()
                .iter()
                .map(|layer| text(layer, key).unwrap_or_default())
                .collect(),
            final_value: snapshot.get(key).map(|value| value.text().to_owned()).unwrap_or_default(),
        };
        RuntimeValues {
            layers: snapshot.layers().iter().map(|layer| layer.name().to_owned()).collect(),
            entries: keys.into_iter().map(entry).collect(),
        }
    }

    /// `POST /runtime_modify`: an empty value takes an override back. Either all values are taken or none.
    ///
    /// # Errors
    /// Envoy's words when no layer is the operator's; what is wrong with a value that is no YAML.
    pub(crate) fn modify(&self, values: &[(&str, &str)]) -> Result<(), String> {
        if !self.sources.iter().any(|source| matches!(source, LayerSource::Admin { .. })) {
            return Err("No admin layer specified".into());
        }
        // A directive leaves no content, and the text as it is.
        for (_, text) in values.iter().filter(|(_, text)| !text.starts_with('%')) {
            dhow_yaml::parse(text, dhow_yaml::Dialect::Envoy).map_err(|error| error.to_string())?;
        }
        for (key, text) in values {
            self.overrides.borrow_mut().set(key, text);
        }
        self.load();
        self.stats.admin_overrides_active().set(u64::from(!self.overrides.borrow().is_empty()));
        Ok(())
    }
}
