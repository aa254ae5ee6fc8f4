//! Builds programs of this workspace, for the chores that run them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::root;

/// Builds `binary` of `package`, with optimisations where `release` says so, and returns its path.
pub fn build(package: &str, binary: &str, release: bool) -> Result<PathBuf> {
    let root = root()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building {binary}");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", package]).current_dir(&root);
    if release {
        command.arg("--release");
    }
    ensure!(command.status().context("cannot run cargo")?.success(), "the build of {package} failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(if release { "release" } else { "debug" }).join(binary))
}
