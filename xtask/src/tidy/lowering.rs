//! A field of a message that the code ignores says why: nothing is dropped silently.

use super::{Repository, Text};

/// Where messages become settings.
const FOLDERS: &[&str] = &["core/expr/", "core/matching/", "core/routing/", "core/runtime-config/", "proxy/"];

/// Checks every file that may lower messages.
pub fn check(repository: &Repository) -> Vec<String> {
    repository.texts.iter().filter(|file| is_lowering(&file.path)).flat_map(check_file).collect()
}

fn is_lowering(path: &str) -> bool {
    path.ends_with(".rs") && !path.contains("tests") && FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// A line such as `name: _,` needs a comment beside it, or above it or the run of such lines that it belongs to.
fn check_file(file: &Text) -> Vec<String> {
    let mut faults = Vec::new();
    let mut explained = false;
    for (number, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("//") {
            explained = true;
            continue;
        }
        let code = line.split("//").next().unwrap_or_default().trim_end();
        let ignored = code.strip_suffix(": _,").filter(|name| is_field(name));
        match ignored {
            Some(name) if !explained && !line.contains("//") => {
                faults.push(format!("{}:{}: ignores `{name}` without saying why", file.path, number + 1));
            }
            Some(_) => {}
            None => explained = false,
        }
    }
    faults
}

fn is_field(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> usize {
        check_file(&Text { path: "proxy/a/src/config.rs".to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn an_ignored_field_needs_a_reason() {
        assert_eq!(faults("let M {\n    a,\n    b: _,\n} = m;"), 1);
        assert_eq!(faults("let M {\n    b: _, // there is one\n} = m;"), 0);
        assert_eq!(
            faults("let M {\n    // both concern sinks\n    b: _,\n    c: _,\n    d,\n    e: _,\n} = m;"),
            1
        );
        assert_eq!(faults("    Some(x) => _,\n"), 0);
    }
}
