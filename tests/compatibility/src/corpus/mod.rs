//! Inputs with known answers, family by family.

mod accept;
mod route_check;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::Validator;

/// A corpus and the programs that it is run against.
#[derive(Debug)]
pub struct Corpus {
    /// The folder.
    pub folder: PathBuf,
    /// The proxy.
    pub validator: Validator,
    /// The `dhow` binary.
    pub dhow: PathBuf,
    /// Print the cases that agree too.
    pub print_all: bool,
    /// Where to write the numbers as a page.
    pub page: Option<PathBuf>,
}

/// Runs the cases of one family.
type Family = fn(&Corpus) -> Result<Tally>;

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Agreed,
    /// Refused for what is not supported: a type or a field.
    Unsupported(String),
    Differs(String),
}

/// What came of a family of cases.
#[derive(Debug, Default)]
struct Tally {
    agreed: usize,
    differs: usize,
    unsupported: usize,
    /// How many cases each missing type or field stands in the way of.
    missing: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, corpus: &Corpus, case: &str, outcome: Outcome) {
        match outcome {
            Outcome::Agreed => {
                self.agreed += 1;
                if corpus.print_all {
                    println!("agreed       {case}");
                }
            }
            Outcome::Unsupported(what) => {
                self.unsupported += 1;
                if corpus.print_all {
                    println!("unsupported  {case}: {what}");
                }
                *self.missing.entry(what).or_default() += 1;
            }
            Outcome::Differs(how) => {
                self.differs += 1;
                println!("differs      {case}: {how}");
            }
        }
    }

    fn summary(&self) -> String {
        let Self { agreed, differs, unsupported, missing: _ } = self; // Listed apart.
        format!("{agreed} agreed, {differs} differ, {unsupported} unsupported")
    }

    /// What is missing, that which stands in the way of most cases first.
    fn missing(&self) -> Vec<(&str, usize)> {
        let mut missing: Vec<_> = self.missing.iter().map(|(what, count)| (what.as_str(), *count)).collect();
        missing.sort_by_key(|(what, count)| (std::cmp::Reverse(*count), *what));
        missing
    }

    fn print(&self, family: &str) {
        println!("{family}: {}", self.summary());
        for (what, count) in self.missing() {
            println!("  {count:>4}  {what}");
        }
    }

    fn page_section(&self, family: &str) -> String {
        let mut text = format!("\n## {family}\n\n{}.\n", self.summary());
        if !self.missing.is_empty() {
            text.push_str("\n| bootstraps | what they need |\n|---|---|\n");
        }
        for (what, count) in self.missing() {
            text.push_str(&format!("| {count} | `{what}` |\n"));
        }
        text
    }
}

const PAGE_HEAD: &str = "# Envoy's own configurations

Complete bootstraps from Envoy's documentation, configurations and examples, each with the verdict of Envoy 1.40, and the route tables
of its router check tool. Written by `cargo run -p dhow-compatibility -- corpus FOLDER --page docs/compatibility/corpus.md`; the folder is
not part of this repository. A bootstrap that needs what is not supported counts as unsupported, under the first such type or field.
";

/// Runs every family that the folder has; whether none of the cases differs.
///
/// # Errors
/// When the folder has no family in it, or a program cannot be run.
pub fn run(corpus: &Corpus) -> Result<bool> {
    let families: [(&str, Family); 2] = [("accept", accept::run), ("route-check", route_check::run)];
    let mut tallies = Vec::new();
    for (family, run) in families {
        if corpus.folder.join(family).is_dir() {
            tallies.push((family, run(corpus)?));
        }
    }
    if tallies.is_empty() {
        bail!("{}: there is neither accept/ nor route-check/ in it", corpus.folder.display());
    }
    for (family, tally) in &tallies {
        tally.print(family);
    }
    if let Some(page) = &corpus.page {
        let sections = tallies.iter().map(|(family, tally)| tally.page_section(family));
        let text = PAGE_HEAD.to_owned() + &sections.collect::<String>();
        fs::write(page, text).with_context(|| page.display().to_string())?;
    }
    Ok(tallies.iter().all(|(_, tally)| tally.differs == 0))
}
