//! `cargo xtask memcheck`: the tests of every crate that contains `unsafe`, under a tool that sees what the compiler cannot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::build::{cargo, host, installed};
use crate::workspace::{Workspace, root};

/// Options of `memcheck`.
#[derive(Args)]
pub struct Options {
    /// Packages; every one with `unsafe` in its sources unless given.
    packages: Vec<String>,
    /// The tool; valgrind where it is installed, else the sanitizer where there is a nightly compiler.
    #[arg(long)]
    tool: Option<Tool>,
}

/// What watches the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    /// Valgrind's memcheck, on the ordinary test programs: invalid and uninitialised memory, definite leaks.
    Valgrind,
    /// The address sanitizer of a nightly compiler: also the stack and globals. Builds everything again.
    Address,
}

/// What valgrind exits with when it found something.
const FOUND: &str = "97";

/// Runs the tests, or says why it cannot.
pub fn run(options: &Options) -> Result<()> {
    let Some(tool) = options.tool.or_else(available) else {
        println!("memcheck is skipped: neither valgrind nor a nightly compiler is installed");
        return Ok(());
    };
    let packages = match options.packages.is_empty() {
        true => with_unsafe()?,
        false => options.packages.clone(),
    };
    for package in &packages {
        println!("{package}");
        for program in test_programs(package, tool)? {
            watch(&program, tool)?;
        }
    }
    println!("no finding in the tests of {}", packages.join(", "));
    Ok(())
}

fn available() -> Option<Tool> {
    if installed("valgrind").is_some() {
        return Some(Tool::Valgrind);
    }
    let nightly = Command::new("rustc").args(["+nightly", "-V"]).stderr(Stdio::null()).output();
    nightly.is_ok_and(|output| output.status.success()).then_some(Tool::Address)
}

/// The packages of the workspace with an `unsafe` block or function in their sources.
fn with_unsafe() -> Result<Vec<String>> {
    let workspace = Workspace::load()?;
    let mut packages = Vec::new();
    for package in &workspace.packages {
        // This one names the word to look for it.
        if package.folder != "xtask" && contains_unsafe(&workspace.root.join(&package.folder))? {
            packages.push(package.name.clone());
        }
    }
    Ok(packages)
}

fn contains_unsafe(folder: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => contains_unsafe(&path)?,
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                let text = std::fs::read_to_string(&path)?;
                text.lines().map(str::trim_start).any(is_unsafe)
            }
            false => false,
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_unsafe(line: &str) -> bool {
    let code = !line.starts_with("//");
    code && ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| line.contains(word))
}

/// What cargo says about something that it built.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds the tests of a package: the programs that run them.
fn test_programs(package: &str, tool: Tool) -> Result<Vec<PathBuf>> {
    let mut command = match tool {
        Tool::Valgrind => cargo()?,
        Tool::Address => {
            let mut command = Command::new("cargo");
            command.arg("+nightly").current_dir(root()?);
            command
        }
    };
    command.args(["test", "--quiet", "-p", package, "--no-run", "--message-format=json"]);
    if tool == Tool::Address {
        command.args(["--target", &host()?, "--target-dir"]).arg(root()?.join("target").join("memcheck"));
        command.env("RUSTFLAGS", "-Zsanitizer=address").env("CARGO_INCREMENTAL", "0");
        // The outer cargo names its own compiler, which the nightly one must not take for its own.
        command.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests of {package} do not build");
    let lines = String::from_utf8(output.stdout)?;
    let artifacts = lines.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let tests = artifacts.filter(|artifact| artifact.profile.as_ref().is_some_and(|profile| profile.test));
    Ok(tests.filter_map(|artifact| artifact.executable).collect())
}

fn watch(program: &Path, tool: Tool) -> Result<()> {
    let mut command = match tool {
        Tool::Valgrind => {
            let mut command = Command::new("valgrind");
            command.args(["--quiet", "--leak-check=full", "--show-leak-kinds=definite"]);
            command.args(["--errors-for-leak-kinds=definite", "--child-silent-after-fork=yes"]);
            command.arg(format!("--error-exitcode={FOUND}")).arg(program);
            command
        }
        Tool::Address => Command::new(program),
    };
    // One test at a time: valgrind runs one thread at a time anyway, and deadlines of tests count real time.
    let status = command.args(["--quiet", "--test-threads=1"]).current_dir(root()?).status()?;
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_comments() {
        assert!(is_unsafe("unsafe { f() }") && is_unsafe("pub unsafe fn g()"));
        assert!(!is_unsafe("// unsafe { f() }") && !is_unsafe("let unsafely = 1;"));
    }

    #[test]
    fn the_crates_with_unsafe_are_found() {
        let packages = with_unsafe().unwrap();
        assert!(packages.iter().any(|name| name == "dhow-testkit"), "{packages:?}");
        assert!(!packages.iter().any(|name| name == "dhow-http"), "{packages:?}");
    }
}
