//! `docs/dependencies.md` lists exactly the registry crates that are used.

use std::collections::BTreeSet;

use super::Repository;

/// The list.
const FILE: &str = "docs/dependencies.md";

/// Checks both directions.
pub fn check(repository: &Repository) -> Vec<String> {
    let packages = &repository.workspace.packages;
    let used: BTreeSet<&str> = packages
        .iter()
        .flat_map(|p| &p.dependencies)
        .filter(|d| d.folder.is_none())
        .map(|d| d.name.as_str())
        .collect();
    let listed: BTreeSet<String> = repository.text(FILE).lines().filter_map(row).collect();
    let mut faults = Vec::new();
    for name in &used {
        if !listed.contains(*name) {
            faults.push(format!("{FILE}: `{name}` is used but has no row"));
        }
    }
    for name in &listed {
        if !used.contains(name.as_str()) {
            faults.push(format!("{FILE}: `{name}` has a row but is not used"));
        }
    }
    faults
}

/// The crate that a table row is about.
fn row(line: &str) -> Option<String> {
    let cell = line.strip_prefix('|')?.split('|').next()?.trim().trim_matches('`');
    let is_name = !cell.is_empty() && cell != "crate" && !cell.starts_with('-');
    is_name.then(|| cell.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_crates_and_the_head_does_not() {
        assert_eq!(row("| `tokio` | | runtimes | mio |").as_deref(), Some("tokio"));
        assert_eq!(row("| serde | | x | y |").as_deref(), Some("serde"));
        assert_eq!(row("| crate | wrapped by |"), None);
        assert_eq!(row("|---|---|"), None);
        assert_eq!(row("text"), None);
    }
}
