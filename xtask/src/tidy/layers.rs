//! Who may depend on whom: the first folder of a crate is its layer.

use super::Repository;
use crate::workspace::{Dependency, Package};

/// For each layer, the layers it may use. Test support may be used anywhere as a dev-dependency.
const ALLOWED: &[(&str, &[&str])] = &[
    ("core", &["core"]),
    ("proxy", &["proxy", "core"]),
    ("control", &["control", "core"]),
    ("node", &["node", "core"]),
    ("ops", &["ops", "core"]),
    ("apps", &["proxy", "control", "node", "ops", "core", "samples"]),
    ("samples", &["core"]),
    ("tests", &["tests", "core"]),
    ("xtask", &["tests"]),
];

/// Registry crates that exactly one of our crates may use, and which.
const SINGLE_IMPORTER: &[(&str, &str)] = &[
    ("rustls", "core/tls"),
    ("tokio-rustls", "core/tls"),
    ("rcgen", "core/tls"),
    ("h2", "core/http"),
    ("envoy-types", "core/proto"),
    ("hickory-resolver", "proxy/upstream"),
    ("saphyr-parser", "core/yaml"),
];

/// Checks the direction of every dependency between members.
pub fn check(repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &repository.workspace.packages {
        for dependency in &package.dependencies {
            if let Some(folder) = &dependency.folder
                && let Some(why) = refusal(package, dependency, folder)
            {
                faults.push(format!("{} must not depend on {folder}: {why}", package.folder));
            }
        }
    }
    faults
}

fn layer(folder: &str) -> &str {
    folder.split('/').next().unwrap_or_default()
}

fn refusal(package: &Package, dependency: &Dependency, folder: &str) -> Option<String> {
    let (from, to) = (layer(&package.folder), layer(folder));
    if to == "tests" && dependency.kind.as_deref() == Some("dev") {
        return None;
    }
    // Filters see what is offered to them, never how the data plane offers it.
    if package.folder == "proxy/filters" && from == to && folder != "proxy/api" {
        return Some("filters see proxy/api and core".to_owned());
    }
    match ALLOWED.iter().find(|(name, _)| *name == from) {
        None => Some(format!("`{from}` is not a layer")),
        Some((_, allowed)) if allowed.contains(&to) => None,
        Some((_, allowed)) => Some(format!("{from} may use {}", allowed.join(", "))),
    }
}

/// Checks that the heavy crates are wrapped by the one crate that is meant to. Tests may play the other side with them.
pub fn check_single_importers(repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &repository.workspace.packages {
        if layer(&package.folder) == "tests" {
            continue;
        }
        for dependency in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
            for (name, owner) in SINGLE_IMPORTER {
                if dependency.name == *name && package.folder != *owner {
                    faults.push(format!("{} must not use {name}: only {owner} does", package.folder));
                }
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(from: &str, to: &str, kind: Option<&str>) -> bool {
        let package = Package { name: String::new(), folder: from.to_owned(), dependencies: Vec::new() };
        let dependency =
            Dependency { name: String::new(), kind: kind.map(str::to_owned), folder: Some(to.to_owned()) };
        refusal(&package, &dependency, to).is_some()
    }

    #[test]
    fn the_planes_never_see_each_other_and_core_sees_nobody() {
        assert!(refused("proxy/http", "control/model", None));
        assert!(refused("control/server", "proxy/api", None));
        assert!(refused("core/base", "proxy/api", None));
        assert!(refused("ops/cli", "control/model", None));
        assert!(!refused("apps/dhow", "control/server", None));
        assert!(!refused("proxy/http", "core/http", None));
    }

    #[test]
    fn filters_see_only_what_is_offered_to_them() {
        assert!(refused("proxy/filters", "proxy/http", None));
        assert!(!refused("proxy/filters", "proxy/api", None));
    }

    #[test]
    fn test_support_is_for_tests() {
        assert!(refused("core/http", "tests/testkit", None));
        assert!(!refused("core/http", "tests/testkit", Some("dev")));
    }
}
