//! Rules for every file: size, leftovers, binaries, paths of one machine.

use super::{Repository, Text};

/// Largest source file, in bytes, so that it fits in the head.
const LARGEST: usize = 25 * 1024;

/// Larger files with the reason for each, as `path: reason` lines.
const EXCEPTIONS: &str = "xtask/size-exceptions.txt";

/// Words that mean unfinished work. Written in two halves so that this file does not contain them.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("db", "g!("),
    concat!("unimplement", "ed!("),
    concat!("Placehold", "er until"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/ev"), concat!("/ho", "me/")];

/// Checks every file.
pub fn check(repository: &Repository) -> Vec<String> {
    let mut faults: Vec<String> =
        repository.binaries.iter().map(|path| format!("{path}: binary files do not belong here")).collect();
    let exceptions = repository.text(EXCEPTIONS);
    for file in &repository.texts {
        faults.extend(check_file(file, exceptions));
    }
    for line in exceptions.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (path, reason) = line.split_once(':').unwrap_or((line, ""));
        if reason.trim().is_empty() {
            faults.push(format!("{EXCEPTIONS}: `{path}` has no reason"));
        }
        if repository.text(path).len() <= LARGEST {
            faults.push(format!("{EXCEPTIONS}: `{path}` is not larger than {LARGEST} bytes any more"));
        }
    }
    faults
}

fn check_file(file: &Text, exceptions: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let path = &file.path;
    if path.ends_with(".rs") && !is_test(path) && file.text.len() > LARGEST {
        let excepted = exceptions.lines().any(|line| line.split(':').next() == Some(path.as_str()));
        if !excepted {
            faults.push(format!(
                "{path}: {} bytes; split it by responsibility (at most {LARGEST})",
                file.text.len()
            ));
        }
    }
    if path == "Cargo.lock" || path == "LICENSE" {
        return faults;
    }
    for (number, line) in file.text.lines().enumerate() {
        for word in LEFTOVERS.iter().filter(|word| line.contains(**word)) {
            faults.push(format!("{path}:{}: contains `{word}`", number + 1));
        }
        for start in MACHINE_PATHS.iter().filter(|start| line.contains(**start)) {
            faults.push(format!("{path}:{}: names a path of one machine ({start})", number + 1));
        }
    }
    faults
}

/// Whether a source file holds only tests.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> usize {
        check_file(&Text { path: path.to_owned(), text: text.to_owned() }, "core/a/src/long.rs: one table")
            .len()
    }

    #[test]
    fn large_sources_are_refused_unless_excepted_or_tests() {
        let long = "// x\n".repeat(6000);
        assert_eq!(faults("core/a/src/other.rs", &long), 1);
        assert_eq!(faults("core/a/src/long.rs", &long), 0);
        assert_eq!(faults("core/a/src/tests.rs", &long), 0);
        assert_eq!(faults("core/a/src/data.yaml", &long), 0);
    }

    #[test]
    fn leftovers_and_machine_paths_are_found() {
        assert_eq!(faults("a.rs", concat!("// TO", "DO: later")), 1);
        assert_eq!(faults("a.md", concat!("see /wo", "rk/x")), 1);
        assert_eq!(faults("a.rs", "// done"), 0);
    }
}
