//! What `--mode validate` of `dhow-proxy`, or of Envoy, says about a bootstrap.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use dhow_testkit::TempDir;

/// Runs the proxy in validation mode, in an empty folder of its own.
#[derive(Debug)]
pub struct Validator {
    program: PathBuf,
    folder: TempDir,
}

/// What the proxy said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why the configuration was refused; none when it was accepted.
    pub error: Option<String>,
    /// Warnings, without time and level.
    pub warnings: Vec<String>,
}

impl Validator {
    /// A validator that runs `program`.
    ///
    /// # Errors
    /// When the program is not there or the folder cannot be made.
    pub fn new(program: &Path) -> Result<Self> {
        let program = program.canonicalize().with_context(|| {
            format!("{}: build it first (cargo build -p dhow-proxy-bin)", program.display())
        })?;
        Ok(Self { program, folder: TempDir::new("compatibility")? })
    }

    /// Judges a bootstrap that is given as text; `name` tells files of parallel calls apart.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn text(&self, name: &str, bootstrap: &str) -> Result<Verdict> {
        let path = self.folder.write(&format!("{name}.json"), bootstrap)?;
        self.file(&path)
    }

    /// Judges a bootstrap in a file.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn file(&self, path: &Path) -> Result<Verdict> {
        let output = Command::new(&self.program)
            .args(["--mode", "validate", "--service-node", "n", "--service-cluster", "c", "-c"])
            .arg(path)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.program.display().to_string())?;
        let log = String::from_utf8_lossy(&output.stderr);
        let mut verdict = Verdict { error: None, warnings: Vec::new() };
        for (level, text) in log_lines(&log) {
            match level {
                "warning" => verdict.warnings.push(text.to_owned()),
                "error" | "critical" => verdict.error = Some(after_file_name(text).to_owned()),
                _ => {}
            }
        }
        if !output.status.success() {
            verdict.error.get_or_insert_with(|| format!("{}: {log}", output.status));
        } else {
            verdict.error = None;
        }
        Ok(verdict)
    }
}

/// Level and text of each message; a message may go on over several lines.
fn log_lines(log: &str) -> impl Iterator<Item = (&str, &str)> {
    let starts: Vec<usize> =
        std::iter::once(0).chain(log.match_indices("\n[").map(|(at, _)| at + 1)).collect();
    let ends = starts.iter().skip(1).copied().chain(std::iter::once(log.len())).collect::<Vec<_>>();
    starts.into_iter().zip(ends).filter_map(move |(start, end)| {
        // [time][process][level][logger] [file:line] text
        let mut parts = log[start..end].trim_end().splitn(5, ']');
        let level = parts.nth(2)?.trim_start_matches('[');
        let text = parts.nth(1)?.trim_start();
        Some((level, after_location(text)))
    })
}

/// `[FILE:LINE] TEXT` without what comes before the text.
fn after_location(text: &str) -> &str {
    let location = text.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match location {
        Some((location, rest)) if location.contains(".rs:") || location.contains(".cc:") => rest,
        _ => text,
    }
}

/// `error initializing configuration 'FILE': TEXT` without what comes before the text.
fn after_file_name(text: &str) -> &str {
    text.strip_prefix("error initializing configuration '")
        .and_then(|rest| rest.split_once("': "))
        .map_or(text, |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::{after_file_name, log_lines};

    #[test]
    fn messages_are_told_apart_even_over_several_lines() {
        let log = "[t][1][warning][main] a.b: odd\n[t][1][error][main] [src/x.rs:7] error initializing configuration '/f': x: y\nz\n";
        let lines: Vec<_> = log_lines(log).collect();
        assert_eq!(lines[0], ("warning", "a.b: odd"));
        assert_eq!(after_file_name(lines[1].1), "x: y\nz");
    }
}
