//! The workspace as `cargo metadata` describes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The packages of the workspace.
pub struct Workspace {
    /// Its root folder.
    pub root: PathBuf,
    /// Its members.
    pub packages: Vec<Package>,
}

/// One member.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, relative to the root, such as `core/base`.
    pub folder: String,
    /// What it depends on directly, in any section.
    pub dependencies: Vec<Dependency>,
}

/// A direct dependency.
pub struct Dependency {
    /// The package depended on.
    pub name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub kind: Option<String>,
    /// The folder of a member, relative to the root; `None` for a package of the registry.
    pub folder: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<RawPackage>,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<RawDependency>,
}

#[derive(Deserialize)]
struct RawDependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

/// The root folder: this crate lies directly in it.
pub fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    Ok(root.to_owned())
}

impl Workspace {
    /// Asks cargo.
    pub fn load() -> Result<Self> {
        let root = root()?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--no-deps", "--quiet"])
            .current_dir(&root)
            .output()
            .context("cannot run cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
        let relative = |path: &Path| path.strip_prefix(&root).ok().map(|p| p.to_string_lossy().into_owned());
        let packages = metadata
            .packages
            .into_iter()
            .map(|raw| Package {
                name: raw.name,
                folder: raw.manifest_path.parent().and_then(relative).unwrap_or_default(),
                dependencies: raw
                    .dependencies
                    .into_iter()
                    .map(|d| Dependency {
                        name: d.name,
                        kind: d.kind,
                        folder: d.path.as_deref().and_then(relative),
                    })
                    .collect(),
            })
            .collect();
        Ok(Self { root, packages })
    }
}

/// Every file that git knows or would add, relative to `root`.
pub fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut files: Vec<String> =
        text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    // A file that was just removed is still in the index.
    files.retain(|name| root.join(name).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}
