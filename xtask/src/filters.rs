//! The list of filters, generated from the folders present.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::root;

/// The crate whose folders are filters.
const CRATE: &str = "proxy/filters/src";

/// The generated file.
const FILE: &str = "proxy/filters/src/registry.rs";

fn file(root: &Path) -> PathBuf {
    root.join(FILE)
}

/// What the list should be: one line for each folder that has a `mod.rs`, in alphabetical order.
fn expected(root: &Path) -> Result<String> {
    let folder = root.join(CRATE);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.join("mod.rs").is_file()
            && let Some(name) = path.file_name()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    let mut text = String::from(
        "//! Every filter of this crate, one line each. Written by `cargo xtask filters` from the folders present.\n\n\
         use dhow_proxy_api::HttpFilterDescriptor;\n\n\
         /// The descriptor of each filter, in alphabetical order of their folders.\n\
         pub fn descriptors() -> Vec<HttpFilterDescriptor> {\n",
    );
    let calls: Vec<String> = names.iter().map(|name| format!("crate::{name}::descriptor()")).collect();
    let line = format!("    vec![{}]\n", calls.join(", "));
    if line.len() <= 110 {
        text.push_str(&line);
    } else {
        text.push_str("    vec![\n");
        calls.iter().for_each(|call| text.push_str(&format!("        {call},\n")));
        text.push_str("    ]\n");
    }
    text.push_str("}\n");
    Ok(text)
}

/// Writes the list.
pub fn write() -> Result<()> {
    let root = root()?;
    fs::write(file(&root), expected(&root)?)?;
    println!("wrote {FILE}");
    Ok(())
}

/// What is wrong with the list, if something is. A crate without filter folders needs none.
pub fn check(root: &Path) -> Result<Option<String>> {
    let expected = expected(root)?;
    let found = fs::read_to_string(file(root)).unwrap_or_default();
    let needed = expected.contains("::descriptor()");
    if (found.is_empty() && !needed) || found == expected {
        return Ok(None);
    }
    Ok(Some(format!("{FILE} is not what the folders say: run `cargo xtask filters`")))
}
