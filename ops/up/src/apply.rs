//! Changing the rules of a running mesh: objects of a manifest replace those in the watched folder, wherever they are in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::UpError;
use crate::manifest::{ManifestFile, ObjectId, Validate, is_manifest, parts};
use crate::state::write_whole;
use crate::workload::is_workload;

/// What happened to an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It replaces another version of itself.
    Configured,
    /// It was there already.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// What happened to which object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Kind and group as `kubectl` writes them: `virtualservice.networking.istio.io`.
    pub resource: String,
    /// Name of the object.
    pub name: String,
    /// What happened.
    pub outcome: Outcome,
}

/// What applying a manifest did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// What happened to each object.
    pub changes: Vec<Change>,
    /// What may not have the effect that its author expects, with file and line.
    pub warnings: Vec<String>,
}

/// The watched folder of a mesh.
#[derive(Debug)]
pub struct Rules {
    config: PathBuf,
    partial: PathBuf,
    files: BTreeMap<PathBuf, ManifestFile>,
    /// Files that have to be written.
    changed: BTreeSet<PathBuf>,
}

impl Rules {
    /// Reads what is in the folder of the mesh at `folder`. Files that cannot be parsed are left alone.
    pub fn of(folder: &Path) -> Result<Self, UpError> {
        let config = folder.join("config");
        let mut files = BTreeMap::new();
        collect(&config, &mut files)?;
        Ok(Self { config, partial: folder.join("partial"), files, changed: BTreeSet::new() })
    }

    /// Puts every object of `text` into the folder, which is written only if `validate` accepts all of them. `name` is what errors call the text.
    pub fn apply(mut self, name: &Path, text: String, validate: Validate) -> Result<Applied, UpError> {
        let file = read(name, text)?;
        let warnings = file.validate(validate)?;
        let mut changes = Vec::new();
        for document in &file.documents {
            let id = identity(&file, document)?;
            if is_workload(&document.value) {
                return Err(UpError::Apply(format!(
                    "{}: {} {}: workloads are started with the mesh; apply it by starting `dhow up` anew",
                    file.at(document),
                    id.kind,
                    id.name
                )));
            }
            let text = own_text(&file.text[document.range.clone()]);
            let outcome = self.put(&id, &document.value, text)?;
            changes.push(Change { resource: id.resource(), name: id.name, outcome });
        }
        self.write()?;
        Ok(Applied { changes, warnings })
    }

    /// Removes every object that `text` names from the folder. An object that is not there is an error, after the others have been removed.
    pub fn delete(mut self, name: &Path, text: String) -> Result<(Vec<Change>, Vec<String>), UpError> {
        let file = read(name, text)?;
        let (mut changes, mut missing) = (Vec::new(), Vec::new());
        for document in &file.documents {
            let id = identity(&file, document)?;
            let places = self.places(&id);
            if places.is_empty() {
                missing.push(format!("{} \"{}\" not found", id.resource(), id.name));
                continue;
            }
            for path in places {
                self.replace(&path, &id, None)?;
            }
            changes.push(Change { resource: id.resource(), name: id.name, outcome: Outcome::Deleted });
        }
        self.write()?;
        Ok((changes, missing))
    }

    /// Puts one object where its predecessor is, or else into a file of its own.
    fn put(&mut self, id: &ObjectId, value: &serde_json::Value, text: &str) -> Result<Outcome, UpError> {
        let places = self.places(id);
        let Some((first, others)) = places.split_first() else {
            let name = format!("{}.{}.{}.yaml", id.namespace, id.kind.to_ascii_lowercase(), id.name);
            let path = self.config.join(name);
            self.files.insert(path.clone(), ManifestFile::parse(&path, with_newline(text))?);
            self.changed.insert(path);
            return Ok(Outcome::Created);
        };
        let same = self.files[first].documents.iter().any(|document| document.value == *value);
        if same && others.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        self.replace(first, id, Some(text))?;
        for other in others {
            self.replace(other, id, None)?;
        }
        Ok(Outcome::Configured)
    }

    /// The files that have an object of this identity.
    fn places(&self, id: &ObjectId) -> Vec<PathBuf> {
        let has = |file: &ManifestFile| {
            file.documents.iter().any(|d| ObjectId::of(&d.value).is_ok_and(|i| i == *id))
        };
        self.files.iter().filter(|(_, file)| has(file)).map(|(path, _)| path.clone()).collect()
    }

    /// Puts `text` in the place of the object in the file at `path`, or removes the object there.
    fn replace(&mut self, path: &Path, id: &ObjectId, text: Option<&str>) -> Result<(), UpError> {
        let Some(file) = self.files.get(path) else { return Ok(()) };
        let mut kept: Vec<String> = Vec::new();
        let mut text = text;
        for (_, range) in parts(&file.text) {
            let is_it = |d: &&crate::manifest::Document| {
                d.range == range && ObjectId::of(&d.value).is_ok_and(|i| i == *id)
            };
            if file.documents.iter().any(|document| is_it(&document)) {
                // Should the file have it twice, once is enough.
                kept.extend(text.take().map(with_newline));
            } else {
                kept.push(with_newline(own_text(&file.text[range])));
            }
        }
        kept.retain(|part| !part.trim().is_empty());
        let parsed = ManifestFile::parse(path, kept.join("---\n"))?;
        self.files.insert(path.to_owned(), parsed);
        self.changed.insert(path.to_owned());
        Ok(())
    }

    /// Writes the changed files, each at once; those without an object are removed.
    fn write(self) -> Result<(), UpError> {
        for path in &self.changed {
            let file = &self.files[path];
            if file.documents.is_empty() {
                std::fs::remove_file(path).map_err(UpError::file(path))?;
            } else {
                write_whole(&self.partial, path, file.text.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn read(name: &Path, text: String) -> Result<ManifestFile, UpError> {
    let file = ManifestFile::parse(name, text)?;
    if file.documents.is_empty() {
        return Err(UpError::Apply(format!("{}: no objects in it", name.display())));
    }
    Ok(file)
}

fn identity(file: &ManifestFile, document: &crate::manifest::Document) -> Result<ObjectId, UpError> {
    ObjectId::of(&document.value).map_err(|reason| UpError::Manifest {
        file: file.path.display().to_string(),
        line: document.line,
        reason,
    })
}

/// A document's text without the separator in front of it.
fn own_text(part: &str) -> &str {
    match part.strip_prefix("---") {
        // What follows on the line of the separator belongs to the document, unless it is a comment.
        Some(rest) => match rest.split_once('\n') {
            Some((line, below)) if line.trim().is_empty() || line.trim_start().starts_with('#') => below,
            _ => rest,
        },
        None => part,
    }
}

fn with_newline(text: &str) -> String {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{newline}")
}

/// Reads the manifests under `folder`, except what the mesh itself writes there.
fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, ManifestFile>) -> Result<(), UpError> {
    for entry in std::fs::read_dir(folder).map_err(UpError::file(folder))? {
        let path = entry.map_err(UpError::file(folder))?.path();
        let kind = path.symlink_metadata().map_err(UpError::file(&path))?.file_type();
        if kind.is_dir() && !path.ends_with("config/generated") {
            collect(&path, files)?;
        } else if kind.is_file() && is_manifest(&path) {
            files.extend(ManifestFile::read(&path).ok().map(|file| (path, file)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_base::Rng;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path =
                std::env::temp_dir().join(format!("dhow-apply-{:016x}", Rng::from_entropy().next_u64()));
            std::fs::create_dir_all(path.join("config/generated")).unwrap();
            std::fs::create_dir(path.join("partial")).unwrap();
            Self(path)
        }

        fn apply(&self, text: &str) -> Result<Vec<(String, Outcome)>, String> {
            let changes =
                Rules::of(&self.0).unwrap().apply(Path::new("in.yaml"), text.to_owned(), |_| Ok(Vec::new()));
            let changes = changes.map_err(|error| error.to_string())?;
            Ok(changes.changes.into_iter().map(|change| (change.name, change.outcome)).collect())
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.join("config").join(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.0.join("config")).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn rule(name: &str, value: u32) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{v: {value}}}\n"
        )
    }

    #[test]
    fn objects_are_created_then_replaced_then_unchanged() {
        let folder = Folder::new();
        let both = format!("{}---\n{}", rule("a", 1), rule("b", 1));
        let outcome = |what| vec![("a".to_owned(), what)];
        assert_eq!(folder.apply(&both).unwrap().len(), 2);
        assert_eq!(
            folder.names(),
            ["default.virtualservice.a.yaml", "default.virtualservice.b.yaml", "generated"]
        );
        assert_eq!(folder.apply(&rule("a", 1)).unwrap(), outcome(Outcome::Unchanged));
        assert_eq!(folder.apply(&rule("a", 2)).unwrap(), outcome(Outcome::Configured));
        assert_eq!(folder.read("default.virtualservice.a.yaml"), rule("a", 2));
        assert_eq!(folder.read("default.virtualservice.b.yaml"), rule("b", 1));
    }

    #[test]
    fn an_object_is_replaced_within_the_file_that_has_it_and_removed_from_others() {
        let folder = Folder::new();
        let copied = format!("# rules\n{}--- # two\n{}---\n{}", rule("a", 1), rule("b", 1), rule("c", 1));
        std::fs::write(folder.0.join("config/copied.yaml"), copied).unwrap();
        std::fs::write(folder.0.join("config/later.yaml"), rule("b", 2)).unwrap();
        assert_eq!(folder.apply(&rule("b", 3)).unwrap(), [("b".to_owned(), Outcome::Configured)]);
        let expected = format!("# rules\n{}---\n{}---\n{}", rule("a", 1), rule("b", 3), rule("c", 1));
        assert_eq!(folder.read("copied.yaml"), expected);
        assert_eq!(folder.names(), ["copied.yaml", "generated"]);
    }

    #[test]
    fn deleted_objects_are_gone_and_missing_ones_are_named() {
        let folder = Folder::new();
        folder.apply(&rule("a", 1)).unwrap();
        let both = format!("{}---\n{}", rule("a", 5), rule("b", 1));
        let (changes, missing) = Rules::of(&folder.0).unwrap().delete(Path::new("in.yaml"), both).unwrap();
        assert_eq!((changes.len(), changes[0].outcome), (1, Outcome::Deleted));
        assert_eq!(missing, ["virtualservice.networking.istio.io \"b\" not found"]);
        assert_eq!(folder.names(), ["generated"]);
    }

    #[test]
    fn nothing_is_written_when_one_object_is_wrong() {
        let folder = Folder::new();
        let nameless = format!("{}---\napiVersion: v1\nkind: Service\n", rule("a", 1));
        assert_eq!(folder.apply(&nameless).unwrap_err(), "in.yaml:6: metadata.name: is required");
        let workload =
            format!("{}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n", rule("a", 1));
        assert!(folder.apply(&workload).unwrap_err().contains("in.yaml:6: Deployment d: workloads"));
        assert_eq!(folder.apply("# nothing\n").unwrap_err(), "in.yaml: no objects in it");
        assert_eq!(folder.names(), ["generated"]);
    }
}
