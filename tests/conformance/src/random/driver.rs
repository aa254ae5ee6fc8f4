//! Runs the cases of a range of seeds and prints what differs.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, Result};

use super::area::Area;
use super::case::Case;
use super::compare::{Difference, compare};
use super::verdicts;
use super::written::yaml;
use crate::accepted;
use crate::outcome::Outcome;
use crate::run::{self, Targets};
use crate::target::Target;

/// How many of the differences that did not come again are shown.
const ONCE_SHOWN: usize = 3;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the configurations and requests are about.
    pub area: Area,
    /// The first seed.
    pub seed: u64,
    /// How many seeds, counted up from the first.
    pub count: u64,
    /// How many requests of each seed; in the area `invalid` how many configurations.
    pub requests: usize,
    /// Only the request with this number.
    pub only: Option<usize>,
    /// How many seeds at a time; 0 runs one.
    pub jobs: usize,
    /// Write each request that differs to this folder as a scenario.
    pub write: Option<PathBuf>,
    /// Print the case as a scenario before it runs.
    pub show: bool,
    /// Our proxy's binary.
    pub ours: PathBuf,
    /// The real Envoy's binary instead of the one that is found or installed.
    pub envoy: Option<PathBuf>,
}

/// Runs the cases that `options` choose and prints a line for each seed, and each difference with the command that repeats it.
/// Returns how many seeds differ; when the real Envoy cannot be had it says so and compares nothing.
pub fn run(options: &Options) -> Result<usize> {
    let choice = run::Options {
        targets: Targets::Both,
        ours: Some(options.ours.clone()),
        envoy: options.envoy.clone(),
        ..run::Options::default()
    };
    let (targets, notice) = run::targets(&choice)?;
    let [ours, envoy] = &targets[..] else {
        println!("{}", notice.unwrap_or_default());
        return Ok(0);
    };
    let next = AtomicU64::new(options.seed);
    let differing = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.seed.saturating_add(options.count) {
                        return;
                    }
                    match judge(options, seed, ours, envoy) {
                        Ok(true) => {}
                        Ok(false) => _ = differing.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let differing = differing.into_inner();
    println!("random {}: {} of {} seeds differ", options.area.name(), differing, options.count);
    Ok(differing)
}

/// What came of one case on both sides.
enum Verdict {
    /// Neither side starts with the configuration.
    BothRefuse(String),
    /// These differences.
    Compared(Vec<Difference>),
}

/// Runs one seed, prints what came of it, and says whether both sides agree.
fn judge(options: &Options, seed: u64, ours: &Target, envoy: &Target) -> Result<bool> {
    let Some(case) = options.area.case(seed, options.requests) else {
        return verdicts::judge(options, seed, ours, envoy);
    };
    let name = format!("random {} {seed}", options.area.name());
    if options.show {
        println!("{}", yaml(&case.value(options.only)));
    }
    let found = match once(options, &case, &name, ours, envoy)? {
        Verdict::BothRefuse(why) => {
            println!("seed {seed}: both refuse: {}", why.lines().last().unwrap_or_default());
            return Ok(true);
        }
        Verdict::Compared(found) if found.is_empty() => {
            println!("seed {seed}: equal");
            return Ok(true);
        }
        Verdict::Compared(found) => found,
    };
    // What is there only once is a matter of the moment, and no difference between the two.
    let again = match once(options, &case, &name, ours, envoy)? {
        Verdict::Compared(found) => found,
        Verdict::BothRefuse(_) => Vec::new(),
    };
    let (steady, unsteady): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| again.contains(one));
    let (accepted, left): (Vec<_>, Vec<_>) =
        steady.into_iter().partition(|one| accepted::reason(&one.text).is_some());
    let mut text = format!("seed {seed}: {} differences", left.len());
    if !unsteady.is_empty() {
        text.push_str(&format!(", {} that did not come again", unsteady.len()));
    }
    text.push('\n');
    for one in &accepted {
        text.push_str(&format!("  accepted: {}\n", accepted::reason(&one.text).unwrap_or_default()));
    }
    let mut last = None;
    for one in &left {
        if let Some(number) = one.request.filter(|number| last != Some(*number)) {
            last = Some(number);
            text.push_str(&format!("  request {number}: {}\n", case.title(number)));
            text.push_str(&format!(
                "    conformance random --area {} --seed {seed} --requests {} --only {number}\n",
                options.area.name(),
                options.requests
            ));
            if let Some(folder) = &options.write {
                write(folder, options.area, seed, number, &case)?;
            }
        }
        text.push_str(&format!("  - {}\n", one.text));
    }
    for one in unsteady.iter().take(ONCE_SHOWN) {
        let at = one.request.map(|number| format!("request {number} ")).unwrap_or_default();
        text.push_str(&format!("  (once) {at}{}\n", one.text.replace('\n', " ")));
    }
    print!("{text}");
    Ok(left.is_empty())
}

fn write(folder: &Path, area: Area, seed: u64, number: usize, case: &Case) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}_{seed}_{number}.yaml", area.name()));
    std::fs::write(&path, yaml(&case.value(Some(number)))).with_context(|| path.display().to_string())
}

/// Why a proxy does not start, without what belongs to the one run.
fn reason(text: &str) -> String {
    let quoted = text.split_once("error `").and_then(|(_, rest)| rest.split_once("` initializing config"));
    let ours = text.split_once("error initializing config '").and_then(|(_, rest)| rest.split_once("': "));
    let line = match (quoted, ours) {
        (Some((reason, _)), _) => reason,
        (None, Some((_, reason))) => reason.lines().next().unwrap_or_default(),
        (None, None) => text.lines().last().unwrap_or_default(),
    };
    line.trim().to_owned()
}

/// Runs both sides at the same time and compares.
fn once(options: &Options, case: &Case, name: &str, ours: &Target, envoy: &Target) -> Result<Verdict> {
    let scenario = case.scenario(name.to_owned(), options.only)?;
    let settings = run::Options::default();
    let (mine, theirs) = std::thread::scope(|scope| {
        let mine = scope.spawn(|| run::run_one(&scenario, ours, &settings));
        let theirs = run::run_one(&scenario, envoy, &settings);
        (mine.join(), theirs)
    });
    let mine = mine.map_err(|_| anyhow::anyhow!("{name}: the run of ours panicked"))?;
    let numbers: Vec<usize> = match options.only {
        Some(only) => vec![only],
        None => (0..case.requests.len()).collect(),
    };
    let text = |outcome: &Result<(Outcome, Vec<String>)>| match outcome {
        Ok(_) => "runs".to_owned(),
        Err(error) => reason(&format!("{error:#}")),
    };
    Ok(match (&mine, &theirs) {
        (Ok((mine, _)), Ok((theirs, _))) => Verdict::Compared(compare(case, &numbers, mine, theirs)),
        (Err(_), Err(why)) => Verdict::BothRefuse(format!("{why:#}")),
        _ => {
            let text = format!("verdict\n    ours:  {}\n    envoy: {}", text(&mine), text(&theirs));
            Verdict::Compared(vec![Difference { request: None, text }])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_is_the_same_in_every_run() {
        let text = "envoy ended with exit status: 1 at start: [2026-11-22 03:40:57.678][1][critical][main] [source/server/server.cc:449] \
                    error `No such command: X` initializing config 'goo.gle/debugonly /tmp/x/config.json'\nNo such command: X";
        assert_eq!(reason(text), "No such command: X");
        assert_eq!(reason("ours ended: 1\n no listener "), "no listener");
        let text = "dhow-proxy ended: 1: [2026-11-22 03:40:57.678][1][error][main] [x.rs:68] error initializing config '/tmp/x/config.json': a.b: no\nmore";
        assert_eq!(reason(text), "a.b: no");
    }
}
