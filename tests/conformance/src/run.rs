//! Runs scenarios, several at a time, and prints a line for each.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dhow_testkit::envoy;

use crate::ads::AdsFacts;
use crate::environment::Environment;
use crate::outcome::{Outcome, StepOutcome};
use crate::report::differences;
use crate::scenario::{AllStats, Scenario, Validate};
use crate::scenario_folder;
use crate::target::{Kind, Target};
use crate::traffic::{Traffic, settled, settled_under};

/// How long a target may take to end after SIGTERM, before it is killed and the run goes on.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long the subscriptions of a target have to stay the same to count as final.
const QUIET: Duration = Duration::from_millis(150);

/// Which programs to run the scenarios against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Targets {
    /// Only our proxy: expectations alone.
    Ours,
    /// Only the real Envoy: shows that the expectations are true.
    Envoy,
    /// Both, and compare.
    #[default]
    Both,
}

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Against what.
    pub targets: Targets,
    /// Only scenarios whose `area/name` contains this.
    pub filter: Option<String>,
    /// Our proxy's binary.
    pub ours: Option<PathBuf>,
    /// The real Envoy's binary instead of the one that is found or installed.
    pub envoy: Option<PathBuf>,
    /// How many scenarios run at a time; 0 chooses.
    pub jobs: usize,
    /// Where the scenarios are; the folder of this repository when absent.
    pub folder: Option<PathBuf>,
    /// Compare these statistics as a whole where a scenario does not say which.
    pub all_stats: Option<AllStats>,
    /// Print the recorded outcome of each scenario as JSON.
    pub show_outcomes: bool,
}

/// Of how many scenarios one may fail among others and is run again alone: what depends on the moment on a crowded machine is
/// not a difference of behaviour, but many such cases are a defect of the proxy or of the scenarios.
const STEADY: usize = 100;

/// What came of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Scenarios that hold, among others or alone.
    pub passed: usize,
    /// Scenarios that do not.
    pub failed: usize,
}

impl Summary {
    /// How many scenarios ran.
    pub fn total(&self) -> usize {
        self.passed + self.failed
    }
}

/// The targets of a run, and a line to print when one that was asked for is missing.
pub(crate) fn targets(options: &Options) -> Result<(Vec<Target>, Option<String>)> {
    let mut targets = Vec::new();
    let mut notice = None;
    if options.targets != Targets::Envoy {
        let ours = options.ours.clone().context("the path of dhow-proxy is needed (--ours)")?;
        anyhow::ensure!(ours.is_file(), "{} is not a file", ours.display());
        targets.push(Target { kind: Kind::Ours, binary: ours.canonicalize()? });
    }
    if options.targets != Targets::Ours {
        let found = match &options.envoy {
            Some(path) => Ok(path.clone()),
            None => envoy::locate(),
        };
        match found {
            Ok(path) => targets.push(Target { kind: Kind::Envoy, binary: path.canonicalize()? }),
            Err(error) if options.targets == Targets::Both => {
                notice = Some(format!("NOT COMPARED WITH ENVOY: {error}"));
            }
            Err(error) => bail!("{error}"),
        }
    }
    Ok((targets, notice))
}

/// Runs the scenarios that `options` choose, printing as it goes.
pub fn run(options: &Options) -> Result<Summary> {
    let start = Instant::now();
    let folder = options.folder.clone().unwrap_or_else(scenario_folder);
    let scenarios = Scenario::read_matching(&folder, options.filter.as_deref().unwrap_or_default())?;
    let (targets, notice) = targets(options)?;
    if let Some(notice) = &notice {
        println!("{notice}");
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let jobs = if options.jobs == 0 { cores * 2 } else { options.jobs };
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(scenarios.len()) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = judge(scenario, &targets, options);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    print_verdict(scenario, &verdict);
                    if !verdict.problems.is_empty() {
                        failed.push(scenario);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let few = jobs > 1 && failed.len() <= scenarios.len() / STEADY;
    let unsteady = if few { run_alone(&failed, &targets, options) } else { Vec::new() };
    let summary = Summary {
        passed: scenarios.len() - failed.len() + unsteady.len(),
        failed: failed.len() - unsteady.len(),
    };
    let names: Vec<String> = targets.iter().map(|t| t.kind.to_string()).collect();
    println!(
        "\nconformance ({}): {} passed, {} failed in {:.1} s",
        names.join(" and "),
        summary.passed,
        summary.failed,
        start.elapsed().as_secs_f64()
    );
    if !unsteady.is_empty() {
        println!("UNSTEADY, held only when run alone: {}", unsteady.join(", "));
    }
    if let Some(notice) = notice {
        println!("{notice}");
    }
    Ok(summary)
}

/// Runs scenarios that failed again, one after the other with nothing beside them, and returns the names of those that hold.
fn run_alone<'a>(failed: &[&'a Scenario], targets: &[Target], options: &Options) -> Vec<&'a str> {
    let mut held = Vec::new();
    for scenario in failed {
        println!("again, alone:");
        let verdict = judge(scenario, targets, options);
        print_verdict(scenario, &verdict);
        if verdict.problems.is_empty() {
            held.push(scenario.name.as_str());
        }
    }
    held
}

struct Verdict {
    problems: Vec<String>,
    outcomes: Vec<String>,
    took: Duration,
}

fn print_verdict(scenario: &Scenario, verdict: &Verdict) {
    let mark = if verdict.problems.is_empty() { "ok  " } else { "FAIL" };
    let note = scenario.differs.as_ref().map(|why| format!(" (differs: {why})")).unwrap_or_default();
    println!("{mark} {} {:.1}s{note}", scenario.name, verdict.took.as_secs_f64());
    if !verdict.problems.is_empty() {
        println!("     {}", scenario.about);
    }
    for problem in &verdict.problems {
        println!("   - {}", problem.replace('\n', "\n  "));
    }
    for outcome in &verdict.outcomes {
        println!("{outcome}");
    }
}

/// Runs one scenario against each target and compares.
fn judge(scenario: &Scenario, targets: &[Target], options: &Options) -> Verdict {
    let start = Instant::now();
    let mut problems = Vec::new();
    let mut shown = Vec::new();
    let mut ours = None;
    let mut envoy = None;
    let mut envoy_refuses = false;
    for target in targets {
        // Expectations of a scenario that differs on purpose describe ours.
        let expects = scenario.differs.is_none() || target.kind == Kind::Ours;
        match run_one(scenario, target, options) {
            Ok((outcome, faults)) => {
                if expects {
                    problems.extend(faults.into_iter().map(|fault| format!("{}: {fault}", target.kind)));
                }
                if options.show_outcomes {
                    let json = serde_json::to_string_pretty(&outcome).unwrap_or_default();
                    shown.push(format!("{}: {json}\n{}", target.kind, outcome.log));
                }
                match target.kind {
                    Kind::Ours => ours = Some(outcome),
                    Kind::Envoy => envoy = Some(outcome),
                }
            }
            Err(error) if expects => problems.push(format!("{}: {error:#}", target.kind)),
            Err(_) => envoy_refuses = true,
        }
    }
    if let (Some(ours), Some(envoy)) = (&mut ours, &mut envoy) {
        problems.extend(take_differing_steps(ours, envoy));
        let lines = differences(ours, envoy, scenario.header_order);
        match &scenario.differs {
            None => problems.extend(lines),
            Some(_) if lines.is_empty() => {
                problems.push("the difference is gone: remove `differs`".to_owned())
            }
            Some(_) => {}
        }
    } else if scenario.differs.is_some() && !envoy_refuses && targets.len() == 2 && ours.is_some() {
        problems.push("no outcome of Envoy to differ from".to_owned());
    }
    Verdict { problems, outcomes: shown, took: start.elapsed() }
}

/// Takes the steps that may differ out of both outcomes; a line for each that does not differ any more.
fn take_differing_steps(ours: &mut Outcome, envoy: &mut Outcome) -> Vec<String> {
    let text = |step: &StepOutcome| serde_json::to_string(step).unwrap_or_default();
    let pairs = ours.steps.iter().zip(&envoy.steps).filter(|(step, _)| step.differs.is_some());
    let same = pairs.filter(|(a, b)| text(a) == text(b));
    let lines =
        same.map(|(step, _)| format!("[{}]: the difference is gone: remove `differs`", step.step)).collect();
    ours.steps.retain(|step| step.differs.is_none());
    envoy.steps.retain(|step| step.differs.is_none());
    lines
}

/// Runs `scenario` against one target: what happened, and which expectations it does not meet.
pub(crate) fn run_one(
    scenario: &Scenario,
    target: &Target,
    options: &Options,
) -> Result<(Outcome, Vec<String>)> {
    let environment = Arc::new(Environment::new(scenario)?);
    if let Some(validate) = &scenario.validate {
        return run_validate(scenario, validate, target, &environment);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_traffic(scenario, target, environment, options))
}

fn run_validate(
    scenario: &Scenario,
    validate: &Validate,
    target: &Target,
    environment: &Environment,
) -> Result<(Outcome, Vec<String>)> {
    let (exit, log) = target.validate(environment, scenario)?;
    let mut faults = missing_texts(&environment.normaliser().text(&log), &validate.says, "output");
    if exit != Some(validate.exit) {
        faults.push(format!(
            "exit code: expected {}, found {exit:?}; output:\n{}",
            validate.exit,
            log.trim_end()
        ));
    }
    Ok((Outcome { exit, log, ..Outcome::default() }, faults))
}

/// A line for each wanted text that is not there. How many spaces are between words does not count: the library that reads
/// Envoy's configuration varies them on purpose, so that nobody relies on its messages.
fn missing_texts(text: &str, wanted: &[String], what: &str) -> Vec<String> {
    let spaced = |text: &str| -> String {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>().join("\n")
    };
    let found = spaced(text);
    let missing = wanted.iter().filter(|part| !found.contains(&spaced(part)));
    missing.map(|part| format!("{what} does not contain {part:?}:\n{}", text.trim_end())).collect()
}

async fn run_traffic(
    scenario: &Scenario,
    target: &Target,
    environment: Arc<Environment>,
    options: &Options,
) -> Result<(Outcome, Vec<String>)> {
    let mut child = target.serve(&environment, scenario).await?;
    let mut outcome = Outcome::default();
    let mut faults = Vec::new();
    let mut traffic = Traffic::new(Arc::clone(&environment), target.kind);
    for (number, step) in scenario.steps.iter().enumerate() {
        let title = format!("step {} ({})", number + 1, step.title());
        let result = traffic.step(step).await;
        if step.ends {
            let status =
                child.wait(STOP_LIMIT).with_context(|| format!("{title}: {} does not end", target.kind))?;
            outcome.exit = status.code();
        }
        let result = match child.exited() {
            Some(status) if !(step.ends && status.success()) => {
                Err(anyhow::anyhow!("{} ended with {status}:\n{}", target.kind, child.log()))
            }
            _ => result,
        };
        let (recorded, step_faults) = result.with_context(|| title.clone())?;
        outcome.steps.extend(recorded);
        faults.extend(step_faults.into_iter().map(|fault| format!("{title}: {fault}")));
    }
    // Closing the client's connections first lets the statistics and the access log reach their final state.
    drop(traffic);
    if !scenario.stats.is_empty() && child.exited().is_none() {
        let (stats, stat_faults) = settled(&environment, &scenario.stats).await?;
        outcome.stats = stats;
        faults.extend(stat_faults);
    }
    let all_stats = scenario.all_stats.as_ref().or(options.all_stats.as_ref());
    if let Some(all) = all_stats.filter(|_| scenario.differs.is_none() && child.exited().is_none()) {
        outcome.all_stats = settled_under(&environment, all).await?;
    }
    outcome.ads = settled_facts(&environment).await;
    child.terminate(STOP_LIMIT).with_context(|| format!("{} does not end after SIGTERM", target.kind))?;
    let normaliser = environment.normaliser();
    outcome.log = normaliser.text(&child.log());
    faults.extend(missing_texts(&outcome.log, &scenario.log, "log"));
    outcome.access_log = read_lines(&environment.dir().join("access.log"))
        .map(|lines| lines.iter().map(|line| normaliser.log_line(line)).collect());
    if let Some(wanted) = &scenario.access_log
        && outcome.access_log.as_ref() != Some(wanted)
    {
        let found = outcome.access_log.clone().unwrap_or_default().join("\n");
        faults.push(format!("access log: expected\n{}\nfound\n{found}", wanted.join("\n")));
    }
    Ok((outcome, faults))
}

/// What the target asked of the management server, once it has stopped changing.
async fn settled_facts(environment: &Environment) -> Option<AdsFacts> {
    let mut last = environment.ads_facts()?;
    let start = Instant::now();
    loop {
        tokio::time::sleep(QUIET).await;
        let next = environment.ads_facts()?;
        if next == last || start.elapsed() > STOP_LIMIT {
            return Some(next);
        }
        last = next;
    }
}

fn read_lines(path: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}
