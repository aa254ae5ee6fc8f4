//! Joins the two inputs of a snapshot, objects and MeshConfig, each of which changes on its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dhow_control_model::MeshConfig;
use dhow_control_sources::Directory;
use parking_lot::Mutex;

use crate::mesh_config_file;
use crate::mesh_generation::MeshGeneration;
use crate::snapshot::{Inputs, Snapshot};

/// Time between looks at the file of MeshConfig.
const MESH_CONFIG_INTERVAL: Duration = Duration::from_millis(500);

/// Publishes a snapshot whenever one of its inputs changes.
pub(crate) struct Publisher {
    generation: MeshGeneration,
    domain: String,
    /// Held while publishing, so that the newest inputs are published last.
    inputs: Mutex<Inputs>,
}

impl Publisher {
    pub fn new(inputs: Inputs, domain: &str) -> Self {
        let generation = MeshGeneration::new(Snapshot::new(inputs.clone(), domain));
        Self { generation, domain: domain.to_owned(), inputs: Mutex::new(inputs) }
    }

    pub fn generation(&self) -> &MeshGeneration {
        &self.generation
    }

    /// Takes over what the directory says now.
    pub fn objects_changed(&self, directory: &Directory) {
        self.change(|inputs| *inputs = Inputs::new(directory, inputs.mesh.clone()));
    }

    fn mesh_changed(&self, mesh: MeshConfig) {
        self.change(|inputs| inputs.mesh = mesh);
    }

    fn change(&self, change: impl FnOnce(&mut Inputs)) {
        let mut inputs = self.inputs.lock();
        change(&mut inputs);
        self.generation.publish(Snapshot::new(inputs.clone(), &self.domain));
        tracing::info!(
            objects = inputs.objects.len(),
            problems = inputs.problems.len(),
            "configuration changed"
        );
    }

    /// Follows the file of MeshConfig for ever; what cannot be read leaves the last good one in place.
    pub async fn follow_mesh_config(&self, path: PathBuf) {
        let mut seen = state(&path);
        loop {
            tokio::time::sleep(MESH_CONFIG_INTERVAL).await;
            let now = state(&path);
            // A file that is being replaced may be missing for a moment.
            if now == seen || now.is_none() {
                continue;
            }
            seen = now;
            match mesh_config_file::read(&path) {
                Ok((mesh, warnings)) => {
                    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                    self.mesh_changed(mesh);
                }
                Err(error) => tracing::error!("{error:#}; the last good MeshConfig stays live"),
            }
        }
    }
}

fn state(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
