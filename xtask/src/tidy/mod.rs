//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that a program can check.

mod crates;
mod dependencies;
mod documents;
mod layers;
mod lowering;
mod sources;

use std::path::Path;

use anyhow::{Result, bail};
use dhow_conformance::scenario::Scenario;

use crate::filters;
use crate::workspace::{Workspace, tracked_files};

/// Everything the checks look at, read once.
pub struct Repository {
    /// The packages.
    pub workspace: Workspace,
    /// The text files, by path relative to the root.
    pub texts: Vec<Text>,
    /// Files that are not text.
    pub binaries: Vec<String>,
}

/// A text file.
pub struct Text {
    /// Path relative to the root.
    pub path: String,
    /// Its contents.
    pub text: String,
}

impl Repository {
    fn load() -> Result<Self> {
        let workspace = Workspace::load()?;
        let mut texts = Vec::new();
        let mut binaries = Vec::new();
        for path in tracked_files(&workspace.root)? {
            let bytes = std::fs::read(workspace.root.join(&path))?;
            match String::from_utf8(bytes) {
                Ok(text) if !text.contains('\0') => texts.push(Text { path, text }),
                _ => binaries.push(path),
            }
        }
        Ok(Self { workspace, texts, binaries })
    }

    /// The contents of one file, empty when there is none.
    pub fn text(&self, path: &str) -> &str {
        self.texts.iter().find(|t| t.path == path).map_or("", |t| t.text.as_str())
    }

    fn root(&self) -> &Path {
        &self.workspace.root
    }
}

/// Runs every check and fails with all that is wrong.
pub fn run() -> Result<()> {
    let repository = Repository::load()?;
    let mut faults = Vec::new();
    faults.extend(layers::check(&repository));
    faults.extend(layers::check_single_importers(&repository));
    faults.extend(crates::check(&repository));
    faults.extend(sources::check(&repository));
    faults.extend(lowering::check(&repository));
    faults.extend(dependencies::check(&repository));
    faults.extend(documents::check(&repository));
    faults.extend(filters::check(repository.root())?);
    match Scenario::read_all(&dhow_conformance::scenario_folder()) {
        Ok(scenarios) if scenarios.is_empty() => faults.push("no conformance scenarios found".to_owned()),
        Ok(_) => {}
        Err(error) => faults.push(format!("conformance scenario: {error:#}")),
    }
    if faults.is_empty() {
        println!(
            "tidy: {} packages and {} files are in order",
            repository.workspace.packages.len(),
            repository.texts.len()
        );
        return Ok(());
    }
    bail!("{} rules broken:\n  {}", faults.len(), faults.join("\n  "))
}
