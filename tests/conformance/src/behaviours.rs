//! Checks `docs/compatibility/behaviours.md`: the page that says which scenario proves which behaviour.

use std::path::Path;

use crate::scenario_folder;

/// What a row may say instead of naming a scenario.
const WITHOUT_SCENARIO: [&str; 4] = ["refused", "differs: ", "elsewhere: ", "tests: "];

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility/behaviours.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The line number and the last cell of every row below a table's head.
fn proofs(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_body = false;
    for (at, line) in page.lines().enumerate() {
        if !line.starts_with('|') {
            in_body = false;
        } else if line.starts_with("|---") {
            in_body = true;
        } else if in_body {
            let cells: Vec<&str> = line.trim_end().trim_matches('|').split(" | ").map(str::trim).collect();
            assert_eq!(cells.len(), 2, "line {}: a row has two cells: {line}", at + 1);
            found.push((at + 1, cells[1].to_owned()));
        }
    }
    found
}

/// The names of scenarios in a cell: what stands between backquotes and has the form `area/name`.
fn scenarios(cell: &str) -> Vec<&str> {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let is_name = |text: &&str| text.split_once('/').is_some_and(|(area, name)| plain(area) && plain(name));
    cell.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn every_scenario_on_the_page_exists() {
    let folder = scenario_folder();
    let page = page();
    let missing: Vec<String> = proofs(&page)
        .iter()
        .flat_map(|(line, cell)| scenarios(cell).into_iter().map(move |name| (line, name)))
        .filter(|(_, name)| !folder.join(format!("{name}.yaml")).is_file())
        .map(|(line, name)| format!("line {line}: {name}"))
        .collect();
    assert!(missing.is_empty(), "no such scenarios: {missing:#?}");
}

#[test]
fn every_row_is_proven_or_says_why_not() {
    let page = page();
    let unproven: Vec<(usize, String)> = proofs(&page)
        .into_iter()
        .filter(|(_, cell)| {
            scenarios(cell).is_empty() && !WITHOUT_SCENARIO.iter().any(|start| cell.starts_with(start))
        })
        .collect();
    assert!(unproven.is_empty(), "rows that prove nothing: {unproven:#?}");
}

#[test]
fn rows_and_names_are_found() {
    let page =
        "| behaviour | proof |\n|---|---|\n| a | `hcm/one`, `x.y/z` |\n| b | refused |\n\ntext | here\n";
    let found = proofs(page);
    assert_eq!(found, [(3, "`hcm/one`, `x.y/z`".to_owned()), (4, "refused".to_owned())]);
    assert_eq!(scenarios(&found[0].1), ["hcm/one"]);
    assert!(scenarios(&found[1].1).is_empty());
}
