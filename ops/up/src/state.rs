//! The folder of a running mesh, and how other commands find it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use dhow_base::Rng;
use serde::{Deserialize, Serialize};

use crate::error::UpError;

const PREFIX: &str = "dhow-up-";
const LOCK: &str = "lock";
const STATE: &str = "state.json";

/// What a running mesh tells about itself, in `state.json` of its folder.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshState {
    /// Process id of `dhow up`.
    pub pid: u32,
    /// The folder that its manifests were read from.
    pub source: PathBuf,
    /// The folder that the control plane watches.
    pub config: PathBuf,
    /// Base address of the gateway.
    pub gateway: String,
    /// Address and port of the control plane's xDS service.
    pub control_plane: String,
    /// The proxies.
    pub proxies: Vec<ProxyState>,
}

/// A proxy of a running mesh.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyState {
    /// Name of its pod.
    pub name: String,
    /// Namespace of its pod.
    pub namespace: String,
    /// Address and port of its admin interface.
    pub admin: String,
}

/// The folder of this process's mesh. Its lock goes with the process.
#[derive(Debug)]
pub(crate) struct MeshFolder {
    pub path: PathBuf,
    /// Distinguishes this mesh from all others.
    pub id: String,
    _lock: File,
}

impl MeshFolder {
    /// Creates it, readable to this user only, after removing those of meshes that are gone.
    pub(crate) fn create() -> Result<Self, UpError> {
        let base = bases().remove(0);
        for stale in folders(&base).filter(|folder| !is_locked(folder)) {
            // Somebody else may be removing it.
            let _ = std::fs::remove_dir_all(stale);
        }
        let id = format!("{:08x}", Rng::from_entropy().next_u32());
        let path = base.join(format!("{PREFIX}{id}"));
        // The lock is there before the folder has its name, so nobody takes it for an abandoned one.
        let unnamed = base.join(format!(".{PREFIX}{id}"));
        DirBuilder::new().mode(0o700).create(&unnamed).map_err(UpError::file(&unnamed))?;
        let lock = File::create(unnamed.join(LOCK)).map_err(UpError::file(&unnamed))?;
        lock.lock().map_err(UpError::file(unnamed.join(LOCK)))?;
        std::fs::rename(&unnamed, &path).map_err(UpError::file(&path))?;
        let folder = Self { path, id, _lock: lock };
        for name in ["config", "config/generated", "bootstrap", "partial"] {
            let path = folder.path.join(name);
            std::fs::create_dir(&path).map_err(UpError::file(&path))?;
        }
        Ok(folder)
    }

    /// The folder that the control plane watches.
    pub(crate) fn config(&self) -> PathBuf {
        self.path.join("config")
    }

    /// Writes `content` to `name` within the folder, so that nobody sees half of it.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: &[u8]) -> Result<PathBuf, UpError> {
        let path = self.path.join(name);
        write_whole(&self.path.join("partial"), &path, content)?;
        Ok(path)
    }

    /// Says that the mesh can be used.
    pub(crate) fn publish(&self, state: &MeshState) -> Result<(), UpError> {
        let text = serde_json::to_vec_pretty(state).expect("strings and numbers are always JSON");
        self.write(STATE, &text).map(|_| ())
    }
}

/// Writes a file beside its place, in the folder `partial` of the same file system, and then moves it there.
pub(crate) fn write_whole(partial: &Path, path: &Path, content: &[u8]) -> Result<(), UpError> {
    let temporary = partial.join(format!("{}-{:08x}", std::process::id(), Rng::from_entropy().next_u32()));
    let mut file = File::create(&temporary).map_err(UpError::file(&temporary))?;
    file.write_all(content).map_err(UpError::file(&temporary))?;
    std::fs::rename(&temporary, path).map_err(UpError::file(path))
}

/// The meshes of this user that run now, with their folders.
pub fn running() -> Vec<(PathBuf, MeshState)> {
    let mut found = Vec::new();
    for folder in bases().iter().flat_map(|base| folders(base)).filter(|folder| is_locked(folder)) {
        let state =
            std::fs::read(folder.join(STATE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        // Without a state it is still starting.
        found.extend(state.map(|state| (folder, state)));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.dedup_by(|(a, _), (b, _)| a == b);
    found
}

/// Folders for run-time files, the preferred one first.
fn bases() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute() && path.is_dir());
    runtime.into_iter().chain([std::env::temp_dir()]).collect()
}

/// Folders of meshes in `base` that belong to this user.
fn folders(base: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let user = rustix::process::geteuid().as_raw();
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        .map(|entry| entry.path())
        .filter(move |path| path.symlink_metadata().is_ok_and(|data| data.is_dir() && data.uid() == user))
}

fn is_locked(folder: &Path) -> bool {
    File::open(folder.join(LOCK))
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(folder: &MeshFolder) -> MeshState {
        MeshState {
            pid: std::process::id(),
            source: PathBuf::from("/a"),
            config: folder.config(),
            gateway: String::new(),
            control_plane: String::new(),
            proxies: Vec::new(),
        }
    }

    #[test]
    fn a_mesh_is_found_from_its_publication_to_its_end() {
        let folder = MeshFolder::create().unwrap();
        let path = folder.path.clone();
        let found = || running().into_iter().any(|(found, _)| found == path);
        assert!(!found());
        folder.publish(&state(&folder)).unwrap();
        assert!(found());
        drop(folder);
        // A process that another test is starting may hold a copy of the lock until it runs its own program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while found() {
            assert!(std::time::Instant::now() < deadline, "the lock is not released");
            std::thread::yield_now();
        }
        // The next mesh sweeps up after it.
        let next = MeshFolder::create().unwrap();
        assert!(!path.exists());
        std::fs::remove_dir_all(&next.path).unwrap();
    }
}
