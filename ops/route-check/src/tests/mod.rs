//! Tables and tests as files, and what is printed about them.

mod coverage;
mod inputs;
mod reports;

use dhow_testkit::TempDir;

use crate::{Args, check};

/// What a run prints, and whether it succeeds.
struct Run {
    passed: bool,
    out: String,
    err: String,
}

fn run_files(table: (&str, &str), tests: (&str, &str), flags: Args) -> Run {
    let folder = TempDir::new("route-check").unwrap();
    let args = Args {
        config_path: Some(folder.write(table.0, table.1).unwrap()),
        test_path: Some(folder.write(tests.0, tests.1).unwrap()),
        ..flags
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let passed = check(&args, &mut out, &mut err).unwrap();
    Run { passed, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn details() -> Args {
    Args { details: true, ..Args::default() }
}

/// Runs tests in YAML against a table in YAML.
fn run(table: &str, tests: &str, flags: Args) -> Run {
    run_files(("table.yaml", table), ("tests.yaml", tests), flags)
}

/// One test of a GET request to `h`, in YAML; `more` are further fields of the input.
fn test(name: &str, path: &str, more: &str, validate: &str) -> String {
    format!(
        "- {{test_name: {name}, input: {{authority: h, path: {path}, method: GET{more}}}, validate: {{{validate}}}}}\n"
    )
}

fn tests(list: &[String]) -> String {
    format!("tests:\n{}", list.concat())
}

/// The lines that a single failing test prints after its name.
fn failures(table: &str, path: &str, more: &str, validate: &str) -> Vec<String> {
    let run = run(table, &tests(&[test("one", path, more, validate)]), details());
    assert!(!run.passed, "{}", run.out);
    run.err.lines().skip(1).map(str::to_owned).collect()
}

/// Asserts that a single test passes.
fn passes(table: &str, path: &str, more: &str, validate: &str) {
    let run = run(table, &tests(&[test("one", path, more, validate)]), details());
    assert!(run.passed, "{path} {more} {validate}: {}", run.err);
}
