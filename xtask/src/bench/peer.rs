//! The programs under measurement: where they are, how they are started.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use dhow_testkit::envoy;

use super::{Programs, installed};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// `dhow-proxy`.
    Ours,
    /// The real Envoy.
    Envoy,
    /// HAProxy, where it is installed.
    Haproxy,
    /// nginx, where it is installed.
    Nginx,
}

impl Peer {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "dhow-proxy",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Whether it takes Envoy's configuration.
    pub fn takes_bootstrap(self) -> bool {
        matches!(self, Self::Ours | Self::Envoy)
    }

    /// Whether what it allocates comes from the C library, so that it can be counted there.
    pub fn uses_system_allocator(self) -> bool {
        self != Self::Envoy
    }

    /// The binary, or why there is none.
    pub fn find(self, programs: &Programs) -> Result<PathBuf> {
        match self {
            Self::Ours => programs.ours.clone().context("no binary"),
            Self::Envoy => Ok(envoy::locate()?.canonicalize()?),
            Self::Haproxy | Self::Nginx => installed(self.name()).ok_or_else(|| anyhow!("not installed")),
        }
    }

    /// The command line that serves `config` with one worker; `dir` is a folder to write to.
    pub fn args(self, config: &Path, dir: &Path) -> Vec<String> {
        let config = config.display().to_string();
        let words: Vec<&str> = match self {
            Self::Ours | Self::Envoy => {
                vec!["-c", &config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
            }
            Self::Haproxy => vec!["-db", "-f", &config],
            Self::Nginx => {
                return ["-p", &dir.display().to_string(), "-c", &config].map(str::to_owned).to_vec();
            }
        };
        words.into_iter().map(str::to_owned).collect()
    }
}
