//! `probes.yaml`: where messages sit, and the values that cannot be derived.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use dhow_testkit::TempDir;
use dhow_testkit::certs::TestCa;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// The file, compiled in: it belongs to this crate.
const FILE: &str = include_str!("../../probes.yaml");

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Probes {
    /// Complete bootstraps.
    pub(super) bootstraps: BTreeMap<String, Json>,
    /// Where to start.
    pub(super) frames: Vec<FrameSpec>,
    /// Values for fields, by full name.
    pub(super) samples: BTreeMap<String, Sample>,
    /// Fields on whose samples only one of ours and Envoy agrees, by full name, and why that is meant.
    pub(super) verdicts: BTreeMap<String, String>,
}

/// A message at a place of one of the bootstraps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrameSpec {
    pub(super) message: String,
    #[serde(rename = "in")]
    pub(super) bootstrap: String,
    pub(super) at: String,
    /// Whether the place holds an `Any`.
    #[serde(default)]
    pub(super) typed: bool,
    /// Merged into what is at the place.
    #[serde(default)]
    pub(super) value: Json,
    /// What else the bootstrap needs, merged into it first.
    #[serde(default, rename = "bootstrap")]
    pub(super) around: Json,
}

/// A value for a field that cannot be derived.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    /// The value; derived unless given.
    #[serde(default)]
    pub(super) value: Option<Json>,
    /// Fields beside it that have to be set too.
    #[serde(default)]
    pub(super) with: Map<String, Json>,
    /// What else the bootstrap needs.
    #[serde(default)]
    pub(super) bootstrap: Json,
}

/// The file, with the paths of certificates that are made in `folder`.
pub(super) fn read(folder: &TempDir) -> Result<Probes> {
    let ca = TestCa::new("ledger")?;
    let identity = ca.issue("ledger", &["localhost"])?;
    let mut text = FILE.to_owned();
    for (name, contents) in
        [("ca", &ca.cert_pem), ("certificate", &identity.cert_pem), ("key", &identity.key_pem)]
    {
        let path = folder.write(&format!("{name}.pem"), contents)?;
        text = text.replace(&format!("{{{{{name}}}}}"), &path.to_string_lossy());
    }
    serde_saphyr::from_str(&text).context("probes.yaml")
}
