//! The area `invalid`: what both proxies say in `--mode validate` to a configuration that was changed in one place.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::Area;
use super::driver::Options;
use super::generate::{self, Mutant};
use super::written::yaml;
use crate::accepted;
use crate::environment::Environment;
use crate::scenario::Scenario;
use crate::shorthand;
use crate::target::Target;
use crate::verdict::{self, Said, short};

/// Judges the mutants of one seed, prints what came of them, and says whether both sides agree about all.
pub fn judge(options: &Options, seed: u64, ours: &Target, envoy: &Target) -> Result<bool> {
    let mut fields = generate::bootstrap(seed);
    fields["validate"] = json!({ "exit": 0 });
    let scenario: Scenario = serde_json::from_value(fields).context("a generated scenario")?;
    let environment = Environment::new(&scenario)?;
    let base = environment.resolve_all(&shorthand::bootstrap(&scenario))?;
    let first = Mutant { title: "as it is".to_owned(), value: base.clone() };
    let mut text = String::new();
    let (mut differing, mut refused) = (0, 0);
    let numbers = match options.only {
        Some(only) => only..only + 1,
        None => 0..options.requests,
    };
    for number in numbers {
        // The first is the configuration itself: both have to accept it.
        let mutant = if number == 0 { first.clone() } else { generate::mutant(seed, number, &base) };
        if options.show {
            println!("{}", serde_json::to_string_pretty(&mutant.value)?);
        }
        let (mine, theirs) = verdict::both(&environment, &mutant.value, ours, envoy)?;
        refused += usize::from(theirs.is_some());
        let Some(found) = verdict::difference(&mine, &theirs) else { continue };
        if accepted::reason(&found).is_some() {
            continue;
        }
        differing += 1;
        let (area, requests) = (options.area.name(), options.requests);
        text.push_str(&format!(
            "  mutant {number}: {}\n    conformance random --area {area} --seed {seed} --requests {requests} --only {number}\n  - {}\n",
            short(&mutant.title), found
        ));
        if let Some(folder) = &options.write {
            write(folder, options.area, seed, number, &mutant, theirs)?;
        }
    }
    println!("seed {seed}: {refused} refused, {differing} differences\n{text}");
    Ok(differing == 0)
}

fn write(folder: &Path, area: Area, seed: u64, number: usize, mutant: &Mutant, theirs: Said) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}_{seed}_{number}.yaml", area.name()));
    let validate =
        json!({ "exit": i32::from(theirs.is_some()), "says": theirs.into_iter().collect::<Vec<_>>() });
    let scenario = json!({ "about": mutant.title, "bootstrap": mutant.value, "validate": validate });
    std::fs::write(&path, yaml(&scenario)).with_context(|| path.display().to_string())
}
