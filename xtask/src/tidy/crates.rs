//! What every crate has: a README, a first line that says its responsibility, and the workspace's lints.

use super::Repository;

/// Checks every member.
pub fn check(repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &repository.workspace.packages {
        let folder = &package.folder;
        let readme = repository.text(&format!("{folder}/README.md"));
        if folder != "xtask" && first_paragraph(readme).is_empty() {
            faults.push(format!("{folder}/README.md: missing, or says nothing after its title"));
        }
        let library = repository.text(&format!("{folder}/src/lib.rs"));
        let (file, root) = if library.is_empty() {
            ("main.rs", repository.text(&format!("{folder}/src/main.rs")))
        } else {
            ("lib.rs", library)
        };
        let opening = opening(root);
        if opening.is_empty() {
            faults.push(format!("{folder}/src/{file}: does not start with `//!` and its responsibility"));
        } else if file == "lib.rs" && !opening.contains("not know") {
            faults
                .push(format!("{folder}/src/{file}: the opening does not say what the crate must not know"));
        }
        if allows_unsafe(repository, folder) && !opening.contains("unsafe") {
            faults.push(format!("{folder}/src/{file}: contains unsafe code but its opening does not say so"));
        }
        let manifest = repository.text(&format!("{folder}/Cargo.toml"));
        if !manifest.contains("[lints]\nworkspace = true") {
            faults.push(format!("{folder}/Cargo.toml: does not take over the workspace's lints"));
        }
    }
    faults
}

/// The first paragraph of the crate's documentation, on one line.
fn opening(source: &str) -> String {
    let lines = source.lines().take_while(|line| line.starts_with("//! "));
    lines.map(|line| line.trim_start_matches("//! ")).collect::<Vec<_>>().join(" ")
}

fn first_paragraph(readme: &str) -> &str {
    readme.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default()
}

fn allows_unsafe(repository: &Repository, folder: &str) -> bool {
    let prefix = format!("{folder}/src/");
    let attribute = concat!("allow(unsafe", "_code)");
    repository.texts.iter().any(|t| t.path.starts_with(&prefix) && t.text.contains(attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_is_the_first_paragraph_only() {
        assert_eq!(
            opening("//! One thing;\n//! it must not know more.\n//!\n//! Details.\n"),
            "One thing; it must not know more."
        );
        assert_eq!(opening("use x;\n//! late\n"), "");
    }
}
