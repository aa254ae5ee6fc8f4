//! A tree of files: what changed since the last scan, and which of several equal objects is live.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_control_model::{Object, ObjectKey};

use crate::file::FileContent;
use crate::{Problem, Severity};

/// Symbolic links may form a loop; no sensible tree is deeper.
const MAX_DEPTH: usize = 32;

/// A directory of `.yaml`, `.yml` and `.json` files, read recursively.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    default_namespace: String,
    files: BTreeMap<PathBuf, File>,
    folders: BTreeSet<PathBuf>,
    live: BTreeMap<ObjectKey, Arc<Object>>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct File {
    name: Arc<str>,
    state: FileState,
    content: FileContent,
}

/// What of a file's metadata changes whenever its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: u64,
    device: u64,
}

impl FileState {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

impl Directory {
    /// A directory that has not been read yet. Objects without namespace get `default_namespace`.
    pub fn new(root: impl Into<PathBuf>, default_namespace: &str) -> Self {
        Self {
            root: root.into(),
            default_namespace: default_namespace.to_owned(),
            files: BTreeMap::new(),
            folders: BTreeSet::new(),
            live: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Reads what changed. The answer says whether objects or problems did.
    ///
    /// # Errors
    /// When the directory itself cannot be listed; a file that cannot be read is a problem, not an error.
    pub fn scan(&mut self) -> io::Result<bool> {
        let mut found = BTreeMap::new();
        let mut folders = BTreeSet::new();
        list(&self.root, 0, &mut found, &mut folders)?;
        self.folders = folders;
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = self.files.len() != before;
        for (path, state) in found {
            if self.files.get(&path).is_some_and(|file| file.state == state) {
                continue;
            }
            changed = true;
            let name: Arc<str> = path.to_string_lossy().into();
            let previous = self.files.remove(&path).map(|file| file.content).unwrap_or_default();
            let content = match std::fs::read_to_string(&path) {
                Ok(text) => FileContent::read(&name, &text, &self.default_namespace, &previous),
                // Gone between listing and reading: the next scan sees it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => unreadable(&name, &error, previous),
            };
            self.files.insert(path, File { name, state, content });
        }
        if changed {
            self.choose();
        }
        Ok(changed)
    }

    /// Chooses the live version of each object: the one from the file that was written last.
    fn choose(&mut self) {
        let mut order: Vec<&File> = self.files.values().collect();
        order.sort_by(|a, b| (a.state.modified, &a.name).cmp(&(b.state.modified, &b.name)));
        let mut live: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        let mut replaced: Vec<(ObjectKey, Arc<Object>)> = Vec::new();
        for file in order {
            for object in &file.content.objects {
                let key = object.meta.key();
                if let Some(earlier) = live.insert(key.clone(), object.clone()) {
                    replaced.push((key, earlier));
                }
            }
        }
        self.problems = self.files.values().flat_map(|file| file.content.problems.iter().cloned()).collect();
        for (key, earlier) in replaced {
            let origin = &earlier.meta.origin;
            let winner = live.get(&key).map(|object| object.meta.origin.to_string()).unwrap_or_default();
            self.problems.push(Problem::duplicate(origin.file.clone(), origin.line, &key, &winner));
        }
        self.problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        self.live = live;
    }

    /// The directory's path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The live objects, in the order of their keys.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.live.values()
    }

    /// What is wrong at present, by file and line.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether any present problem is an error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Every folder that the last scan went through, links resolved: those whose changes matter.
    pub(crate) fn folders(&self) -> &BTreeSet<PathBuf> {
        &self.folders
    }
}

fn unreadable(name: &Arc<str>, error: &io::Error, previous: FileContent) -> FileContent {
    let problem = Problem {
        severity: Severity::Error,
        file: name.clone(),
        line: 0,
        object: None,
        path: String::new(),
        reason: format!("cannot be read: {error}"),
    };
    FileContent { objects: previous.objects, problems: vec![problem] }
}

fn list(
    folder: &Path,
    depth: usize,
    found: &mut BTreeMap<PathBuf, FileState>,
    folders: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    if let Ok(real) = folder.canonicalize() {
        folders.insert(real);
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Follows links; a dangling one is no file.
        let Ok(metadata) = path.metadata() else { continue };
        if metadata.is_dir() {
            // A folder that vanished or is closed to us hides its own files only.
            if depth < MAX_DEPTH && list(&path, depth + 1, found, folders).is_err() {
                tracing::warn!(folder = %path.display(), "cannot be listed, its files are left out");
            }
        } else if metadata.is_file() && has_extension(&path) {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent)
            {
                folders.insert(parent.to_owned());
            }
            found.insert(path, FileState::of(&metadata));
        }
    }
    Ok(())
}

fn has_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}
