//! Agreement with Istio over the corpus that `DHOW_ISTIO_CORPUS` points to; nothing happens without it.

use std::path::{Path, PathBuf};

use dhow_control_generate::{generate, proxy_of_node};
use dhow_control_sources::Severity;
use serde_json::Value;

use super::{Folder, NODE, node, snapshot};

/// The folder of a family, when there is a corpus.
fn family(name: &str) -> Option<PathBuf> {
    let Some(corpus) = std::env::var_os("DHOW_ISTIO_CORPUS") else {
        println!("DHOW_ISTIO_CORPUS is not set: nothing was compared");
        return None;
    };
    Some(PathBuf::from(corpus).join(name))
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

/// A folder with that one file.
fn alone(file: &Path) -> Folder {
    let folder = Folder::new();
    std::fs::copy(file, folder.0.join("it.yaml")).unwrap();
    folder
}

#[test]
fn samples_load_and_generate_for_sidecars_and_gateways() {
    let Some(folder) = family("samples") else { return };
    let router =
        NODE.replace("sidecar~", "router~").replace(r#""app": "web""#, r#""istio": "ingressgateway""#);
    let direct = NODE
        .replace(r#""NAMESPACE""#, r#""INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007", "NAMESPACE""#);
    let files = yaml_files(&folder);
    let mut failed = Vec::new();
    for file in &files {
        let snapshot = snapshot(&alone(file).0);
        let errors: Vec<String> = snapshot
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        if !errors.is_empty() {
            failed.push(format!("{}: {errors:?}", file.display()));
        }
        for node_text in [NODE, &router, &direct] {
            let generated = generate(&snapshot.push, &proxy_of_node(&node(node_text)).unwrap());
            assert!(!generated.clusters.is_empty());
        }
    }
    println!("samples: {} of {} load and generate", files.len() - failed.len(), files.len());
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn validation_agrees_on_the_kinds_that_are_read() {
    let Some(folder) = family("validate") else { return };
    let (mut agreed, mut compared, mut differing) = (0, 0, Vec::new());
    for file in yaml_files(&folder) {
        let expected: Value =
            serde_json::from_slice(&std::fs::read(file.with_extension("json")).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let read = ["virtualservice", "destinationrule", "gateway", "serviceentry", "workloadentry"];
        if !read.iter().any(|kind| name.starts_with(&format!("{kind}-"))) {
            continue;
        }
        compared += 1;
        let snapshot = snapshot(&alone(&file).0);
        let valid = !snapshot.problems.iter().any(|problem| problem.severity == Severity::Error);
        if Value::Bool(valid) == expected["valid"] {
            agreed += 1;
        } else {
            differing.push(format!(
                "{name}: {:?}",
                snapshot.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
            ));
        }
    }
    println!("validate: {agreed} of {compared} agree");
    assert!(differing.is_empty(), "{differing:#?}");
}
