//! One file: its documents as objects, and the last good version of those that became invalid.

use std::collections::BTreeSet;
use std::sync::Arc;

use dhow_control_model::{Decoded, Object, ObjectKey, Origin, decode, validation};
use dhow_yaml::{Dialect, Document, parse_separately};

use crate::{Problem, Severity};

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct FileContent {
    /// Objects in the order of the documents; of several with one key the last is live.
    pub objects: Vec<Arc<Object>>,
    /// Findings.
    pub problems: Vec<Problem>,
}

impl FileContent {
    /// Reads the text. `previous` is what the file said before: an object whose document is now invalid keeps its version
    /// from there, and so does every object that is missing while some document cannot even be parsed, because that
    /// document may be the missing one.
    pub fn read(name: &Arc<str>, text: &str, default_namespace: &str, previous: &Self) -> Self {
        let mut content = Self::default();
        let mut invalid = BTreeSet::new();
        let mut unreadable = false;
        for outcome in parse_separately(text, Dialect::Kubernetes) {
            match outcome {
                Ok(document) => {
                    let mut reader = Reader { name, document: &document, content: &mut content };
                    if let Err(key) = reader.read(default_namespace) {
                        match key {
                            Some(key) => _ = invalid.insert(key),
                            None => unreadable = true,
                        }
                    }
                }
                Err(error) => {
                    unreadable = true;
                    content.problems.push(Problem {
                        severity: Severity::Error,
                        file: name.clone(),
                        line: line_number(error.line),
                        object: None,
                        path: String::new(),
                        reason: error.to_string(),
                    });
                }
            }
        }
        let present: BTreeSet<ObjectKey> = content.objects.iter().map(|object| object.meta.key()).collect();
        for object in &previous.objects {
            let key = object.meta.key();
            if !present.contains(&key) && (unreadable || invalid.contains(&key)) {
                content.objects.push(object.clone());
            }
        }
        content
    }
}

struct Reader<'a> {
    name: &'a Arc<str>,
    document: &'a Document,
    content: &'a mut FileContent,
}

impl Reader<'_> {
    /// Reads one document. An error carries the key of the object when the document shows it.
    fn read(&mut self, default_namespace: &str) -> Result<(), Option<ObjectKey>> {
        if let Some(items) = self.document.root.get("items")
            && self.document.root.get("kind").and_then(|kind| kind.as_str()) == Some("List")
        {
            return self.read_list(items, default_namespace);
        }
        let origin = Origin { file: self.name.clone(), line: line_number(self.document.root.line) };
        let named = self.object_name();
        match decode(self.document.root.to_json(), default_namespace, origin) {
            Ok(Decoded::Object(object)) => self.validated(*object),
            Ok(Decoded::Ignored) => Ok(()),
            Ok(Decoded::Unsupported(kind)) => {
                self.report(
                    Severity::Warning,
                    None,
                    "",
                    format!("{kind} is not supported yet and has no effect"),
                );
                Ok(())
            }
            Err(error) => {
                self.report(Severity::Error, named, error.path.as_str(), reason(error.reason, error.hint));
                Err(self.probable_key(default_namespace))
            }
        }
    }

    /// A `List` holds objects; each is read as a document of its own.
    fn read_list(
        &mut self,
        items: &dhow_yaml::Node,
        default_namespace: &str,
    ) -> Result<(), Option<ObjectKey>> {
        let dhow_yaml::Value::Sequence(items) = &items.value else {
            self.report(Severity::Error, None, "items", "must be a list".to_owned());
            return Err(None);
        };
        let mut outcome = Ok(());
        for item in items {
            let document = Document { root: item.clone() };
            let mut reader = Reader { name: self.name, document: &document, content: self.content };
            // One bad item makes the list suspect as a whole: its missing objects keep their last good version.
            if reader.read(default_namespace).is_err() {
                outcome = Err(None);
            }
        }
        outcome
    }

    fn validated(&mut self, object: Object) -> Result<(), Option<ObjectKey>> {
        let key = object.meta.key();
        let findings = validation::validate(&object);
        for warning in findings.warnings {
            self.report(Severity::Warning, Some(key.to_string()), warning.path.as_str(), warning.message);
        }
        if findings.errors.is_empty() {
            self.content.objects.push(Arc::new(object));
            return Ok(());
        }
        for error in findings.errors {
            self.report(
                Severity::Error,
                Some(key.to_string()),
                error.path.as_str(),
                reason(error.reason, error.hint),
            );
        }
        Err(Some(key))
    }

    fn report(&mut self, severity: Severity, object: Option<String>, path: &str, reason: String) {
        let line = if path.is_empty() { self.document.root.line } else { self.document.nearest_line(path) };
        self.content.problems.push(Problem {
            severity,
            file: self.name.clone(),
            line: line_number(line),
            object,
            path: path.to_owned(),
            reason,
        });
    }

    fn metadata(&self, field: &str) -> Option<&str> {
        self.document.root.get("metadata")?.get(field)?.as_str()
    }

    fn object_name(&self) -> Option<String> {
        let kind = self.document.root.get("kind")?.as_str()?;
        let name = self.metadata("name")?;
        Some(match self.metadata("namespace") {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        })
    }

    /// The key of an object whose spec cannot be read.
    fn probable_key(&self, default_namespace: &str) -> Option<ObjectKey> {
        let kind = dhow_control_model::Kind::parse(self.document.root.get("kind")?.as_str()?)?;
        let namespace = match self.metadata("namespace") {
            _ if kind.cluster_scoped() => "",
            Some(namespace) => namespace,
            None => default_namespace,
        };
        Some(ObjectKey { kind, namespace: namespace.to_owned(), name: self.metadata("name")?.to_owned() })
    }
}

fn reason(reason: String, hint: Option<String>) -> String {
    match hint {
        Some(hint) => format!("{reason} ({hint})"),
        None => reason,
    }
}

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
