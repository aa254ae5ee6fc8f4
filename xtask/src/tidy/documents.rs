//! Links between documents lead somewhere.

use std::path::Path;

use super::{Repository, Text};

/// Checks every relative link in every Markdown file.
pub fn check(repository: &Repository) -> Vec<String> {
    let documents = repository.texts.iter().filter(|t| t.path.ends_with(".md"));
    documents.flat_map(|document| broken(document, repository.root())).collect()
}

fn broken(document: &Text, root: &Path) -> Vec<String> {
    let folder = root.join(&document.path).parent().map(Path::to_owned).unwrap_or_default();
    let dead = |link: &&str| !folder.join(link.split('#').next().unwrap_or_default()).exists();
    links(&document.text)
        .into_iter()
        .filter(dead)
        .map(|link| format!("{}: the link to `{link}` leads nowhere", document.path))
        .collect()
}

/// The targets of links that stay inside the repository, outside code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let inside = !target.contains(':') && !target.starts_with('#') && !target.is_empty();
            if inside {
                found.push(target);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_inside_the_repository_count() {
        let text = "[a](b.md) [c](https://x.test/) [d](#e) [f](g/h.md#i)\n```\n[j](k)\n```\n";
        assert_eq!(links(text), ["b.md", "g/h.md#i"]);
    }
}
