//! `cargo xtask fuzz`: fuzz targets fed by coverage, with libFuzzer on instrumented code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::build::{build, cargo, debug_folder, host};
use crate::workspace::root;

/// Options of `fuzz`.
#[derive(Args)]
pub struct Options {
    /// Targets, as `dhow-fuzz list` prints them; all unless given.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 30)]
    time: u64,
    /// Seed of the first inputs and of their mutation.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Only the driver without coverage, which needs no C++ compiler and no second build.
    #[arg(long)]
    plain: bool,
}

/// Coverage for libFuzzer, on the stable compiler. Arithmetic that overflows is a failure as in an unoptimised build.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks";

/// Longest input in bytes.
const LONGEST: usize = 4096;

/// Feeds the targets; fails with the first input for which a property does not hold.
pub fn run(options: &Options) -> Result<()> {
    let driver = build("dhow-fuzz", "dhow-fuzz", false)?;
    let folder = root()?.join("target").join("fuzz");
    std::fs::create_dir_all(&folder)?;
    let targets = chosen(options, &driver)?;
    if options.plain {
        let mut command = Command::new(&driver);
        command.arg("run").args(&targets).args(["--time", &options.time.to_string()]);
        command.args(["--seed", &options.seed.to_string(), "--failures"]).arg(&folder);
        ensure!(command.status()?.success(), "a target fails; the input is under {}", folder.display());
        return Ok(());
    }
    let fuzzer = instrumented(&folder)?;
    for target in &targets {
        feed(target, options, &driver, &fuzzer, &folder)?;
    }
    println!("{} targets hold for {} s each", targets.len(), options.time);
    Ok(())
}

/// The names of the targets to feed.
fn chosen(options: &Options, driver: &Path) -> Result<Vec<String>> {
    let listed = Command::new(driver).arg("list").output().context("dhow-fuzz list")?;
    let listed = String::from_utf8(listed.stdout)?;
    let known: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if options.targets.is_empty() {
        return Ok(known.into_iter().map(str::to_owned).collect());
    }
    for target in &options.targets {
        if !known.contains(&target.as_str()) {
            bail!("there is no target `{target}`; there are {}", known.join(", "));
        }
    }
    Ok(options.targets.clone())
}

/// Builds the fuzzer apart from everything else, because all of its code is compiled differently.
fn instrumented(folder: &Path) -> Result<PathBuf> {
    let host = host()?;
    eprintln!("building the fuzzer");
    let status = cargo()?
        .args(["build", "--quiet", "-p", "dhow-fuzz", "--features", "libfuzzer", "--bin", "libfuzzer"])
        // With a target of its own, build scripts and macros are not instrumented.
        .args(["--target", &host, "--target-dir"])
        .arg(folder)
        .env("RUSTFLAGS", INSTRUMENTED)
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_INCREMENTAL", "0")
        .status()?;
    ensure!(status.success(), "the build of the fuzzer failed; --plain needs no C++ compiler");
    Ok(debug_folder(folder, &host).join("libfuzzer"))
}

fn feed(target: &str, options: &Options, driver: &Path, fuzzer: &Path, folder: &Path) -> Result<()> {
    let corpus = folder.join("corpus").join(target);
    let seed = options.seed.to_string();
    let written =
        Command::new(driver).args(["corpus", target]).arg(&corpus).args(["--seed", &seed]).status()?;
    ensure!(written.success(), "the first inputs of {target} cannot be written");
    println!("{target}: {} s", options.time);
    let prefix = folder.join(format!("{target}-"));
    let fed = Command::new(fuzzer)
        .arg(&corpus)
        .arg(format!("-max_total_time={}", options.time))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-seed={seed}"))
        .arg(format!("-artifact_prefix={}", prefix.display()))
        // A stalled input counts as a failure; a leak is for `memcheck`.
        .args(["-timeout=20", "-detect_leaks=0", "-print_final_stats=0", "-verbosity=0", "-close_fd_mask=0"])
        .env("DHOW_FUZZ_TARGET", target)
        .env("RUST_BACKTRACE", "0")
        .status()?;
    ensure!(
        fed.success(),
        "{target} fails; `dhow-fuzz replay {target} FILE` repeats it with the input {}*",
        prefix.display()
    );
    Ok(())
}
