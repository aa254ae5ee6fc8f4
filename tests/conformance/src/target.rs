//! Starting the program under test.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dhow_testkit::client::Http1Client;
use dhow_testkit::{ChildGuard, ChildSpec, poll_until_async};

use crate::environment::Environment;
use crate::scenario::Scenario;
use crate::shorthand;

/// How long a target may take to become ready. Generous, because several start at once on a small machine.
const START_LIMIT: Duration = Duration::from_secs(15);

/// How long one admin request may take.
pub const ADMIN_LIMIT: Duration = Duration::from_secs(10);

/// Which program is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `dhow-proxy`.
    Ours,
    /// The real Envoy.
    Envoy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Envoy => "envoy",
        })
    }
}

/// A program that takes Envoy's command line.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which.
    pub kind: Kind,
    /// Its binary.
    pub binary: PathBuf,
}

impl Target {
    fn spec(&self, config: &Path, environment: &Environment, args: &[String]) -> Result<ChildSpec> {
        let mut spec = ChildSpec::new(&self.binary, environment.dir().join(format!("{}.log", self.kind)))
            .arg("-c")
            .arg(config)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"])
            .args(["--service-node", "test-node", "--service-cluster", "test-cluster"])
            .current_dir(environment.dir());
        for arg in args {
            spec = spec.arg(environment.resolve(arg)?);
        }
        Ok(spec)
    }

    /// Starts serving and waits until the target reports that it is live.
    pub async fn serve(&self, environment: &Environment, scenario: &Scenario) -> Result<ChildGuard> {
        let config = write_config(environment, scenario)?;
        let mut child = self.spec(&config, environment, &scenario.args)?.spawn()?;
        let admin = environment.port("admin")?;
        let guard = &mut child;
        let ready = poll_until_async(START_LIMIT, || {
            let ended = guard.exited();
            async move {
                if let Some(status) = ended {
                    return Some(Err(status));
                }
                let mut client = Http1Client::connect(admin, None).await.ok()?;
                let response = client.get("admin", "/ready", ADMIN_LIMIT).await.ok()?;
                (response.status == 200).then_some(Ok(()))
            }
        })
        .await;
        match ready {
            Ok(Ok(())) => Ok(child),
            Ok(Err(status)) => {
                bail!("{} ended with {status} at start:\n{}", self.kind, last_lines(&child.log()))
            }
            Err(_) => {
                bail!("{} is not ready after {START_LIMIT:?}:\n{}", self.kind, last_lines(&child.log()))
            }
        }
    }

    /// Runs `--mode validate` to its end: exit code and output.
    pub fn validate(&self, environment: &Environment, scenario: &Scenario) -> Result<(Option<i32>, String)> {
        let config = write_config(environment, scenario)?;
        self.validate_file(&config, environment, &scenario.args)
    }

    /// Runs `--mode validate` for a configuration in JSON without placeholders: exit code and output.
    pub fn validate_text(&self, environment: &Environment, text: &str) -> Result<(Option<i32>, String)> {
        let config = environment.dir().join(format!("{}.json", self.kind));
        std::fs::write(&config, text)?;
        // Each run appends to the log.
        _ = std::fs::remove_file(environment.dir().join(format!("{}.log", self.kind)));
        self.validate_file(&config, environment, &[])
    }

    fn validate_file(
        &self,
        config: &Path,
        environment: &Environment,
        args: &[String],
    ) -> Result<(Option<i32>, String)> {
        let mut child = self.spec(config, environment, args)?.args(["--mode", "validate"]).spawn()?;
        let status = child.wait(START_LIMIT).with_context(|| format!("{} does not end", self.kind))?;
        Ok((status.code(), child.log()))
    }
}

/// The part of a log that tells why a target ended: from its first critical or error line on, the middle cut out of what is
/// long (Envoy prints the whole configuration before the reason).
fn last_lines(log: &str) -> String {
    let start = log.lines().position(|line| line.contains("[critical]") || line.contains("error"));
    let text: Vec<&str> = log.lines().skip(start.unwrap_or(0)).collect();
    let text: Vec<char> = text.join("\n").chars().collect();
    if text.len() <= 1200 {
        return text.into_iter().collect();
    }
    let (head, tail) = (&text[..700], &text[text.len() - 300..]);
    format!("{}\n    ...\n{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

/// The bootstrap of `scenario` as text, placeholders resolved, with the file name that tells its format.
pub fn config_text<'a>(environment: &Environment, scenario: &'a Scenario) -> Result<(&'a str, String)> {
    match &scenario.bootstrap_text {
        Some(text) => {
            let name = scenario.bootstrap_file.as_deref().unwrap_or("config.yaml");
            Ok((name, environment.resolve(text)?))
        }
        None => {
            let value = environment.resolve_all(&shorthand::bootstrap(scenario))?;
            Ok(("config.json", serde_json::to_string_pretty(&value)?))
        }
    }
}

fn write_config(environment: &Environment, scenario: &Scenario) -> Result<PathBuf> {
    let (name, text) = config_text(environment, scenario)?;
    let path = environment.dir().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}
