//! Where cargo keeps the source of a dependency.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of the package `name` in the version that the lock file resolved.
pub fn find(name: &str) -> PathBuf {
    let manifest =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    in_registry(name, &manifest).unwrap_or_else(|| by_metadata(name, &manifest))
}

/// The usual place: cargo has unpacked the package there before it runs this script. Asking `cargo metadata` instead
/// would make it download the whole workspace's dependencies, for every platform.
fn in_registry(name: &str, manifest: &Path) -> Option<PathBuf> {
    let lock_file =
        manifest.ancestors().map(|folder| folder.join("Cargo.lock")).find(|path| path.is_file())?;
    let lock = std::fs::read_to_string(lock_file).ok()?;
    let (_, entry) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    let (version, _) = entry.split_once('"')?;
    // A test compares it with the lock file: watching that file would rebuild half the workspace at each of its changes.
    println!("cargo::rustc-env=DHOW_TABLES_VERSION={version}");
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    registries
        .filter_map(|registry| Some(registry.ok()?.path().join(format!("{name}-{version}"))))
        .find(|folder| folder.is_dir())
}

/// Any other place, such as a vendored folder.
fn by_metadata(name: &str, manifest: &Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .current_dir(manifest)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not among the dependencies"));
    println!("cargo::rustc-env=DHOW_TABLES_VERSION={}", package["version"].as_str().unwrap_or_default());
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a package has a manifest"));
    manifest.parent().expect("a manifest lies in a folder").to_owned()
}
