//! Builds programs of this workspace, for the chores that run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::root;

/// The cargo that runs this, in the root of the workspace.
pub fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?);
    Ok(command)
}

/// Builds `binary` of `package`, with optimisations where `release` says so, and returns its path.
pub fn build(package: &str, binary: &str, release: bool) -> Result<PathBuf> {
    eprintln!("building {binary}");
    let mut command = cargo()?;
    command.args(["build", "--quiet", "--package", package]);
    if release {
        command.arg("--release");
    }
    ensure!(command.status().context("cannot run cargo")?.success(), "the build of {package} failed");
    Ok(target_folder()?.join(if release { "release" } else { "debug" }).join(binary))
}

/// The folder that cargo builds in.
pub fn target_folder() -> Result<PathBuf> {
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from))
}

/// The path of a program on `PATH`, if it is installed. Administrative folders are searched too.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// The target that the compiler builds for unless told otherwise.
pub fn host() -> Result<String> {
    let version = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let version = String::from_utf8(version.stdout)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Where a build for `host` in the target folder `folder` puts its unoptimised programs.
pub fn debug_folder(folder: &Path, host: &str) -> PathBuf {
    folder.join(host).join("debug")
}
