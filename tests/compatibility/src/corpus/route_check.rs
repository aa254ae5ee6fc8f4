//! Route tables with tests in the form of Envoy's router check tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Corpus, Outcome, Tally};

pub(super) fn run(corpus: &Corpus) -> Result<Tally> {
    let folder = corpus.folder.join("route-check");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut tally = Tally::default();
    for tests in &files {
        let name = tests.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((table, _)) = name.split_once(".golden.") else { continue };
        // Tests that must fail may be about a table that has tests which must pass, too.
        let must_fail = table.ends_with("Failures");
        let mut config = folder.join(format!("{table}.yaml"));
        if !config.exists() {
            config = folder.join(format!("{}.yaml", table.trim_end_matches("Failures")));
        }
        tally.add(corpus, &name, check(corpus, &config, tests, must_fail)?);
    }
    Ok(tally)
}

fn check(corpus: &Corpus, config: &Path, tests: &Path, must_fail: bool) -> Result<Outcome> {
    let output = Command::new(&corpus.dhow)
        .args(["x", "route-check", "--details", "--only-show-failures", "-c"])
        .arg(config)
        .arg("-t")
        .arg(tests)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{}: build it first (cargo build -p dhow)", corpus.dhow.display()))?;
    if output.status.success() != must_fail {
        return Ok(Outcome::Agreed);
    }
    if must_fail {
        return Ok(Outcome::Differs("every test passed, where some must fail".into()));
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Ok(Outcome::Differs(said.lines().take(6).collect::<Vec<_>>().join(" | ")))
}
