//! Complete bootstraps with the verdict of the real Envoy, when the folder is at hand.
//!
//! `DHOW_ENVOY_CORPUS` names a folder of `NAME.yaml` with `NAME.json` (`{"accepted": bool, "error": text}`). Only what
//! this crate decides is compared: text that does not parse, unknown fields and types, broken rules.

use std::path::{Path, PathBuf};

use dhow_proto::envoy::config::bootstrap::v3::Bootstrap;
use dhow_proto::{LoadOptions, load_yaml};

/// Parts of Envoy's messages for what this crate has to find, too.
const OURS: &[&str] = &[
    "has unknown fields",
    "Unable to parse JSON as proto",
    "Proto constraint validation failed",
    "Unable to convert YAML as JSON",
    "Invalid duration",
    "yaml-cpp",
];

#[test]
fn the_verdicts_agree_with_those_of_envoy() {
    let Some(folder) = std::env::var_os("DHOW_ENVOY_CORPUS").map(PathBuf::from) else {
        println!("skipped: DHOW_ENVOY_CORPUS is not set");
        return;
    };
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder can be read")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    let mut disagreements = 0;
    for case in &cases {
        if let Some(disagreement) = compare(case) {
            disagreements += 1;
            println!("{}: {disagreement}", case.file_name().unwrap_or_default().to_string_lossy());
        }
    }
    println!("{} bootstraps, {disagreements} disagreements", cases.len());
    assert!(!cases.is_empty(), "the folder holds no case");
    assert_eq!(disagreements, 0);
}

fn compare(case: &Path) -> Option<String> {
    let text = std::fs::read_to_string(case).expect("readable");
    let verdict = std::fs::read_to_string(case.with_extension("json")).expect("each case has a verdict");
    let verdict: serde_json::Value = serde_json::from_str(&verdict).expect("verdicts are JSON");
    let accepted = verdict["accepted"].as_bool().expect("a verdict says whether it was accepted");
    let error = verdict["error"].as_str().unwrap_or_default();
    let outcome = load_yaml::<Bootstrap>(&text, &LoadOptions::default());
    match (outcome, accepted) {
        (Err(ours), true) => Some(format!("Envoy accepts it, we do not: {ours}")),
        (Ok(_), false) if OURS.iter().any(|part| error.contains(part)) => {
            Some(format!("we accept it, Envoy does not: {error}"))
        }
        (Err(ours), false) if !OURS.iter().any(|part| error.contains(part)) => {
            Some(format!("Envoy finds this: {error}\n  and we find: {ours}"))
        }
        _ => None,
    }
}
