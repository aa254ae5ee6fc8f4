//! Asking both proxies by a list of values: one configuration, changed in one place after the other, and whether both say and do
//! the same each time.
//!
//! Where a scenario shows one behaviour, a question finds out how a field behaves over all values that somebody could write: the
//! verdict and its reason in `--mode validate` first, and, where both accept and there are `steps`, everything that a scenario
//! compares.

mod change;
mod question;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::environment::Environment;
use crate::report::differences;
use crate::run::{self, Targets};
use crate::scenario::{self, AllStats, Scenario};
use crate::target::Target;
use crate::{accepted, question_folder, shorthand, verdict};

use self::question::{Question, Variant};

/// What to ask.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files with questions, instead of those of this repository.
    pub files: Vec<PathBuf>,
    /// Only questions whose name contains this, of those of this repository.
    pub filter: Option<String>,
    /// Print what both agree about, too.
    pub all: bool,
    /// How many variants at a time; 0 takes as many as there are cores.
    pub jobs: usize,
    /// Our proxy's binary.
    pub ours: PathBuf,
    /// The real Envoy's binary instead of the one that is found or installed.
    pub envoy: Option<PathBuf>,
}

/// How many differences of one variant are printed; the first tell most.
const SHOWN: usize = 6;

/// How often a difference has to come again, with nothing beside it, to count.
const CONFIRMED: usize = 2;

/// What came of a variant.
enum Answer {
    /// Both refuse it, for this reason.
    Refused(String),
    /// Both accept it, and do the same where something was sent.
    Same,
    /// They differ so.
    Differs(Vec<String>),
}

/// Asks what `options` choose, prints a line for each question and what differs, and returns how many variants differ. When the
/// real Envoy cannot be had it says so and asks nothing.
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
    let start = Instant::now();
    let (mut asked, mut differing) = (0, 0);
    for question in questions(options)? {
        let variants = question.variants()?;
        let mut answers = answers(options, &question, &variants, ours, envoy)?;
        for (variant, answer) in variants.iter().zip(&mut answers) {
            confirm(answer, &question, variant, ours, envoy)?;
        }
        let text = text(options, &question, &variants, &answers);
        let count = answers.iter().filter(|answer| matches!(answer, Answer::Differs(_))).count();
        let stale = question.unused_excuses();
        println!("{}: {} variants, {} differ\n{text}", question.name, variants.len(), count + stale.len());
        for excuse in &stale {
            println!("  the difference is gone: remove {excuse:?} from `except`");
        }
        asked += variants.len();
        differing += count + stale.len();
    }
    println!("asked {asked} variants in {:.1} s: {differing} differ", start.elapsed().as_secs_f64());
    Ok(differing)
}

fn questions(options: &Options) -> Result<Vec<Question>> {
    if !options.files.is_empty() {
        return options.files.iter().map(|path| Question::read(&path.display().to_string(), path)).collect();
    }
    let root = question_folder();
    let filter = options.filter.as_deref().unwrap_or_default();
    let named = scenario::files(&root)?.into_iter().map(|path| (scenario::name_of(&root, &path), path));
    named.filter(|(name, _)| name.contains(filter)).map(|(name, path)| Question::read(&name, &path)).collect()
}

fn answers(
    options: &Options,
    question: &Question,
    variants: &[Variant],
    ours: &Target,
    envoy: &Target,
) -> Result<Vec<Answer>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let jobs = if options.jobs == 0 { cores } else { options.jobs };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(variant) = variants.get(at) else { return };
                    let answer =
                        answer(question, variant, ours, envoy).with_context(|| variant.title.clone());
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((at, answer));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, answer)| answer).collect()
}

/// Asks again about a difference, alone: what depends on the moment on a crowded machine is not one.
fn confirm(
    answer: &mut Answer,
    question: &Question,
    variant: &Variant,
    ours: &Target,
    envoy: &Target,
) -> Result<()> {
    for _ in 0..CONFIRMED {
        if !matches!(answer, Answer::Differs(_)) {
            return Ok(());
        }
        *answer = self::answer(question, variant, ours, envoy).with_context(|| variant.title.clone())?;
    }
    Ok(())
}

fn answer(question: &Question, variant: &Variant, ours: &Target, envoy: &Target) -> Result<Answer> {
    let excused = |lines: Vec<String>| match lines.is_empty() || question.excuses(&lines) {
        true => Answer::Same,
        false => Answer::Differs(lines),
    };
    let environment = Environment::new(&variant.scenario)?;
    let value = environment.resolve_all(&whole(&variant.scenario)?)?;
    let (mine, theirs) = verdict::both(&environment, &value, ours, envoy)?;
    if let Some(difference) = verdict::difference(&mine, &theirs)
        && accepted::reason(&difference).is_none()
    {
        return Ok(excused(vec![difference]));
    }
    drop(environment);
    if let Some(why) = theirs {
        return Ok(Answer::Refused(why));
    }
    if variant.scenario.steps.is_empty() {
        return Ok(Answer::Same);
    }
    let found = served(&variant.scenario, ours, envoy)?;
    if found.is_empty() {
        return Ok(Answer::Same);
    }
    // What is there only once is a matter of the moment, and no difference between the two.
    let again = served(&variant.scenario, ours, envoy)?;
    Ok(excused(found.into_iter().filter(|line| again.contains(line)).collect()))
}

/// The bootstrap of a scenario, with its placeholders.
fn whole(scenario: &Scenario) -> Result<Value> {
    match &scenario.bootstrap_text {
        Some(text) => serde_saphyr::from_str(text).context("`bootstrap_text`"),
        None => Ok(shorthand::bootstrap(scenario)),
    }
}

/// What is compared of statistics. Those of the admin interface are not: asking changes them.
const COMPARED: [&str; 9] = [
    "cluster.",
    "http.ingress",
    "listener.0.",
    "listener.127.",
    "listener.[",
    "listener./",
    "tcp.",
    "vhost.",
    "runtime.",
];

/// What differs in how both serve the scenario, expectations of it included.
fn served(scenario: &Scenario, ours: &Target, envoy: &Target) -> Result<Vec<String>> {
    let everything = AllStats { of: COMPARED.map(str::to_owned).to_vec(), ..AllStats::default() };
    let options = run::Options { all_stats: Some(everything), ..run::Options::default() };
    let one = |target: &Target| match run::run_one(scenario, target, &options) {
        Ok((outcome, faults)) => (Some(outcome), faults),
        Err(error) => (None, vec![format!("{error:#}")]),
    };
    let ((mine, my_faults), (theirs, their_faults)) = (one(ours), one(envoy));
    Ok(match (mine, theirs) {
        (Some(mine), Some(theirs)) => {
            let mut lines = differences(&mine, &theirs, true);
            // How often the interface was asked until the figures stood still depends on time.
            lines.retain(|line| !line.starts_with("all_stats / listener.admin."));
            lines.extend(their_faults.into_iter().map(|fault| format!("expectation, at Envoy: {fault}")));
            lines
        }
        (None, None) => Vec::new(),
        (None, Some(_)) => vec![format!("ours fails: {}", my_faults.join("; "))],
        (Some(_), None) => vec![format!("Envoy fails: {}", their_faults.join("; "))],
    })
}

fn text(options: &Options, question: &Question, variants: &[Variant], answers: &[Answer]) -> String {
    let mut text = String::new();
    for (variant, answer) in variants.iter().zip(answers) {
        match answer {
            Answer::Differs(lines) => {
                text.push_str(&format!("  {}\n", variant.title));
                let shown = if options.all { lines.len() } else { SHOWN };
                for line in lines.iter().take(shown) {
                    text.push_str(&format!("  - {}\n", line.replace('\n', "\n  ")));
                }
                if lines.len() > shown {
                    text.push_str(&format!("  - and {} more (--all)\n", lines.len() - shown));
                }
            }
            Answer::Refused(why) if options.all => {
                text.push_str(&format!("  same: {}: refused: {}\n", variant.title, verdict::short(why)));
            }
            Answer::Same if options.all => {
                let how = if question.sends() { "served" } else { "accepted" };
                text.push_str(&format!("  same: {}: {how}\n", variant.title));
            }
            Answer::Refused(_) | Answer::Same => {}
        }
    }
    text
}
