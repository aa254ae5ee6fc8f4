//! What becomes of every field of every message in scope, found out by asking the proxy.

mod mend;
mod page;
mod place;
mod probes;
mod sample;
mod verdicts;
mod walk;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use dhow_base::UNSUPPORTED;
use dhow_proto::MessageType;
use dhow_testkit::TempDir;

use self::verdicts::Oracle;
use crate::Validator;

/// Where the page is, from the root of the repository.
pub const PAGE: &str = "docs/compatibility/envoy.md";

/// A message and what becomes of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    message: String,
    fields: Vec<FieldEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldEntry {
    name: String,
    deprecated: bool,
    status: Status,
    /// Values of an enum that are refused although the field is not.
    refused_values: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Status {
    /// Accepted without a word.
    Honoured,
    /// The sample was refused for its value, so the value is looked at.
    Checked(String),
    /// Accepted with a warning.
    Warned(String),
    /// Refused because it is not supported.
    Refused(String),
}

/// Asks the proxy about every field; `verbose` prints samples that were refused for their value.
///
/// # Errors
/// When the proxy cannot be run, or `probes.yaml` is wrong.
pub fn collect(validator: &Validator, verbose: bool) -> Result<Vec<Entry>> {
    let folder = TempDir::new("ledger")?;
    walk(validator, verbose, None, &probes::read(&folder)?)
}

/// Asks the proxy and Envoy about every field and prints where only one of them accepts a sample; with `words` also what
/// both refuse with different words, and what is not supported. Returns the fields, and whether every disagreement is one
/// that `probes.yaml` lists, and every one that it lists is still there.
///
/// # Errors
/// When one of the programs cannot be run, or `probes.yaml` is wrong.
pub fn verdicts(validator: &Validator, envoy: &Validator, words: bool) -> Result<(Vec<Entry>, bool)> {
    let oracle = Oracle::new(envoy);
    let folder = TempDir::new("ledger")?;
    let probes = probes::read(&folder)?;
    let entries = walk(validator, false, Some(&oracle), &probes)?;
    let found = oracle.into_found()?;
    let (disagree, other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(verdicts::Disagreement::is_about_the_verdict);
    let (known, new): (Vec<_>, Vec<_>) =
        disagree.iter().partition(|one| probes.verdicts.contains_key(one.label()));
    let stale = probes.verdicts.keys().filter(|label| !known.iter().any(|one| one.label() == label.as_str()));
    let stale: Vec<_> = stale.collect();
    new.iter().for_each(|one| println!("{one}"));
    stale.iter().for_each(|label| println!("{label}\n  listed in probes.yaml, but both agree"));
    if words {
        other.iter().for_each(|one| println!("{one}"));
    }
    let fields: usize = entries.iter().map(|entry| entry.fields.len()).sum();
    let unsupported = other.iter().filter(|one| one.is_unsupported()).count();
    println!(
        "{fields} fields of {} messages: {} samples that only one accepts ({} more are meant), {unsupported} not supported \
         here, {} refused by both with other words",
        entries.len(),
        new.len(),
        known.len(),
        other.len() - unsupported,
    );
    Ok((entries, new.is_empty() && stale.is_empty()))
}

fn walk(
    validator: &Validator,
    verbose: bool,
    oracle: Option<&Oracle<'_>>,
    probes: &probes::Probes,
) -> Result<Vec<Entry>> {
    let root =
        MessageType::find("envoy.config.bootstrap.v3.Bootstrap").ok_or_else(|| anyhow!("no Bootstrap"))?;
    walk::Walk { validator, probes, root, verbose, oracle }.run()
}

/// The fields that are refused without a word of why, by full name.
pub fn unexplained(entries: &[Entry]) -> Vec<String> {
    let fields = entries.iter().flat_map(|entry| entry.fields.iter().map(move |field| (entry, field)));
    fields
        .filter(|(_, field)| matches!(&field.status, Status::Refused(reason) if reason == UNSUPPORTED))
        .map(|(entry, field)| format!("{}.{}", entry.message, field.name))
        .collect()
}

/// Writes the page.
///
/// # Errors
/// When it cannot be written.
pub fn write(entries: &[Entry], path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, page::render(entries)).with_context(|| path.display().to_string())?;
    println!("{}: {}", path.display(), page::summary(entries));
    Ok(())
}

/// Whether the page says what the proxy says; prints the first lines that do not.
///
/// # Errors
/// When the page cannot be read.
pub fn check(entries: &[Entry], path: &Path) -> Result<bool> {
    let written = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let expected = page::render(entries);
    if written == expected {
        return Ok(true);
    }
    let (mut missing, mut stale) = (0, 0);
    for line in expected.lines().filter(|line| !written.contains(line)).take(20) {
        missing += 1;
        println!("+ {line}");
    }
    for line in written.lines().filter(|line| !expected.contains(line)).take(20) {
        stale += 1;
        println!("- {line}");
    }
    println!(
        "{}: not current ({missing} new, {stale} stale lines shown); write it with `cargo run -p dhow-compatibility -- ledger`",
        path.display()
    );
    Ok(false)
}
