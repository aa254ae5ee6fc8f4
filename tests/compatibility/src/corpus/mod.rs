//! Inputs with known answers, family by family.

mod accept;
mod route_check;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};

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

    fn print(&self, family: &str) {
        let Self { agreed, differs, unsupported, missing } = self;
        println!("{family}: {agreed} agreed, {differs} differ, {unsupported} unsupported");
        let mut missing: Vec<_> = missing.iter().collect();
        missing.sort_by_key(|(what, count)| (std::cmp::Reverse(**count), *what));
        for (what, count) in missing {
            println!("  {count:>4}  {what}");
        }
    }
}

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
    Ok(tallies.iter().all(|(_, tally)| tally.differs == 0))
}
