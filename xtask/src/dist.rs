//! `cargo xtask dist`: `dhow-proxy` as it is meant to run in production, optimised by a profile of its own work.
//!
//! A first build counts where it goes, the load of the benchmark's rows is sent through it, and a second build inlines and
//! lays out the code by these counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::bench;
use crate::build::{build, cargo, host, installed, target_folder};

/// Options of `dist`.
#[derive(Args)]
pub struct Options {
    /// Send the load of the profile with this dhow-load instead of building one.
    #[arg(long)]
    load: Option<PathBuf>,
}

/// Builds the program and says where it is.
pub fn run(options: &Options) -> Result<()> {
    let merger = merger()?;
    let load = match &options.load {
        Some(load) => load.clone(),
        None => build("dhow-load", "dhow-load", true)?,
    };
    println!("{}", profiled(&merger, &load)?.display());
    Ok(())
}

/// Builds `dhow-proxy` by a profile of the load that `load` (`dhow-load`) sends; its path, `target/dist/dhow-proxy`.
///
/// # Errors
/// When a build or the load fails.
pub fn profiled(merger: &Path, load: &Path) -> Result<PathBuf> {
    let folder = target_folder()?.join("dist");
    let counts = folder.join("counts");
    if counts.is_dir() {
        fs::remove_dir_all(&counts).with_context(|| counts.display().to_string())?;
    }
    eprintln!("building dhow-proxy so that it counts");
    let counting = compile(&format!("-Cprofile-generate={}", counts.display()), &folder.join("counting"))?;
    bench::exercise(&counting, load)?;
    let profile = folder.join("profile");
    let merged = Command::new(merger).arg("merge").arg("-o").args([&profile, &counts]).status();
    ensure!(merged.context("cannot run llvm-profdata")?.success(), "the counts cannot be merged");
    eprintln!("building dhow-proxy by what was counted");
    let counted = compile(&format!("-Cprofile-use={}", profile.display()), &folder.join("counted"))?;
    let program = folder.join("dhow-proxy");
    fs::copy(&counted, &program).with_context(|| program.display().to_string())?;
    Ok(program)
}

/// A release build with one flag more, in a folder of its own.
fn compile(flag: &str, folder: &Path) -> Result<PathBuf> {
    let host = host()?;
    let status = cargo()?
        // With the target named, what runs during the build is built without the flag.
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "dhow-proxy-bin",
            "--target",
            &host,
            "--target-dir",
        ])
        .arg(folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flag)
        .status();
    ensure!(status.context("cannot run cargo")?.success(), "the build of dhow-proxy with {flag} failed");
    Ok(folder.join(host).join("release").join("dhow-proxy"))
}

/// The program that merges counts: the toolchain's own, or one of the same version of LLVM.
///
/// # Errors
/// When there is none, with what to do about it.
pub fn merger() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc")?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let own = sysroot.join("lib/rustlib").join(host()?).join("bin/llvm-profdata");
    if own.is_file() {
        return Ok(own);
    }
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let version = String::from_utf8(output.stdout)?;
    llvm_version(&version)
        .and_then(|major| installed(&format!("llvm-profdata-{major}")))
        .context("llvm-profdata is not there: rustup component add llvm-tools")
}

/// The major version of LLVM in what `rustc -vV` prints.
fn llvm_version(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_found() {
        assert_eq!(llvm_version("rustc 1.95.0\nhost: x\nLLVM version: 22.1.2\n"), Some("22"));
        assert_eq!(llvm_version("rustc 1.95.0\n"), None);
    }
}
