//! Complete bootstraps, each beside the verdict of the real Envoy.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use dhow_base::UNSUPPORTED;
use serde::Deserialize;

use super::{Corpus, Outcome, Tally};
use crate::Verdict;

/// What the real Envoy said.
#[derive(Debug, Deserialize)]
struct Expected {
    accepted: bool,
    error: String,
}

pub(super) fn run(corpus: &Corpus) -> Result<Tally> {
    let folder = corpus.folder.join("accept");
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    let mut tally = Tally::default();
    for path in cases {
        let answer = path.with_extension("json");
        let text = fs::read_to_string(&answer).with_context(|| answer.display().to_string())?;
        let expected: Expected = serde_json::from_str(&text).with_context(|| answer.display().to_string())?;
        let verdict = corpus.validator.file(&path)?;
        let case = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        tally.add(corpus, &case, compare(&expected, &verdict));
    }
    Ok(tally)
}

fn compare(expected: &Expected, verdict: &Verdict) -> Outcome {
    match (&verdict.error, expected.accepted) {
        (None, true) => Outcome::Agreed,
        (None, false) => Outcome::Differs(format!("accepted; Envoy says: {}", first_line(&expected.error))),
        (Some(error), accepted) => match unsupported(error) {
            Some(what) => Outcome::Unsupported(what),
            None if accepted => Outcome::Differs(format!("refused: {}", first_line(error))),
            None if kind(error) == kind(&expected.error) => Outcome::Agreed,
            None => Outcome::Differs(format!(
                "refused as {}: {}; Envoy as {}: {}",
                kind(error),
                first_line(error),
                kind(&expected.error),
                first_line(&expected.error)
            )),
        },
    }
}

/// The type or the field that is not supported, when that is why a bootstrap was refused.
fn unsupported(error: &str) -> Option<String> {
    if let Some((_, rest)) = error.split_once("Didn't find a registered") {
        let type_url = rest.split_once("type URL: '").and_then(|(_, url)| url.split_once('\''));
        let name = rest.split_once("name: '").and_then(|(_, name)| name.split_once('\''));
        let quoted = rest.split_once('\'').and_then(|(_, quoted)| quoted.split_once('\''));
        let named = |found: Option<(&str, &str)>| {
            found
                .map(|(what, _)| what.rsplit('/').next().unwrap_or(what).to_owned())
                .filter(|what| !what.is_empty())
        };
        return Some(
            named(type_url).or(named(name)).or(named(quoted)).unwrap_or_else(|| "an extension".into()),
        );
    }
    let (path, reason) = error.split_once(": ")?;
    if !reason.contains("not supported") {
        return None;
    }
    // The place in this file says nothing about other files: its last fields do.
    let field: Vec<&str> = path.rsplit('.').take(2).collect();
    let field: Vec<&str> = field
        .into_iter()
        .rev()
        .map(|part| part.split('[').next().unwrap_or(part).trim_end_matches(['"', ']']))
        .collect();
    Some(if reason.starts_with(UNSUPPORTED) {
        field.join(".")
    } else {
        format!("{}: {}", field.join("."), first_line(reason))
    })
}

/// What sort of thing is wrong, as far as the words tell.
fn kind(error: &str) -> &'static str {
    const KINDS: [(&str, &[&str]); 8] = [
        ("unknown extension", &["Didn't find a registered"]),
        ("unknown field", &["no such field", "has unknown fields", "Cannot find field", "unknown field"]),
        ("broken rule", &["constraint validation failed", "Proto constraint"]),
        ("missing file", &["unable to read file", "Invalid path", "does not exist", "No such file"]),
        ("unknown cluster", &["unknown cluster", "Unknown cluster"]),
        ("certificate", &["certificate", "private key"]),
        ("malformed", &["Unable to parse", "invalid JSON", "Unable to convert YAML"]),
        ("deprecated", &["deprecated"]),
    ];
    KINDS
        .iter()
        .find(|(_, marks)| marks.iter().any(|mark| error.contains(mark)))
        .map_or("another rule", |(kind, _)| kind)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Expected, Outcome, compare, unsupported};
    use crate::Verdict;

    fn refused(error: &str) -> Verdict {
        Verdict { error: Some(error.into()), warnings: Vec::new() }
    }

    #[test]
    fn what_is_unsupported_is_named_without_its_place() {
        assert_eq!(
            unsupported(
                "static_resources.clusters[0].lb_subset_config: this field is not supported: there is none"
            )
            .as_deref(),
            Some("clusters.lb_subset_config")
        );
        assert_eq!(
            unsupported("a[0]: Didn't find a registered implementation for 'envoy.filters.http.lua' with type URL: 'a.b.Lua'")
                .as_deref(),
            Some("a.b.Lua")
        );
        assert_eq!(
            unsupported(
                "c[0].options[\"a.b.Options\"].filters[0]: this field is not supported: there is none"
            )
            .as_deref(),
            Some("Options.filters")
        );
        assert_eq!(unsupported("a: value is required"), None);
    }

    #[test]
    fn a_refusal_agrees_only_with_a_refusal_of_its_kind() {
        let envoy = Expected { accepted: false, error: "Proto constraint validation failed (X)".into() };
        assert_eq!(compare(&envoy, &refused("x: Proto constraint validation failed (Y)")), Outcome::Agreed);
        assert!(matches!(compare(&envoy, &refused("x: no such field")), Outcome::Differs(_)));
        let accepted = Verdict { error: None, warnings: Vec::new() };
        assert!(matches!(compare(&envoy, &accepted), Outcome::Differs(_)));
    }
}
