//! Which running mesh a command is about.

use std::path::PathBuf;

use dhow_up::{MeshState, UpError};

#[derive(Debug, clap::Args)]
pub(crate) struct MeshArg {
    /// Folder of the mesh, as `dhow up` printed it; needed when several run.
    #[arg(long, value_name = "DIR")]
    mesh: Option<PathBuf>,
}

impl MeshArg {
    /// The folder and state of the mesh.
    pub(crate) fn find(&self) -> Result<(PathBuf, MeshState), UpError> {
        let mut running = dhow_up::running();
        if let Some(wanted) = &self.mesh {
            let found =
                running.into_iter().find(|(folder, state)| folder == wanted || state.config == *wanted);
            return found.ok_or_else(|| UpError::Apply(format!("no mesh runs in {}", wanted.display())));
        }
        match running.len() {
            0 => Err(UpError::Apply("no mesh is running; start one with `dhow up DIR`".to_owned())),
            1 => Ok(running.remove(0)),
            _ => {
                let list = |(folder, state): &(PathBuf, MeshState)| {
                    format!("{} (of {})", folder.display(), state.source.display())
                };
                let folders: Vec<_> = running.iter().map(list).collect();
                Err(UpError::Apply(format!(
                    "several meshes run; choose one with --mesh: {}",
                    folders.join(", ")
                )))
            }
        }
    }
}
