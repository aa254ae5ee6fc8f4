//! A folder that exists as long as its guard.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh empty folder under the system's temporary folder, removed with its contents when dropped.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Makes the folder; `label` appears in its name, for whoever finds it while a test hangs.
    pub fn new(label: &str) -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dhow-{label}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path: path.canonicalize()? })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `contents` to `name` inside the folder and returns the full path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::write(&path, contents)?;
        Ok(path)
    }

    /// Puts `contents` in place under `name` by renaming a finished file over it, which is the only change that Envoy's
    /// watched files react to.
    pub fn replace(&self, name: &str, contents: impl AsRef<[u8]>) -> io::Result<PathBuf> {
        let staged = self.write(&format!("{name}.staged"), contents)?;
        let path = self.path.join(name);
        std::fs::rename(staged, &path)?;
        Ok(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A file that a dying child still writes may make this fail; the next clean of the temporary folder takes the rest.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_with_its_guard() {
        let dir = TempDir::new("tempdir-test").unwrap();
        let file = dir.replace("a.txt", "first").unwrap();
        dir.replace("a.txt", "second").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "second");
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists());
    }
}
