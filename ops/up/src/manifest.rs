//! Manifest files: which ones a folder has, the documents in them and where those are.

use std::ops::Range;
use std::path::{Path, PathBuf};

use dhow_yaml::Dialect;
use serde_json::Value;

use crate::error::UpError;

/// A file with manifests.
#[derive(Clone, Debug)]
pub(crate) struct ManifestFile {
    /// Path as the user named it.
    pub path: PathBuf,
    pub text: String,
    pub documents: Vec<Document>,
}

/// One object in a file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub value: Value,
    /// Line on which the object starts, from 1.
    pub line: usize,
    /// The bytes of the file that are this document's, with the separator in front of it.
    pub range: Range<usize>,
    source: dhow_yaml::Document,
    lines_before: usize,
}

impl Document {
    /// Line of the field at `path`, or of what is nearest to it.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        self.source.nearest_line(path) + self.lines_before
    }
}

/// Why an object cannot be accepted, or not without a warning.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// Path of the field, such as `spec.http[0].route`; empty for the whole object.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Says whether the control plane would accept an object, and what it would warn about.
pub type Validate = fn(&Value) -> Result<Vec<Rejection>, Rejection>;

/// What tells an object from others: API group, kind, namespace and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct ObjectId {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl ObjectId {
    /// The identity of `value`; the error says which field is missing. Objects without a namespace are in `default`.
    pub(crate) fn of(value: &Value) -> Result<Self, String> {
        let text = |pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let need = |pointer: &'static str| {
            text(pointer).ok_or_else(|| format!("{}: is required", pointer[1..].replace('/', ".")))
        };
        let version = need("/apiVersion")?;
        Ok(Self {
            group: version.rsplit_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: need("/kind")?,
            namespace: text("/metadata/namespace").unwrap_or_else(|| "default".to_owned()),
            name: need("/metadata/name")?,
        })
    }

    /// As `kubectl` names kinds: `virtualservice.networking.istio.io`, or `service` in the core group.
    pub(crate) fn resource(&self) -> String {
        let kind = self.kind.to_ascii_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }
}

impl ManifestFile {
    /// Reads and parses the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, UpError> {
        let bytes = std::fs::read(path).map_err(UpError::file(path))?;
        let text = String::from_utf8(bytes).map_err(|error| UpError::Manifest {
            file: path.display().to_string(),
            line: 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|b| **b == b'\n')
                .count(),
            reason: "the file is not UTF-8 text".to_owned(),
        })?;
        Self::parse(path, text)
    }

    /// Parses `text` as the content of `path`.
    pub(crate) fn parse(path: &Path, text: String) -> Result<Self, UpError> {
        let mut documents = Vec::new();
        for (lines_before, range) in parts(&text) {
            let wrong = |line: usize, reason: String| UpError::Manifest {
                file: path.display().to_string(),
                line: line + lines_before,
                reason,
            };
            let parsed = dhow_yaml::parse(&text[range.clone()], Dialect::Kubernetes)
                .map_err(|error| wrong(error.line, error.message))?;
            for document in parsed.into_iter().filter(|document| !document.root.is_null()) {
                let (line, value) = (document.root.line, document.root.to_json());
                if !value.is_object() {
                    return Err(wrong(
                        line,
                        "a manifest is an object with apiVersion, kind and metadata".to_owned(),
                    ));
                }
                if value["kind"] == "List" {
                    return Err(wrong(
                        line,
                        "a List is not read here; its items can be documents of their own".to_owned(),
                    ));
                }
                documents.push(Document {
                    value,
                    line: line + lines_before,
                    range: range.clone(),
                    source: document,
                    lines_before,
                });
            }
        }
        Ok(Self { path: path.to_owned(), text, documents })
    }

    /// File and line of a document in it.
    pub(crate) fn at(&self, document: &Document) -> String {
        format!("{}:{}", self.path.display(), document.line)
    }

    /// Checks every object with `validate`; the answer is its warnings, the error that of the first object that is not accepted.
    pub(crate) fn validate(&self, validate: Validate) -> Result<Vec<String>, UpError> {
        let mut warnings = Vec::new();
        for document in &self.documents {
            let wrong =
                |(line, reason)| UpError::Manifest { file: self.path.display().to_string(), line, reason };
            let id = ObjectId::of(&document.value).map_err(|reason| wrong((document.line, reason)))?;
            let located = |Rejection { path, reason }: Rejection| {
                let separator = if path.is_empty() { "" } else { ": " };
                (document.line_of(&path), format!("{} {}: {path}{separator}{reason}", id.kind, id.name))
            };
            let findings = validate(&document.value).map_err(|rejection| wrong(located(rejection)))?;
            warnings.extend(findings.into_iter().map(|finding| {
                let (line, reason) = located(finding);
                format!("{}:{line}: {reason}", self.path.display())
            }));
        }
        Ok(warnings)
    }

    /// The name of the file in its folder.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Whether manifests are expected in a file of this name: `.yaml`, `.yml` and `.json`, hidden files excepted.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden
        && path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// The manifest files of `folder` in order of their names, without those of its subfolders.
pub(crate) fn read_folder(folder: &Path) -> Result<Vec<ManifestFile>, UpError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(UpError::file(folder))? {
        let path = entry.map_err(UpError::file(folder))?.path();
        if is_manifest(&path) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(UpError::Nothing {
            folder: folder.display().to_string(),
            reason: "the folder has no .yaml, .yml or .json file",
        });
    }
    paths.iter().map(|path| ManifestFile::read(path)).collect()
}

/// Cuts `text` at the lines that start a document; with each part the number of lines in front of it.
///
/// Three hyphens at the start of a line are a separator wherever they stand, also within a block of text.
pub(crate) fn parts(text: &str) -> Vec<(usize, Range<usize>)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let separates =
            line.strip_prefix("---").is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace));
        if separates && offset > 0 {
            parts.push((start_line, start..offset));
            (start, start_line) = (offset, number);
        }
        offset += line.len();
    }
    parts.push((start_line, start..text.len()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ManifestFile, UpError> {
        ManifestFile::parse(Path::new("a.yaml"), text.to_owned())
    }

    #[test]
    fn documents_know_their_line_and_their_bytes() {
        let text = "# first\nkind: A\n---\n\nkind: B\n--- # none\n---\nkind: C";
        let file = parse(text).unwrap();
        let seen: Vec<_> =
            file.documents.iter().map(|d| (d.value["kind"].as_str().unwrap(), d.line)).collect();
        assert_eq!(seen, [("A", 2), ("B", 5), ("C", 8)]);
        assert_eq!(&text[file.documents[1].range.clone()], "---\n\nkind: B\n");
        let joined: String = parts(text).into_iter().map(|(_, range)| &text[range]).collect();
        assert_eq!(joined, text);
    }

    #[test]
    fn errors_name_file_and_line_of_the_whole_file() {
        let error = parse("kind: A\n---\nkind: B\nspec: [1, 2\nx: y\n").unwrap_err().to_string();
        assert!(error.starts_with("a.yaml:"), "{error}");
        let line: usize = error.split(':').nth(1).unwrap().parse().unwrap();
        assert!((4..=6).contains(&line), "{error}");
        assert_eq!(
            parse("kind: A\n---\n- 1\n").unwrap_err().to_string(),
            "a.yaml:3: a manifest is an object with apiVersion, kind and metadata"
        );
    }

    #[test]
    fn a_rejection_names_the_line_of_the_field() {
        let text = "kind: A\napiVersion: v1\nmetadata: {name: a}\n---\nkind: B\napiVersion: v1\nmetadata: {name: b}\nspec:\n  x: 1\n";
        let file = parse(text).unwrap();
        let warnings =
            file.validate(|_| Ok(vec![Rejection { path: String::new(), reason: "odd".to_owned() }])).unwrap();
        assert_eq!(warnings, ["a.yaml:1: A a: odd", "a.yaml:5: B b: odd"]);
        let rejected = file.validate(|value| match value["kind"].as_str() {
            Some("B") => Err(Rejection { path: "spec.x".to_owned(), reason: "must be 2".to_owned() }),
            _ => Ok(Vec::new()),
        });
        assert_eq!(rejected.unwrap_err().to_string(), "a.yaml:9: B b: spec.x: must be 2");
    }

    #[test]
    fn identity_is_group_kind_namespace_and_name() {
        let file =
            parse("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n").unwrap();
        let id = ObjectId::of(&file.documents[0].value).unwrap();
        assert_eq!(id.resource(), "virtualservice.networking.istio.io");
        assert_eq!((id.namespace.as_str(), id.name.as_str()), ("default", "a"));
        let nameless = parse("apiVersion: v1\nkind: Service\n").unwrap();
        assert_eq!(ObjectId::of(&nameless.documents[0].value).unwrap_err(), "metadata.name: is required");
    }
}
