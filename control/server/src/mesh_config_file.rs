//! MeshConfig from a file.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use dhow_control_model::MeshConfig;
use dhow_yaml::{Dialect, Document};

/// Reads MeshConfig; a file that is the ConfigMap `istio` carries it as text under the key `mesh`. The warnings are
/// complete sentences with file and line.
pub(crate) fn read(path: &Path) -> Result<(MeshConfig, Vec<String>)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let document = parse(&text).with_context(|| path.display().to_string())?;
    let Some(document) = document else { return Ok((MeshConfig::default(), Vec::new())) };
    if document.root.get("kind").and_then(|kind| kind.as_str()) == Some("ConfigMap") {
        let mesh = document.root.get("data").and_then(|data| data.get("mesh")).and_then(|mesh| mesh.as_str());
        let mesh = mesh.with_context(|| format!("{}: the ConfigMap has no data.mesh", path.display()))?;
        let inner = parse(mesh).with_context(|| format!("{}: data.mesh", path.display()))?;
        return match inner {
            Some(inner) => decode(path, &inner, "data.mesh: "),
            None => Ok((MeshConfig::default(), Vec::new())),
        };
    }
    decode(path, &document, "")
}

fn parse(text: &str) -> Result<Option<Document>> {
    let mut documents =
        dhow_yaml::parse(text, Dialect::Kubernetes)?.into_iter().filter(|document| !document.root.is_null());
    let first = documents.next();
    if documents.next().is_some() {
        bail!("has several documents, MeshConfig is one");
    }
    Ok(first)
}

fn decode(path: &Path, document: &Document, inside: &str) -> Result<(MeshConfig, Vec<String>)> {
    let place = |field: &str| format!("{}:{}: {inside}", path.display(), document.nearest_line(field));
    let (config, warnings) = MeshConfig::decode(document.root.to_json())
        .map_err(|error| anyhow!("{}{error}", place(error.path.as_str())))?;
    let warnings = warnings.iter().map(|warning| format!("{}{warning}", place(warning.path.as_str())));
    Ok((config, warnings.collect()))
}
